// SPDX-License-Identifier: Apache-2.0
// The only sight of the nghttp2 C header; HTTP2Session is its only importer.
#pragma once
#include <nghttp2/nghttp2.h>
