// SPDX-License-Identifier: Apache-2.0
import HTTP2Session

/// A call of a client.
struct ClientCall {
  enum Form { case unary, stream }

  var generation: UInt32 = 0
  var form = Form.unary
  var stream: HTTP2StreamHandle?
  var tag: UInt64 = 0
  var status: UInt16 = 0
  var isBlocking = false
  var reply: RPCReply?
  var input: UnsafeMutableRawPointer?
  var inputCount = 0
  var inputCapacity = 0

  /// The bytes held so far; valid until the call changes.
  var held: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: input, count: inputCount) }
}
