// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCServer

/// Who waits for an answer: a call, and what is needed to answer it later.
struct Caller {
  var call: CallID
  var method: LabMethod
  var codec: RPCCodec
  /// Empty: a repeat is a new call.
  var requestID = ""
  /// Digest of the request, where there is a `requestID`.
  var digest = 0
  /// The machine of the request; 0: none.
  var machine: UInt128 = 0
  let tenant = Tenant.default
}
