// SPDX-License-Identifier: Apache-2.0
import CNghttp2
import Glibc

/// The state of one session behind one pointer; it is libnghttp2's user data.
struct SessionState {
  var context: UnsafeMutablePointer<ContextState>
  let isServer: Bool
  let headerListLimit: UInt32

  /// The time of the current call, in nanoseconds of the owner's clock.
  var now: UInt64 = 0

  /// The stream of the last frame: frames of one stream come in runs, so this saves libnghttp2's lookup.
  var lastStream: HTTP2StreamHandle?
  var lastStreamID: Int32 = 0

  /// Streams that have not been released, for the end of the session.
  var firstStream: HTTP2StreamHandle?

  mutating func link(_ stream: HTTP2StreamHandle) {
    stream.pointee.next = firstStream
    firstStream?.pointee.previous = stream
    firstStream = stream
  }

  mutating func unlink(_ stream: HTTP2StreamHandle) {
    let (previous, next) = (stream.pointee.previous, stream.pointee.next)
    if let previous { previous.pointee.next = next } else { firstStream = next }
    next?.pointee.previous = previous
    stream.pointee.previous = nil
  }

  /// A header block is being decoded into the last element of `heads`.
  var headIsOpen = false
  /// The stream of that block. Not `lastStream`: between two batches, sending may close other streams.
  var headStream: HTTP2StreamHandle?
  /// Head and bytes of a block that was cut by the end of a batch.
  var savedHead: SavedHead?

  var pendingOutput = 0
  /// Bytes after which the current `drain` stops.
  var drainLimit = 0
  var progressAt: UInt64 = 0
  var openStreams = 0

  var connectionUnconsumed = 0
  var provokedResets: TokenBucket
  var emptyFrames: TokenBucket
  var oversizedHeaderLists: UInt32
  /// RST_STREAM frames that we submitted ourselves and that are not yet sent; they cost the peer nothing.
  var ownResets = 0
  /// A limit was passed; the session ends with ENHANCE_YOUR_CALM as soon as no callback is running.
  var breach: HTTP2Breach?
}

/// The limit that ended a session.
public enum HTTP2Breach: UInt8, Sendable {
  case provokedResets, emptyFrames, headerLists
}

struct SavedHead {
  var head: HTTP2Head
  var bytes: [UInt8]
}

/// The functions that libnghttp2 calls. They append trivial structs to the batch and submit frames; they never send or
/// receive (forbidden by libnghttp2), and they capture nothing.
enum HTTP2Callbacks {
  static func make() -> OpaquePointer {
    var made: OpaquePointer?
    guard nghttp2_session_callbacks_new(&made) == 0, let callbacks = made else {
      fatalError("out of memory: nghttp2 callbacks")
    }
    setReceiving(callbacks)
    setSending(callbacks)
    return callbacks
  }

  // libnghttp2 never passes null here; `unsafelyUnwrapped` checks that in debug builds alone.
  private static func setReceiving(_ callbacks: OpaquePointer) {
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks) { _, header, user in
      SessionState.of(user).frameBegins(header.unsafelyUnwrapped)
    }
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { session, frame, user in
      SessionState.of(user).headersBegin(session.unsafelyUnwrapped, frame.unsafelyUnwrapped)
    }
    nghttp2_session_callbacks_set_on_header_callback(callbacks) { _, _, name, nameCount, value, valueCount, _, user in
      SessionState.of(user).header(name.unsafelyUnwrapped, nameCount, value.unsafelyUnwrapped, valueCount)
    }
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) { session, _, streamID, bytes, count, user in
      SessionState.of(user).data(session.unsafelyUnwrapped, streamID, bytes.unsafelyUnwrapped, count)
    }
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { session, frame, user in
      SessionState.of(user).frameReceived(session.unsafelyUnwrapped, frame.unsafelyUnwrapped)
    }
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) { session, streamID, code, user in
      SessionState.of(user).streamClosed(session.unsafelyUnwrapped, streamID, code)
    }
  }

  private static func setSending(_ callbacks: OpaquePointer) {
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks) { _, frame, user in
      SessionState.of(user).frameSent(frame.unsafelyUnwrapped)
    }
    nghttp2_session_callbacks_set_send_data_callback(callbacks) { _, _, header, count, source, user in
      let stream = source.unsafelyUnwrapped.pointee.ptr.assumingMemoryBound(to: HTTP2Stream.self)
      return SessionState.of(user).sendData(stream, header.unsafelyUnwrapped, count)
    }
  }

  /// Body bytes for a DATA frame: they are not copied here but in `sendData`, straight into the output.
  static let read: nghttp2_data_source_read_callback = { _, _, _, limit, flags, source, _ in
    let stream = source.unsafelyUnwrapped.pointee.ptr.assumingMemoryBound(to: HTTP2Stream.self)
    let waiting = stream.pointee.output.count
    if waiting == 0, !stream.pointee.isFinished {
      stream.pointee.isDeferred = true
      return Int(NGHTTP2_ERR_DEFERRED.rawValue)
    }
    let count = min(waiting, limit)
    var bits = NGHTTP2_DATA_FLAG_NO_COPY.rawValue
    if count == waiting, stream.pointee.isFinished { bits |= NGHTTP2_DATA_FLAG_EOF.rawValue }
    flags.unsafelyUnwrapped.pointee = bits
    stream.pointee.frameBytes = count
    return count
  }
}

