// SPDX-License-Identifier: Apache-2.0
import HTTP2Session

/// A stream of a client; never used again for another.
public struct RPCStreamID: Hashable, Sendable {
  let slot: UInt32
  let generation: UInt32
}

/// One thing that happened to a stream of a client.
public struct RPCClientEvent {
  public enum Kind: UInt8, Sendable {
    /// The response head of a stream arrived: the server has accepted the call.
    case opened
    /// One message; of a unary call its answer, after which the call is over.
    case message
    /// The stream ended well and is over.
    case ended
    /// The call failed and is over; `RPCClient.failure` gives the error.
    case failed
  }

  public var kind: Kind
  public var stream: RPCStreamID
  /// The caller's tag, as given when the stream was opened.
  public var tag: UInt64
  var bytes = HTTP2Range()
  /// HTTP/2 error code of a stream that ended without a word from the server.
  var code = HTTP2ErrorCode.noError
  var status: UInt16 = 0
}

/// The answer to a unary call.
public struct RPCReply: Sendable {
  /// HTTP status; 200 is success.
  public var status: Int
  public var body: [UInt8]
  /// The error that the body holds, when the status is not 200.
  public var failure: RPCFailure?

  public var isSuccess: Bool { status == 200 }
  public var text: String { String(decoding: body, as: UTF8.self) }

  /// The body of a success, or the failure thrown.
  public func get() throws(RPCFailure) -> [UInt8] {
    if let failure { throw failure }
    return body
  }
}

public enum RPCClientCodec: Sendable {
  case json, proto
}
