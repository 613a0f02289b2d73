// SPDX-License-Identifier: Apache-2.0

/// A run of bytes in `HTTP2Context.storage`, valid for one batch.
public struct HTTP2Range: Sendable {
  public var offset: UInt32 = 0
  public var count: UInt32 = 0

  @inlinable public init() {}
  @inlinable public init(offset: Int, count: Int) {
    self.offset = UInt32(truncatingIfNeeded: offset)
    self.count = UInt32(truncatingIfNeeded: count)
  }

  @inlinable public var isEmpty: Bool { count == 0 }

  /// The bytes within `storage`.
  @inlinable public func of(_ storage: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: storage[Int(offset)..<Int(offset) + Int(count)])
  }
}

/// HTTP error codes, RFC 9113 §7.
public struct HTTP2ErrorCode: RawRepresentable, Equatable, Sendable {
  public var rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let noError = HTTP2ErrorCode(rawValue: 0)
  public static let protocolError = HTTP2ErrorCode(rawValue: 1)
  public static let internalError = HTTP2ErrorCode(rawValue: 2)
  public static let flowControlError = HTTP2ErrorCode(rawValue: 3)
  public static let streamClosed = HTTP2ErrorCode(rawValue: 5)
  public static let refusedStream = HTTP2ErrorCode(rawValue: 7)
  public static let cancel = HTTP2ErrorCode(rawValue: 8)
  public static let enhanceYourCalm = HTTP2ErrorCode(rawValue: 11)
}

public enum HTTP2Method: UInt8, Sendable {
  case get, head, post, options, other
}

/// The header fields that the project reads; all others are checked by libnghttp2 and dropped.
public struct HTTP2Head: Sendable {
  public var method = HTTP2Method.other
  /// Response status; 0 in a request.
  public var status: UInt16 = 0
  public var path = HTTP2Range()
  public var contentType = HTTP2Range()
  public var accept = HTTP2Range()
  public var contentEncoding = HTTP2Range()
  public var connectContentEncoding = HTTP2Range()
  public var connectTimeout = HTTP2Range()
}

/// What happened on a connection; events lie in one reused array, in the order of the frames.
public struct HTTP2Event {
  public enum Kind: UInt8 {
    /// A whole header list arrived; `head` is its index in `HTTP2Context.heads`.
    case head
    /// Body bytes arrived, `range`.
    case data
    /// The peer ended its side of the stream and no head or data event could carry `endStream`.
    case end
    /// The stream is gone, `code`; the owner must call `HTTP2Session.release`.
    case closed
    /// The peer sent GOAWAY with `code`; `range` is its debug data and `lastStreamID` the last stream that it will serve.
    case goaway
    /// The peer answered a PING.
    case pingAcknowledged
  }

  public var kind: Kind
  /// The peer's side of the stream ended with this event.
  public var endStream = false
  public var code = HTTP2ErrorCode.noError
  public var head: UInt32 = 0
  public var lastStreamID: Int32 = 0
  public var range = HTTP2Range()
  /// Nil for events of the whole connection.
  public var stream: HTTP2StreamHandle?
}

/// A trivial array that keeps its block between batches.
public struct EventList<Element> {
  @usableFromInline var base: UnsafeMutablePointer<Element>
  @usableFromInline var capacity: Int
  @usableFromInline var used = 0

  @inlinable public var count: Int { used }

  public init(capacity: Int) {
    precondition(_isPOD(Element.self), "only trivial elements")
    base = .allocate(capacity: capacity)
    self.capacity = capacity
  }

  public func destroy() { base.deallocate() }

  @inlinable @inline(__always)
  public mutating func append(_ element: Element) {
    if used == capacity { grow() }
    (base + used).initialize(to: element)
    used &+= 1
  }

  @inlinable public subscript(index: Int) -> Element {
    @inline(__always) get {
      precondition(index >= 0 && index < count, "event index out of range")
      return base[index]
    }
    @inline(__always) nonmutating set { base[index] = newValue }
  }

  @inlinable public var elements: UnsafeBufferPointer<Element> { UnsafeBufferPointer(start: base, count: count) }

  /// Pointer to the last element; the list must not be empty.
  var last: UnsafeMutablePointer<Element> { base + (used &- 1) }

  @inlinable public mutating func removeAll() { used = 0 }
  public mutating func removeLast() { used -= 1 }

  @usableFromInline
  mutating func grow() {
    let grown = UnsafeMutablePointer<Element>.allocate(capacity: capacity * 2)
    grown.moveInitialize(from: base, count: count)
    base.deallocate()
    base = grown
    capacity *= 2
  }
}