typealias SessionPointer = UnsafeMutablePointer<SessionState>

extension SessionState {
  @inline(__always)
  static func of(_ user: UnsafeMutableRawPointer?) -> SessionPointer {
    user.unsafelyUnwrapped.assumingMemoryBound(to: SessionState.self)
  }
}

private let streamEnds = UInt8(NGHTTP2_FLAG_END_STREAM.rawValue)
private let typeData = UInt8(NGHTTP2_DATA.rawValue)
private let typeHeaders = UInt8(NGHTTP2_HEADERS.rawValue)
private let typePriority = UInt8(NGHTTP2_PRIORITY.rawValue)
private let typeResetStream = UInt8(NGHTTP2_RST_STREAM.rawValue)
private let typeSettings = UInt8(NGHTTP2_SETTINGS.rawValue)
private let typePing = UInt8(NGHTTP2_PING.rawValue)
private let typeGoaway = UInt8(NGHTTP2_GOAWAY.rawValue)
private let acknowledges = UInt8(NGHTTP2_FLAG_ACK.rawValue)

// MARK: - Receiving

extension UnsafeMutablePointer where Pointee == SessionState {
  @inline(__always)
  fileprivate func stream(_ session: OpaquePointer, _ id: Int32) -> HTTP2StreamHandle? {
    if id == pointee.lastStreamID { return pointee.lastStream }
    guard let found = nghttp2_session_get_stream_user_data(session, id) else { return nil }
    let stream = found.assumingMemoryBound(to: HTTP2Stream.self)
    pointee.lastStreamID = id
    pointee.lastStream = stream
    return stream
  }

  /// Counts frames that carry nothing: they cost the peer nine bytes and us a pass.
  fileprivate func frameBegins(_ header: UnsafePointer<nghttp2_frame_hd>) -> Int32 {
    let empty: Bool
    switch header.pointee.type {
    case typeHeaders: return 0
    case typeData: empty = header.pointee.length == 0 && header.pointee.flags & streamEnds == 0
    case typeSettings: empty = header.pointee.flags & acknowledges == 0
    case typePriority: empty = true
    default: return 0
    }
    if empty, !pointee.emptyFrames.take(now: pointee.now) { pointee.breach = .emptyFrames }
    return 0
  }

  fileprivate func headersBegin(_ session: OpaquePointer, _ frame: UnsafePointer<nghttp2_frame>) -> Int32 {
    let id = frame.pointee.hd.stream_id
    if pointee.isServer {
      guard frame.pointee.headers.cat == NGHTTP2_HCAT_REQUEST else { return 0 }
      let stream = pointee.context.pointee.takeStream(id: id)
      stream.pointee.progressAt = pointee.now
      pointee.link(stream)
      pointee.openStreams += 1
      nghttp2_session_set_stream_user_data(session, id, stream)
      pointee.lastStreamID = id
      pointee.lastStream = stream
      pointee.context.pointee.heads.append(HTTP2Head())
      pointee.headIsOpen = true
      pointee.headStream = stream
      return 0
    }
    guard let stream = stream(session, id), !stream.pointee.isAnnounced else { return 0 }
    stream.pointee.headerListBytes = 0
    pointee.context.pointee.heads.append(HTTP2Head())
    pointee.headIsOpen = true
    pointee.headStream = stream
    return 0
  }

