// SPDX-License-Identifier: Apache-2.0
import HTTP2Session

/// Every limit of the RPC layer, stated once, as data. Times are in nanoseconds.
public struct RPCLimits: Sendable {
  public var http2 = HTTP2Limits()

  /// Largest request message, in bytes; a larger one is `resource_exhausted`.
  public var messageBytes = 1 << 20

  /// Body bytes that are read and dropped after a call was answered early. Above it the stream is reset (RFC 9113 §8.1);
  /// not at once, because curl reports a reset instead of the answer while it is still sending.
  public var discardedBytes = 4 << 20

  /// Incomplete request bytes that one connection may keep the server holding.
  public var connectionInputBytes = 16 << 20

  /// Output that may wait for one stream; above it the call is cut.
  public var streamOutputBytes = 8 << 20

  /// Output that may wait for one connection; above it the connection is cut.
  public var connectionOutputBytes = 16 << 20

  /// Time that output may wait without a byte leaving.
  public var writeStall: UInt64 = 60_000_000_000

  /// Time from accept to a whole connection preface.
  public var preface: UInt64 = 10_000_000_000

  /// Time from the begin of a header block to its end.
  public var headerBlock: UInt64 = 10_000_000_000

  /// Time between two pieces of a request body whose answer waits for its end, or of a message that is incomplete.
  public var body: UInt64 = 30_000_000_000

  /// Time after which passes of the timer let the sockets in between.
  public var busyTime: UInt64 = 1_000_000

  /// Connections per event loop; further ones are closed at once.
  public var connectionsPerLoop = 20_000

  public init() {}
}
