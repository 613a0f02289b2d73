// SPDX-License-Identifier: Apache-2.0
import CNghttp2
import Glibc

/// The owner of one nghttp2 session, server or client, without I/O: bytes in, events out, bytes out.
///
/// A pass: `receive` once or more; act on `context.events`; `endBatch`; `drain` until it gives nothing. Rules that
/// libnghttp2 has and this type keeps: one thread; nothing is sent or received from inside a callback (callbacks only
/// append events); what is submitted goes out at the next `drain`. The caller's rule: while its own output does not leave,
/// it calls neither `drain` nor `receive`, for only then do libnghttp2's limits on queued acknowledgements count.
public final class HTTP2Session {
  public let context: HTTP2Context
  private let session: OpaquePointer
  private let state: SessionPointer
  private var isEnding = false

  /// Submits SETTINGS, so that the stream limit holds from the first frame (RFC 9113 §3.4), and for a client the preface.
  public init(_ context: HTTP2Context, now: UInt64) {
    self.context = context
    let limits = context.limits
    state = .allocate(capacity: 1)
    state.initialize(
      to: SessionState(
        context: context.state, isServer: context.role == .server, headerListLimit: limits.headerListBytes,
        provokedResets: TokenBucket(limits.provokedResets), emptyFrames: TokenBucket(limits.emptyFrames),
        oversizedHeaderLists: limits.oversizedHeaderLists))
    state.pointee.now = now
    state.pointee.progressAt = now
    var made: OpaquePointer?
    let memory = context.nghttp2Memory
    let code =
      context.role == .server
      ? nghttp2_session_server_new3(&made, context.callbacks, state, context.options, memory)
      : nghttp2_session_client_new3(&made, context.callbacks, state, context.options, memory)
    guard code == 0, let made else { fatalError("nghttp2_session_new: \(HTTP2LibraryError(rawValue: code))") }
    session = made
    submitSettings(limits)
  }

  deinit {
    nghttp2_session_del(session)
    // libnghttp2 says nothing of the streams that were open; their slots and waiting output go back here.
    while let stream = state.pointee.firstStream {
      state.pointee.unlink(stream)
      context.state.pointee.putStream(stream)
    }
    state.deinitialize(count: 1)
    state.deallocate()
  }

  private func submitSettings(_ limits: HTTP2Limits) {
    var entries = [
      entry(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, limits.concurrentStreams),
      entry(NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, UInt32(limits.streamWindow)),
      entry(NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, limits.headerListBytes),
      entry(NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1),
    ]
    if context.role == .client { entries.append(entry(NGHTTP2_SETTINGS_ENABLE_PUSH, 0)) }
    let none = UInt8(NGHTTP2_FLAG_NONE.rawValue)
    var code = nghttp2_submit_settings(session, none, entries, entries.count)
    precondition(code == 0, "nghttp2_submit_settings: \(HTTP2LibraryError(rawValue: code))")
    code = nghttp2_session_set_local_window_size(session, none, 0, limits.connectionWindow)
    precondition(code == 0, "nghttp2_session_set_local_window_size: \(HTTP2LibraryError(rawValue: code))")
  }

  private func entry(_ id: nghttp2_settings_id, _ value: UInt32) -> nghttp2_settings_entry {
    nghttp2_settings_entry(settings_id: Int32(id.rawValue), value: value)
  }

  // MARK: - Receiving

  /// Feeds bytes from the peer; events appear in `context.events`.
  ///
  /// `now` is the caller's monotonic clock in nanoseconds. False means that the connection cannot go on: act on the events,
  /// `drain` once for the GOAWAY, and close it.
  public func receive(_ bytes: UnsafeRawBufferPointer, now: UInt64) -> Bool {
    guard !isEnding else { return false }
    state.pointee.now = now
    restoreHead()
    let base = bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
    let taken = nghttp2_session_mem_recv(session, base, bytes.count)
    if taken < 0 {
      isEnding = true
      return false
    }
    if let breach = state.pointee.breach {
      end(.enhanceYourCalm, breach.text)
      return false
    }
    return true
  }