  /// Counts a field of a header list; only those whose name has a length of interest are looked at.
  @inline(__always)
  fileprivate func header(
    _ name: UnsafePointer<UInt8>, _ nameCount: Int, _ value: UnsafePointer<UInt8>, _ valueCount: Int
  ) -> Int32 {
    guard let stream = pointee.headStream else { return 0 }
    let size = UInt32(truncatingIfNeeded: nameCount &+ valueCount &+ 32)
    stream.pointee.headerListBytes &+= size
    if stream.pointee.headerListBytes > pointee.headerListLimit { return headerListIsTooLong() }
    let lengths: UInt64 = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 12 | 1 << 16 | 1 << 18 | 1 << 24
    if pointee.headIsOpen, nameCount < 64, lengths >> UInt64(truncatingIfNeeded: nameCount) & 1 != 0 {
      keepField(name, nameCount, value, valueCount)
    }
    return 0
  }

  @inline(never)
  private func keepField(
    _ name: UnsafePointer<UInt8>, _ nameCount: Int, _ value: UnsafePointer<UInt8>, _ valueCount: Int
  ) {
    let head = pointee.context.pointee.heads.last
    switch nameCount {
    case 5 where memcmp(name, ":path", 5) == 0: head.pointee.path = keep(value, valueCount)
    case 6 where memcmp(name, "accept", 6) == 0: head.pointee.accept = keep(value, valueCount)
    case 7 where memcmp(name, ":method", 7) == 0: head.pointee.method = HTTP2Method(value, valueCount)
    case 7 where memcmp(name, ":status", 7) == 0: head.pointee.status = decimal(value, valueCount)
    case 12 where memcmp(name, "content-type", 12) == 0: head.pointee.contentType = keep(value, valueCount)
    case 16 where memcmp(name, "content-encoding", 16) == 0: head.pointee.contentEncoding = keep(value, valueCount)
    case 18 where memcmp(name, "connect-timeout-ms", 18) == 0: head.pointee.connectTimeout = keep(value, valueCount)
    case 24 where memcmp(name, "connect-content-encoding", 24) == 0:
      head.pointee.connectContentEncoding = keep(value, valueCount)
    default: break
    }
  }

  @inline(never)
  private func headerListIsTooLong() -> Int32 {
    dropOpenHead()
    if pointee.oversizedHeaderLists == 0 {
      pointee.breach = .headerLists
    } else {
      pointee.oversizedHeaderLists -= 1
    }
    // Ends the stream with INTERNAL_ERROR; the block is decoded on, without calls, to keep HPACK in step.
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue
  }

  private func dropOpenHead() {
    guard pointee.headIsOpen else { return }
    pointee.headIsOpen = false
    pointee.context.pointee.heads.removeLast()
  }

  @inline(__always)
  private func keep(_ value: UnsafePointer<UInt8>, _ count: Int) -> HTTP2Range {
    let range = HTTP2Range(offset: pointee.context.pointee.storage.count, count: count)
    pointee.context.pointee.storage.append(value, count)
    return range
  }

  private func decimal(_ value: UnsafePointer<UInt8>, _ count: Int) -> UInt16 {
    var number: UInt16 = 0
    for index in 0..<min(count, 4) { number = number &* 10 &+ UInt16(value[index] &- 48) }
    return number
  }

  fileprivate func data(
    _ session: OpaquePointer, _ id: Int32, _ bytes: UnsafePointer<UInt8>, _ count: Int
  ) -> Int32 {
    guard let stream = stream(session, id) else {
      pointee.connectionUnconsumed += count
      return 0
    }
    stream.pointee.unconsumed += Int32(truncatingIfNeeded: count)
    let range = keep(bytes, count)
    pointee.context.pointee.events.append(HTTP2Event(kind: .data, range: range, stream: stream))
    return 0
  }

  fileprivate func frameReceived(_ session: OpaquePointer, _ frame: UnsafePointer<nghttp2_frame>) -> Int32 {
    let header = frame.pointee.hd
    switch header.type {
    case typeHeaders:
      headReceived(session, header)
    case typeData:
      if header.flags & streamEnds != 0 { streamEnded(stream(session, header.stream_id)) }
    case typePing where header.flags & acknowledges != 0:
      pointee.context.pointee.events.append(HTTP2Event(kind: .pingAcknowledged))
    case typeGoaway:
      let goaway = frame.pointee.goaway
      var event = HTTP2Event(kind: .goaway, code: HTTP2ErrorCode(rawValue: goaway.error_code))
      event.lastStreamID = goaway.last_stream_id
      if let text = goaway.opaque_data { event.range = keep(text, min(goaway.opaque_data_len, 1024)) }
      pointee.context.pointee.events.append(event)
    default: break
    }
    return 0
  }

