#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Generates Sources/LabProtocol/Generated from the .proto files: protoc, and protoc-gen-swift built alone from the pinned
# swift-protobuf (half a minute, once). Run it after every change of a .proto file and commit the result.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/.build-protoc-gen-swift
out=$root/Sources/LabProtocol/Generated
command -v protoc >/dev/null || { echo "protoc is missing: apt-get install protobuf-compiler" >&2; exit 1; }

plugin=${PROTOC_GEN_SWIFT:-$build/bin/protoc-gen-swift}
if [ ! -x "$plugin" ]; then
  cd "$root"
  swift package resolve
  mkdir -p "$build"
  cp -r .build/checkouts/swift-protobuf "$build/source"
  chmod -R u+w "$build/source"
  (cd "$build/source" && swift build --product protoc-gen-swift)
  mkdir -p "$build/bin"
  cp "$build/source/.build/debug/protoc-gen-swift" "$build/bin/"
fi

mkdir -p "$out"
rm -f "$out"/*.pb.swift
cd "$root/clients/proto"
protoc --plugin=protoc-gen-swift="$plugin" --swift_opt=Visibility=Public --swift_opt=FileNaming=DropPath \
  --swift_out="$out" iommulab/v1/*.proto
for file in "$out"/*.pb.swift; do
  sed -i '1i // SPDX-License-Identifier: Apache-2.0' "$file"
done