  /// Ends the batch: its events, heads and bytes are gone, and the window of what was consumed goes back to the peer.
  public func endBatch() {
    dropEvents()
    context.state.pointee.storage.removeAll()
    returnWindow()
  }

  /// Forgets the events and heads, which have been acted on, but keeps the bytes for a batch that goes on.
  public func dropEvents() {
    saveHead()
    context.state.pointee.events.removeAll()
    context.state.pointee.heads.removeAll()
  }

  /// Gives the connection's window for consumed bytes back to the peer; `endBatch` does it too.
  public func returnWindow() {
    guard state.pointee.connectionUnconsumed > 0 else { return }
    nghttp2_session_consume_connection(session, state.pointee.connectionUnconsumed)
    state.pointee.connectionUnconsumed = 0
  }

  /// A header block may be cut by the end of a batch; its fields so far are kept with the session.
  private func saveHead() {
    guard state.pointee.headIsOpen else { return }
    state.pointee.headIsOpen = false
    let storage = context.storage
    var head = context.state.pointee.heads.last.pointee
    var bytes: [UInt8] = []
    head.rebase { range in
      let moved = HTTP2Range(offset: bytes.count, count: Int(range.count))
      bytes.append(contentsOf: range.of(storage))
      return moved
    }
    state.pointee.savedHead = SavedHead(head: head, bytes: bytes)
  }

  private func restoreHead() {
    guard var saved = state.pointee.savedHead else { return }
    state.pointee.savedHead = nil
    let offset = saved.bytes.withUnsafeBytes { Int(context.append($0).offset) }
    saved.head.rebase { HTTP2Range(offset: Int($0.offset) + offset, count: Int($0.count)) }
    context.state.pointee.heads.append(saved.head)
    state.pointee.headIsOpen = true
  }

  /// A header block has begun and not ended. The owner bounds the time of that state.
  public var isInsideHeaderBlock: Bool { state.pointee.savedHead != nil || state.pointee.headIsOpen }

  /// Gives the window of the body bytes received so far back to the peer; without it a stream stops at its window.
  public func consume(_ stream: HTTP2StreamHandle) {
    let count = Int(stream.pointee.unconsumed)
    guard count > 0 else { return }
    stream.pointee.unconsumed = 0
    state.pointee.connectionUnconsumed += count
    if !stream.pointee.remoteEnded, !stream.pointee.isClosed {
      nghttp2_session_consume_stream(session, stream.pointee.id, count)
    }
  }

  /// Returns a stream whose `closed` event has been acted on; the handle is dead afterwards.
  public func release(_ stream: HTTP2StreamHandle) {
    precondition(stream.pointee.isClosed, "stream \(stream.pointee.id) is released before it is closed")
    state.pointee.unlink(stream)
    context.state.pointee.putStream(stream)
  }

  // MARK: - Sending

  /// Submits the response head; `endStream` means that no body follows. Does nothing on a closed stream.
  public func respond(_ stream: HTTP2StreamHandle, _ headers: HTTP2HeaderList, endStream: Bool = false) {
    guard !stream.pointee.isClosed, !stream.pointee.hasHead else { return }
    stream.pointee.hasHead = true
    if endStream { stream.pointee.isFinished = true }
    let id = stream.pointee.id
    let code: Int32
    if endStream {
      code = nghttp2_submit_response(session, id, headers.fields, headers.count, nil)
    } else {
      var provider = HTTP2Session.provider(stream)
      code = nghttp2_submit_response(session, id, headers.fields, headers.count, &provider)
    }
    check(code, "nghttp2_submit_response")
  }

  /// A whole response, head and body, which ends the stream. False on a stream that takes none; nothing has changed then.
  @inline(__always)
  public func respond(
    _ stream: HTTP2StreamHandle, _ headers: HTTP2HeaderView, body: UnsafeRawBufferPointer, now: UInt64
  ) -> Bool {
    guard !stream.pointee.hasHead, let output = reserve(stream, body.count) else { return false }
    if let base = body.baseAddress { memcpy(output, base, body.count) }
    commit(stream, body.count, now: now)
    stream.pointee.isFinished = true
    stream.pointee.hasHead = true
    var provider = HTTP2Session.provider(stream)
    let id = stream.pointee.id
    check(
      nghttp2_submit_response(session, id, headers.fields, headers.count, &provider), "nghttp2_submit_response")
    return true
  }

