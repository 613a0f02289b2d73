// SPDX-License-Identifier: Apache-2.0

public typealias HTTP2StreamHandle = UnsafeMutablePointer<HTTP2Stream>

/// One stream: a plain struct in a free-listed slot, known to libnghttp2 as stream user data, so that no callback looks
/// anything up and nothing is reference counted. A handle is valid until the owner calls `HTTP2Session.release`.
public struct HTTP2Stream {
  /// Stream identifier, RFC 9113 §5.1.1.
  public internal(set) var id: Int32 = 0

  /// A tag that belongs to the owner of the session.
  public var owner: UInt32 = HTTP2Stream.unowned
  public static let unowned = UInt32.max

  /// The stream is closed in both directions; calls that would write to it do nothing.
  public internal(set) var isClosed = false
  /// The peer has ended its side.
  public internal(set) var remoteEnded = false
  /// Our header list is submitted.
  public internal(set) var hasHead = false
  /// Nothing more will be written.
  public internal(set) var isFinished = false

  /// Body bytes that the owner has dropped, for its own count.
  public var discardedBytes = 0

  /// Time of the last byte that left, or of the first that waits, in nanoseconds of the owner's clock.
  public internal(set) var progressAt: UInt64 = 0

  /// Bytes that wait to be sent.
  public var pendingOutput: Int { output.count }

  var output = ByteQueue()
  /// Bytes at the head of `output` that belong to a DATA frame whose header libnghttp2 has made already.
  var frameBytes = 0
  var headerListBytes: UInt32 = 0
  /// Body bytes received and not yet given back to the peer's window.
  var unconsumed: Int32 = 0
  /// A request's header list, kept until the stream is released: its HEADERS may wait for a free stream.
  var headers: Unmanaged<HTTP2HeaderList>?
  var isDeferred = false
  var isAnnounced = false
  /// Neighbours in the list of the session's streams that have not been released; `next` also links free slots.
  var next: HTTP2StreamHandle?
  var previous: HTTP2StreamHandle?
}