  private func headReceived(_ session: OpaquePointer, _ header: nghttp2_frame_hd) {
    let found = stream(session, header.stream_id)
    let ends = header.flags & streamEnds != 0
    pointee.headStream = nil
    guard pointee.headIsOpen, let stream = found else {
      if ends { streamEnded(found) }
      return
    }
    pointee.headIsOpen = false
    let index = pointee.context.pointee.heads.count - 1
    let status = pointee.context.pointee.heads[index].status
    if !pointee.isServer, status >= 100, status < 200 {  // interim response, RFC 9110 §15.2
      pointee.context.pointee.heads.removeLast()
      return
    }
    stream.pointee.isAnnounced = true
    if ends { stream.pointee.remoteEnded = true }
    pointee.context.pointee.events.append(
      HTTP2Event(kind: .head, endStream: ends, head: UInt32(truncatingIfNeeded: index), stream: stream))
  }

  private func streamEnded(_ stream: HTTP2StreamHandle?) {
    guard let stream else { return }
    stream.pointee.remoteEnded = true
    let events = pointee.context.pointee.events
    if events.count > 0, events[events.count - 1].stream == stream, events[events.count - 1].kind != .closed {
      pointee.context.pointee.events.last.pointee.endStream = true
    } else {
      pointee.context.pointee.events.append(HTTP2Event(kind: .end, endStream: true, stream: stream))
    }
  }

  fileprivate func streamClosed(_ session: OpaquePointer, _ id: Int32, _ code: UInt32) -> Int32 {
    guard let stream = stream(session, id) else { return 0 }
    pointee.lastStream = nil
    pointee.lastStreamID = 0
    if pointee.headStream == stream {
      pointee.headStream = nil
      pointee.savedHead = nil
      dropOpenHead()
    }
    // libnghttp2 destroys the stream when this returns (`no_closed_streams`), so it forgets the handle by itself.
    pointee.openStreams -= 1
    pointee.pendingOutput -= stream.pointee.output.count
    stream.pointee.output.removeAll(pointee.context.pointee.memory)
    stream.pointee.isClosed = true
    // libnghttp2 gives the connection window of a closed stream's bytes back only for what it has not told us about.
    pointee.connectionUnconsumed += Int(stream.pointee.unconsumed)
    stream.pointee.unconsumed = 0
    if pointee.isServer, !stream.pointee.isAnnounced {
      pointee.unlink(stream)
      pointee.context.pointee.putStream(stream)
    } else {
      pointee.context.pointee.events.append(
        HTTP2Event(kind: .closed, code: HTTP2ErrorCode(rawValue: code), stream: stream))
    }
    return 0
  }
}

// MARK: - Sending

extension UnsafeMutablePointer where Pointee == SessionState {
  fileprivate func frameSent(_ frame: UnsafePointer<nghttp2_frame>) -> Int32 {
    guard frame.pointee.hd.type == typeResetStream else { return 0 }
    if pointee.ownResets > 0 {
      pointee.ownResets -= 1
    } else if !pointee.provokedResets.take(now: pointee.now) {
      pointee.breach = .provokedResets
    }
    return 0
  }

  /// Writes a whole DATA frame, RFC 9113 §6.1: 9 bytes of header, then the payload. We never pad.
  fileprivate func sendData(
    _ stream: HTTP2StreamHandle, _ header: UnsafePointer<UInt8>, _ count: Int
  ) -> Int32 {
    // libnghttp2 goes from one DATA frame to the next by itself, so the limit must be kept here.
    if pointee.context.pointee.output.count >= pointee.drainLimit { return NGHTTP2_ERR_WOULDBLOCK.rawValue }
    // With its last frame the stream closes.
    pointee.lastStream = stream
    pointee.lastStreamID = stream.pointee.id
    pointee.context.pointee.output.append(header, 9)
    if count > 0 {
      pointee.context.pointee.output.append(stream.pointee.output.first, count)
      stream.pointee.output.removeFirst(count, pointee.context.pointee.memory)
      stream.pointee.progressAt = pointee.now
      pointee.pendingOutput -= count
      stream.pointee.frameBytes = 0
    }
    return 0
  }
}

extension HTTP2Method {
  init(_ value: UnsafePointer<UInt8>, _ count: Int) {
    switch count {
    case 4 where memcmp(value, "POST", 4) == 0: self = .post
    case 3 where memcmp(value, "GET", 3) == 0: self = .get
    case 4 where memcmp(value, "HEAD", 4) == 0: self = .head
    case 7 where memcmp(value, "OPTIONS", 7) == 0: self = .options
    default: self = .other
    }
  }
}