  /// Opens a stream of a client and submits its head. `owner` is the caller's tag.
  ///
  /// Nil means that the connection takes no new stream (identifiers used up, or GOAWAY received).
  public func request(_ headers: HTTP2HeaderList, owner: UInt32, endStream: Bool = false) -> HTTP2StreamHandle? {
    precondition(context.role == .client, "only a client sends requests")
    let stream = context.state.pointee.takeStream(id: 0)
    stream.pointee.owner = owner
    stream.pointee.hasHead = true
    stream.pointee.isFinished = endStream
    stream.pointee.progressAt = state.pointee.now
    let id: Int32
    if endStream {
      id = nghttp2_submit_request(session, nil, headers.fields, headers.count, nil, stream)
    } else {
      var provider = HTTP2Session.provider(stream)
      id = nghttp2_submit_request(session, nil, headers.fields, headers.count, &provider, stream)
    }
    guard id > 0 else {
      context.state.pointee.putStream(stream)
      return nil
    }
    stream.pointee.id = id
    stream.pointee.headers = .passRetained(headers)
    state.pointee.link(stream)
    state.pointee.openStreams += 1
    return stream
  }

  private static func provider(_ stream: HTTP2StreamHandle) -> nghttp2_data_provider {
    nghttp2_data_provider(source: nghttp2_data_source(ptr: stream), read_callback: HTTP2Callbacks.read)
  }

  /// Room for `count` bytes of body at the end of the stream's output, or nil when the stream takes none any more.
  /// The pointer is valid until the next call; `commit` sends the bytes that were written there.
  @inline(__always)
  public func reserve(_ stream: HTTP2StreamHandle, _ count: Int) -> UnsafeMutableRawPointer? {
    guard !stream.pointee.isClosed, !stream.pointee.isFinished else { return nil }
    return stream.pointee.output.reserve(count, context.state.pointee.memory)
  }

  public func commit(_ stream: HTTP2StreamHandle, _ count: Int, now: UInt64) {
    if stream.pointee.output.count == 0 { stream.pointee.progressAt = now }
    if state.pointee.pendingOutput == 0 { state.pointee.progressAt = now }
    stream.pointee.output.commit(count)
    state.pointee.pendingOutput += count
    resume(stream)
  }

  /// The body ends after what has been committed.
  public func finish(_ stream: HTTP2StreamHandle) {
    guard !stream.pointee.isClosed, !stream.pointee.isFinished else { return }
    stream.pointee.isFinished = true
    resume(stream)
  }

  @inline(__always)
  private func resume(_ stream: HTTP2StreamHandle) {
    guard stream.pointee.isDeferred else { return }
    stream.pointee.isDeferred = false
    nghttp2_session_resume_data(session, stream.pointee.id)
  }

