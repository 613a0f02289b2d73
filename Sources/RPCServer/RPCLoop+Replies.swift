// SPDX-License-Identifier: Apache-2.0
import Glibc
import HTTP2Session

// Replies. Each is refused, with false or nil, when the call is over; nothing has changed then.
extension RPCLoop {
  /// Whether the call still takes replies.
  public func isLive(_ id: CallID) -> Bool { calls.find(id) != nil }

  /// Answers a unary call with a whole message and ends it.
  @discardableResult
  public func reply(_ id: CallID, _ message: UnsafeRawBufferPointer) -> Bool { send(id, message) }

  /// Sends one message of a stream (of a unary call: its answer). An NDJSON message must not contain a newline.
  @discardableResult
  public func send(_ id: CallID, _ message: UnsafeRawBufferPointer) -> Bool {
    if let call = calls.find(id), call.pointee.framing == .unary {
      return call.pointee.connection._withUnsafeGuaranteedRef { answer($0, call, message) }
    }
    guard let output = beginOutput(id, reserving: message.count) else { return false }
    if let base = message.baseAddress { memcpy(output, base, message.count) }
    commitOutput(id, message.count)
    return true
  }

  /// Room for a message of at most `count` bytes, in place in the outgoing stream. Write there, then `commitOutput` at once:
  /// no other call on this loop may come between. Nil when the call is over.
  public func beginOutput(_ id: CallID, reserving count: Int) -> UnsafeMutableRawPointer? {
    guard let call = calls.find(id) else { return nil }
    let stream = call.pointee.stream!
    return call.pointee.connection._withUnsafeGuaranteedRef { connection in
      switch call.pointee.framing {
      case .unary: connection.session.reserve(stream, count)
      case .connect: connection.session.reserve(stream, count + 5).map { $0 + 5 }
      case .ndjson: connection.session.reserve(stream, count + 1)
      }
    }
  }

  /// Sends the `count` bytes written at the pointer of `beginOutput` as one message; it ends a unary call.
  public func commitOutput(_ id: CallID, _ count: Int) {
    guard let call = calls.find(id) else { return }
    let stream = call.pointee.stream!
    call.pointee.connection._withUnsafeGuaranteedRef { connection in
      touch(connection)
      switch call.pointee.framing {
      case .unary:
        connection.session.commit(stream, count, now: now)
        connection.session.finish(stream)
        open(call)
        forget(connection, call)
      case .connect:
        let header = connection.session.reserve(stream, count + 5)!
        envelope(header, flags: 0, count)
        connection.session.commit(stream, count + 5, now: now)
        open(call)
      case .ndjson:
        connection.session.reserve(stream, count + 1)!.storeBytes(of: 0x0A, toByteOffset: count, as: UInt8.self)
        connection.session.commit(stream, count + 1, now: now)
        open(call)
      }
      checkOutput(connection, stream)
    }
  }

  /// Sends the response head of a stream now, so that the client sees the call accepted before the first message.
  @discardableResult
  public func open(_ id: CallID) -> Bool {
    guard let call = calls.find(id), call.pointee.framing != .unary else { return false }
    call.pointee.connection._withUnsafeGuaranteedRef { touch($0) }
    open(call)
    return true
  }

  /// Ends a stream well.
  @discardableResult
  public func finish(_ id: CallID) -> Bool {
    guard let call = calls.find(id) else { return false }
    let stream = call.pointee.stream!
    if call.pointee.framing == .unary {
      failCall(call, RPCError(.internal, "NO_ANSWER", "the method ended without an answer"))
      return true
    }
    call.pointee.connection._withUnsafeGuaranteedRef { connection in
      touch(connection)
      if call.pointee.framing == .connect { endOfStream(connection, stream, Array("{}".utf8)) }
      connection.session.finish(stream)
      open(call)
      forget(connection, call)
    }
    return true
  }

  /// Ends a call with an error.
  @discardableResult
  public func fail(_ id: CallID, _ error: RPCError) -> Bool {
    guard let call = calls.find(id) else { return false }
    answer(call, error)
    return true
  }

  /// Stops giving the client's window back: at most a stream window (`HTTP2Limits.streamWindow`) of further messages
  /// arrives until `resume`.
  public func pause(_ id: CallID) { calls.find(id)?.pointee.isPaused = true }

  public func resume(_ id: CallID) {
    guard let call = calls.find(id), call.pointee.isPaused else { return }
    call.pointee.isPaused = false
    call.pointee.connection._withUnsafeGuaranteedRef { connection in
      connection.session.consume(call.pointee.stream)
      touch(connection)
    }
  }

  /// Body bytes that wait to leave for this call; 0 when it is over. For senders that can wait or merge.
  public func pendingOutput(_ id: CallID) -> Int { calls.find(id)?.pointee.stream.pointee.pendingOutput ?? 0 }

  // MARK: - Inside

  /// The whole answer of a unary call.
  @inline(__always)
  private func answer(
    _ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>, _ message: UnsafeRawBufferPointer
  ) -> Bool {
    let stream = call.pointee.stream!
    let headers = responses.answer(call.pointee.codec)
    guard connection.session.respond(stream, headers, body: message, now: now) else { return false }
    touch(connection)
    forget(connection, call)
    // Nothing but the answer waits in the stream.
    if message.count > limits.streamOutputBytes { cut(connection, stream, .outputLimit) }
    if connection.session.pendingOutput > limits.connectionOutputBytes { connection.cut(.outputLimit) }
    return true
  }

