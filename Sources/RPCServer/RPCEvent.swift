// SPDX-License-Identifier: Apache-2.0
import HTTP2Session

/// A call: 8 bits of event loop, 24 bits of slot, 32 bits of generation. An id of a call that is over never names another;
/// replies to it are refused and change nothing.
public struct CallID: Hashable, Sendable {
  public let rawValue: UInt64

  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }

  @inline(__always)
  init(loop: UInt8, slot: UInt32, generation: UInt32) {
    rawValue = UInt64(loop) << 56 | UInt64(slot) << 32 | UInt64(generation)
  }

  /// Index of the event loop that owns the call, as in `RPCServer.loops`.
  @inlinable public var loopIndex: Int { Int(rawValue >> 56) }
  var slot: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) & 0xFF_FFFF }
  var generation: UInt32 { UInt32(truncatingIfNeeded: rawValue) }
}

/// Why a call ended without the handler having ended it.
public enum RPCEnd: UInt8, Sendable {
  /// It did not.
  case none
  /// The client reset the stream.
  case reset
  /// The connection is gone.
  case connectionLost
  /// The client's request broke the framing or a limit; it has its error already.
  case badRequest
  /// The client's deadline passed; it was answered `deadline_exceeded`.
  case deadline
  /// More output waited than the stream or the connection may hold.
  case outputLimit
  /// Output waited longer than `RPCLimits.writeStall`.
  case writeStall
}

/// One thing that happened to a call.
public struct RPCEvent {
  public enum Kind: UInt8, Sendable {
    /// A whole request of a unary or server-streaming method, `message`. Answer with `reply`, or with `send` and `finish`.
    case request
    /// A client-streaming or bidirectional call began.
    case begun
    /// One message of such a call.
    case message
    /// The client will send no more messages.
    case halfClosed
    /// The call is over, `end` says why: replies are refused from now on. Work that has started goes on.
    case ended
  }

  public var kind: Kind
  public var codec: RPCCodec
  public var framing: RPCFraming
  public var end = RPCEnd.none
  /// Index in the method table.
  public var method: UInt16
  public var call: CallID
  /// The message's bytes, within the batch.
  public var message = HTTP2Range()
}

/// What one pass of a loop hands to the handler. It and its bytes are valid until `handle` returns.
public struct RPCBatch {
  /// The loop's monotonic clock, sampled once for the batch, in nanoseconds.
  public let now: UInt64
  public let events: UnsafeBufferPointer<RPCEvent>
  @usableFromInline let storage: UnsafeRawBufferPointer

  init(now: UInt64, events: UnsafeBufferPointer<RPCEvent>, storage: UnsafeRawBufferPointer) {
    self.now = now
    self.events = events
    self.storage = storage
  }

  /// The message of `event`: JSON text or protobuf, by `event.codec`.
  @inlinable public func message(_ event: RPCEvent) -> UnsafeRawBufferPointer { event.message.of(storage) }
}

/// The service, as one event loop sees it: one object per loop, called only on that loop, once per batch.
public protocol RPCHandler: AnyObject {
  /// Acts on the events, in order. Replies made here leave together when the pass ends.
  func handle(_ batch: RPCBatch, on loop: RPCLoop)

  /// The time given to `RPCLoop.arm` has come. `now` is the loop's clock, in nanoseconds.
  func timer(now: UInt64, on loop: RPCLoop)
}

/// Work for a loop, made on any thread; see `RPCLoop.post`.
public protocol RPCWork: AnyObject, Sendable {
  func run(on loop: RPCLoop, now: UInt64)
}