  /// Ends the stream at once with RST_STREAM, RFC 9113 §6.4; waiting output is dropped, but for a frame that has begun.
  public func reset(_ stream: HTTP2StreamHandle, _ code: HTTP2ErrorCode) {
    guard !stream.pointee.isClosed else { return }
    stream.pointee.isFinished = true
    // A frame that `drain` began and put off is still written whole: its header counts these bytes.
    state.pointee.pendingOutput -= stream.pointee.output.count - stream.pointee.frameBytes
    stream.pointee.output.truncate(stream.pointee.frameBytes, context.state.pointee.memory)
    if nghttp2_submit_rst_stream(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), stream.pointee.id, code.rawValue) == 0 {
      state.pointee.ownResets += 1
    }
  }

  /// Serialises what may be sent now, at least one frame and at most about `limit` bytes, into `context.output`.
  ///
  /// Empty means that nothing may be sent. False in `alive` means that libnghttp2 failed and the connection must be closed.
  public func drain(limit: Int, now: UInt64) -> (bytes: UnsafeRawBufferPointer, alive: Bool) {
    state.pointee.now = now
    state.pointee.drainLimit = max(limit, 1)
    let shared = context.state
    shared.pointee.output.removeAll()
    var alive = true
    repeat {
      var piece: UnsafePointer<UInt8>?
      let before = shared.pointee.output.count
      let count = nghttp2_session_mem_send(session, &piece)
      if count < 0 {
        alive = false
        break
      }
      if count > 0, let piece { shared.pointee.output.append(piece, count) }
      if shared.pointee.output.count == before { break }
    } while shared.pointee.output.count < limit
    if let breach = state.pointee.breach, !isEnding { end(.enhanceYourCalm, breach.text) }
    if shared.pointee.output.count > 0 { state.pointee.progressAt = now }
    return (shared.pointee.output.bytes, alive)
  }

  /// There may be something to drain.
  public var wantsWrite: Bool { nghttp2_session_want_write(session) != 0 }

  // MARK: - Ending

  /// First step of a graceful end: GOAWAY with the highest identifier (RFC 9113 §6.8), and a PING whose answer shows that
  /// the peer has seen it.
  public func announceShutdown() {
    check(nghttp2_submit_shutdown_notice(session), "nghttp2_submit_shutdown_notice")
    check(nghttp2_submit_ping(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil), "nghttp2_submit_ping")
  }

  /// Second step: GOAWAY with the last stream that will be served. Open streams go on.
  public func goaway() {
    let last = nghttp2_session_get_last_proc_stream_id(session)
    check(
      nghttp2_submit_goaway(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), last, HTTP2ErrorCode.noError.rawValue, nil, 0),
      "nghttp2_submit_goaway")
  }

  /// Ends the session: GOAWAY with `code` and `text` as debug data goes out with the next `drain`, then close.
  public func end(_ code: HTTP2ErrorCode, _ text: String) {
    guard !isEnding else { return }
    isEnding = true
    let last = nghttp2_session_get_last_proc_stream_id(session)
    var text = text
    text.withUTF8 { bytes in
      _ = nghttp2_submit_goaway(
        session, UInt8(NGHTTP2_FLAG_NONE.rawValue), last, code.rawValue, bytes.baseAddress, bytes.count)
    }
  }

  /// The connection has nothing more to do: `end` was called or libnghttp2 wants neither to read nor to write.
  public var isDone: Bool {
    isEnding || (nghttp2_session_want_read(session) == 0 && nghttp2_session_want_write(session) == 0)
  }

  /// The limit that ended the session, if one did.
  public var breach: HTTP2Breach? { state.pointee.breach }

  /// Body bytes that wait in all streams.
  public var pendingOutput: Int { state.pointee.pendingOutput }

  /// Time of the last byte that left, or of the first that waits.
  public var progressAt: UInt64 { state.pointee.progressAt }

  public var openStreams: Int { state.pointee.openStreams }

  private func check(_ code: Int32, _ call: StaticString) {
    guard code != 0 else { return }
    // A dead stream or a session that is ending refuses submissions; the closed event tells the owner.
    precondition(code != NGHTTP2_ERR_NOMEM.rawValue, "\(call): out of memory")
  }
}

/// A libnghttp2 error code.
public struct HTTP2LibraryError: RawRepresentable, Error, CustomStringConvertible {
  public let rawValue: Int32
  public init(rawValue: Int32) { self.rawValue = rawValue }
  public var description: String { "\(String(cString: nghttp2_strerror(rawValue))) (\(rawValue))" }
}

extension HTTP2Breach {
  /// The debug data of the GOAWAY.
  public var text: String {
    switch self {
    case .provokedResets: "too many streams of this connection had to be reset"
    case .emptyFrames: "too many frames without content"
    case .headerLists: "too many oversized header lists"
    }
  }
}

extension HTTP2Head {
  fileprivate mutating func rebase(_ move: (HTTP2Range) -> HTTP2Range) {
    path = move(path)
    contentType = move(contentType)
    accept = move(accept)
    contentEncoding = move(contentEncoding)
    connectContentEncoding = move(connectContentEncoding)
    connectTimeout = move(connectTimeout)
  }
}