  @inline(__always)
  func open(_ call: UnsafeMutablePointer<RPCCall>) {
    if call.pointee.isOpen { return }
    call.pointee.isOpen = true
    let headers = responses.success(call.pointee.framing, call.pointee.codec)
    call.pointee.connection._withUnsafeGuaranteedRef { $0.session.respond(call.pointee.stream, headers) }
  }

  private func envelope(_ header: UnsafeMutableRawPointer, flags: UInt8, _ count: Int) {
    header.storeBytes(of: flags, as: UInt8.self)
    header.storeBytes(of: UInt32(count).bigEndian, toByteOffset: 1, as: UInt32.self)
  }

  private func endOfStream(_ connection: RPCConnection, _ stream: HTTP2StreamHandle, _ json: [UInt8]) {
    var bytes: [UInt8] = [2, 0, 0, 0, 0]
    bytes.withUnsafeMutableBytes { envelope($0.baseAddress!, flags: 2, json.count) }
    write(connection, stream, bytes + json)
  }

  func write(_ connection: RPCConnection, _ stream: HTTP2StreamHandle, _ bytes: [UInt8]) {
    guard let output = connection.session.reserve(stream, bytes.count) else { return }
    bytes.withUnsafeBytes { if let base = $0.baseAddress { memcpy(output, base, $0.count) } }
    connection.session.commit(stream, bytes.count, now: now)
  }

  /// Answers with an error, in the form of the call's framing, and ends the call. The handler is not told.
  private func answer(_ call: UnsafeMutablePointer<RPCCall>, _ error: RPCError) {
    let stream = call.pointee.stream!
    let json = error.json
    call.pointee.connection._withUnsafeGuaranteedRef { connection in
      touch(connection)
      switch call.pointee.framing {
      case .connect:
        endOfStream(connection, stream, Array("{\"error\":".utf8) + json + Array("}".utf8))
        open(call)
      case .ndjson where call.pointee.isOpen:
        write(connection, stream, Array("{\"error\":".utf8) + json + Array("}\n".utf8))
      case .unary, .ndjson:
        write(connection, stream, json)
        connection.session.respond(stream, responses.error(error.code))
      }
      connection.session.finish(stream)
      forget(connection, call)
    }
  }

  /// Ends a call whose client did wrong; the handler is told if it knows the call.
  func failCall(_ call: UnsafeMutablePointer<RPCCall>, _ error: RPCError, _ end: RPCEnd = .badRequest) {
    if call.pointee.isShown { emit(.ended, call, HTTP2Range(), end) }
    answer(call, error)
  }

  /// Answers a stream that never became a call.
  func refuse(
    _ connection: RPCConnection, _ stream: HTTP2StreamHandle, _ error: RPCError, _ headers: HTTP2HeaderList?,
    _ format: RequestFormat? = nil
  ) {
    if let format, format.framing == .connect {
      endOfStream(connection, stream, Array("{\"error\":".utf8) + error.json + Array("}".utf8))
      connection.session.respond(stream, responses.success(.connect, format.codec))
    } else {
      write(connection, stream, error.json)
      connection.session.respond(stream, headers ?? responses.error(error.code))
    }
    connection.session.finish(stream)
  }

  /// The client's deadline has passed: it is answered, the handler told; work that has started goes on.
  func deadlinePassed(_ id: CallID) {
    guard let call = calls.find(id) else { return }
    failCall(call, RPCError(.deadlineExceeded, "DEADLINE_EXCEEDED", "the deadline of the call has passed"), .deadline)
  }

  /// The call is over without an answer: the handler is told if it knows the call.
  func end(_ call: UnsafeMutablePointer<RPCCall>, _ end: RPCEnd) {
    if call.pointee.isShown { emit(.ended, call, HTTP2Range(), end) }
    call.pointee.connection._withUnsafeGuaranteedRef { forget($0, call) }
  }

  @inline(__always)
  func link(_ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>) {
    let first = connection.firstCall
    call.pointee.previous = RPCCall.none
    call.pointee.next = first
    if first != RPCCall.none { calls[first].pointee.previous = call.pointee.slot }
    connection.firstCall = call.pointee.slot
  }

  @inline(__always)
  private func unlink(_ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>) {
    let (previous, next) = (call.pointee.previous, call.pointee.next)
    if previous == RPCCall.none { connection.firstCall = next } else { calls[previous].pointee.next = next }
    if next != RPCCall.none { calls[next].pointee.previous = previous }
  }

  /// Frees the slot; the stream lives on until its last byte has left.
  private func forget(_ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>) {
    call.pointee.stream.pointee.owner = HTTP2Stream.unowned
    // A paused stream's bytes are read by nobody from now on; the connection's window gets them back.
    if call.pointee.isPaused { connection.session.consume(call.pointee.stream) }
    dropHeld(connection, call)
    unlink(connection, call)
    if call.pointee.hasDeadline { deadlines.liveCount -= 1 }
    calls.put(call)
  }

  private func checkOutput(_ connection: RPCConnection, _ stream: HTTP2StreamHandle) {
    if stream.pointee.pendingOutput > limits.streamOutputBytes {
      cut(connection, stream, .outputLimit)
    }
    if connection.session.pendingOutput > limits.connectionOutputBytes {
      connection.cut(.outputLimit)
    }
  }

  /// Ends one stream that does not read: RST_STREAM(ENHANCE_YOUR_CALM), and its waiting output is dropped.
  func cut(_ connection: RPCConnection, _ stream: HTTP2StreamHandle, _ reason: RPCEnd) {
    let slot = stream.pointee.owner
    if slot != HTTP2Stream.unowned { end(calls[slot], reason) }
    connection.session.reset(stream, .enhanceYourCalm)
    touch(connection)
  }
}
