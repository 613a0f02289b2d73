// SPDX-License-Identifier: Apache-2.0
import Glibc
import HTTP2Session

// From frames to calls and messages.
extension RPCLoop {
  /// Turns the events of `connection`'s session into events for the handler.
  func collect(_ connection: RPCConnection) {
    let received = http.events
    for index in 0..<received.count {
      let event = received[index]
      switch event.kind {
      case .head:
        begin(connection, event)
      case .data, .end:
        guard let stream = event.stream else { break }
        let slot = stream.pointee.owner
        if slot == HTTP2Stream.unowned {
          discard(connection, stream, event)
        } else {
          body(connection, calls[slot], event)
        }
      case .closed:
        guard let stream = event.stream else { break }
        let slot = stream.pointee.owner
        if slot != HTTP2Stream.unowned { end(calls[slot], .reset) }
        connection.session.release(stream)
      case .pingAcknowledged:
        connection.pingAcknowledged()
      case .goaway:
        break
      }
    }
  }

  /// A body that nobody reads: the call was answered before its end.
  @inline(never)
  private func discard(_ connection: RPCConnection, _ stream: HTTP2StreamHandle, _ event: HTTP2Event) {
    connection.session.consume(stream)
    stream.pointee.discardedBytes += Int(event.range.count)
    if stream.pointee.discardedBytes > limits.discardedBytes, !stream.pointee.remoteEnded {
      connection.session.reset(stream, .noError)
    }
  }

  @inline(__always)
  private func begin(_ connection: RPCConnection, _ event: HTTP2Event) {
    guard let stream = event.stream else { return }
    let head = http.head(event.head)
    let storage = http.storage
    let path = head.path.of(storage)
    guard head.method == .post, let method = methods.find(path) else {
      beginUnusual(connection, stream, head, event.endStream)
      return
    }
    guard let format = format(method.kind, head, storage) else {
      refuse(connection, stream, unsupportedType(method.kind), responses.unsupportedType)
      return
    }
    if let error = encodingError(head, format.framing, storage) {
      refuse(connection, stream, error, nil, format)
      return
    }
    guard let call = start(connection, stream, method, format, head) else { return }
    if !call.pointee.collectsWholeRequest {
      emit(.begun, call)
      // The status of a Connect stream is always 200, and some clients wait for it before they send.
      if format.framing == .connect { open(call) }
    }
    if event.endStream { bodyEnded(connection, call) }
  }

  private func start(
    _ connection: RPCConnection, _ stream: HTTP2StreamHandle, _ method: MethodTable.Entry, _ format: RequestFormat,
    _ head: HTTP2Head
  ) -> UnsafeMutablePointer<RPCCall>? {
    let call = calls.take()
    call.pointee.method = method.index
    call.pointee.kind = method.kind
    call.pointee.codec = format.codec
    call.pointee.framing = format.framing
    call.pointee.stream = stream
    call.pointee.connection = Unmanaged.passUnretained(connection)
    call.pointee.inputAt = now
    stream.pointee.owner = call.pointee.slot
    link(connection, call)
    if !head.connectTimeout.isEmpty {
      guard let milliseconds = decimal(head.connectTimeout.of(http.storage), digits: 10), milliseconds > 0 else {
        let error = RPCError(
          .invalidArgument, "BAD_TIMEOUT", "connect-timeout-ms must be a positive integer of at most 10 digits")
        failCall(call, error)
        return nil
      }
      call.pointee.hasDeadline = true
      let at = now + milliseconds * 1_000_000
      deadlines.insert(.init(at: at, call: id(call))) { self.calls.find($0) != nil }
    }
    return call
  }

  @inline(__always)
  func id(_ call: UnsafeMutablePointer<RPCCall>) -> CallID {
    CallID(loop: UInt8(truncatingIfNeeded: index), slot: call.pointee.slot, generation: call.pointee.generation)
  }

  @inline(__always)
  func emit(
    _ kind: RPCEvent.Kind, _ call: UnsafeMutablePointer<RPCCall>, _ message: HTTP2Range = HTTP2Range(),
    _ end: RPCEnd = .none
  ) {
    call.pointee.isShown = true
    events.append(
      RPCEvent(
        kind: kind, codec: call.pointee.codec, framing: call.pointee.framing, end: end, method: call.pointee.method,
        call: id(call), message: message))
  }

  // MARK: - Bodies

  @inline(__always)
  private func body(_ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>, _ event: HTTP2Event) {
    call.pointee.inputAt = now
    if !call.pointee.isPaused { connection.session.consume(call.pointee.stream) }
    if call.pointee.collectsWholeRequest {
      if event.endStream, call.pointee.inputCount == 0 {
        requestEnded(connection, call, event.range)
        return
      }
      if !event.range.isEmpty, !hold(connection, call, event.range, limit: limits.messageBytes + 5) { return }
      if event.endStream { bodyEnded(connection, call) }
      return
    }
    let id = id(call)
    switch call.pointee.framing {
    case .connect: envelopes(connection, call, event.range)
    case .ndjson: lines(connection, call, event.range)
    case .unary: break
    }
    if event.endStream, calls.find(id) != nil { bodyEnded(connection, call) }
  }

  private func bodyEnded(_ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>) {
    if call.pointee.collectsWholeRequest {
      requestEnded(connection, call, takeHeld(connection, call))
      return
    }
    if call.pointee.inputCount > 0 {
      if call.pointee.framing == .connect {
        failCall(call, RPCError(.invalidArgument, "TRUNCATED_ENVELOPE", "the stream ended inside a message"))
        return
      }
      emitLine(call, takeHeld(connection, call))
    }
    emit(.halfClosed, call)
  }

  /// The whole request of a unary or server-streaming method is here.
  @inline(__always)
  private func requestEnded(
    _ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>, _ body: HTTP2Range
  ) {
    if Int(body.count) > limits.messageBytes + 5 {
      failCall(call, tooLarge())
    } else if call.pointee.framing == .connect {
      requestFromEnvelope(call, body)
    } else if Int(body.count) > limits.messageBytes {
      failCall(call, tooLarge())
    } else {
      emit(.request, call, body)
    }
  }

  private func requestFromEnvelope(_ call: UnsafeMutablePointer<RPCCall>, _ body: HTTP2Range) {
    let bytes = body.of(http.storage)
    guard bytes.count >= 5, let length = envelopeLength(bytes), length == bytes.count - 5 else {
      let text = "a server-streaming method takes exactly one enveloped message"
      failCall(call, RPCError(.invalidArgument, "BAD_ENVELOPE", text))
      return
    }
    if let error = envelopeError(bytes[0], length) {
      failCall(call, error)
      return
    }
    emit(.request, call, HTTP2Range(offset: Int(body.offset) + 5, count: length))
  }

  private func envelopeLength(_ header: UnsafeRawBufferPointer) -> Int? {
    guard header.count >= 5 else { return nil }
    return Int(UInt32(bigEndian: header.loadUnaligned(fromByteOffset: 1, as: UInt32.self)))
  }

  /// Connect protocol, "Streaming RPCs": flag bit 0 is compression, bit 1 the end of stream, which only servers send.
  private func envelopeError(_ flags: UInt8, _ length: Int) -> RPCError? {
    if flags & 1 != 0 {
      return RPCError(
        .internal, "UNEXPECTED_COMPRESSION",
        "a message is flagged as compressed but no connect-content-encoding was announced")
    }
    if flags != 0 {
      return RPCError(.invalidArgument, "BAD_ENVELOPE", "a client's envelope flags must be 0, not \(flags)")
    }
    return length > limits.messageBytes ? tooLarge() : nil
  }

  private func tooLarge() -> RPCError {
    RPCError(
      .resourceExhausted, "MESSAGE_TOO_LARGE",
      "the message is larger than the limit of \(limits.messageBytes) bytes; send less at once")
  }

  /// Takes whole envelopes out of new bytes; what is incomplete waits with the call.
  private func envelopes(_ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>, _ range: HTTP2Range) {
    var offset = Int(range.offset)
    let end = offset + Int(range.count)
    while offset < end {
      let rest = UnsafeRawBufferPointer(rebasing: http.storage[offset..<end])
      if call.pointee.inputCount == 0 {
        guard let length = envelopeLength(rest) else {
          _ = hold(connection, call, HTTP2Range(offset: offset, count: rest.count), limit: .max)
          return
        }
        if let error = envelopeError(rest[0], length) { return failCall(call, error) }
        if rest.count - 5 >= length {
          emit(.message, call, HTTP2Range(offset: offset + 5, count: length))
          offset += 5 + length
          continue
        }
        _ = hold(connection, call, HTTP2Range(offset: offset, count: rest.count), limit: .max)
        return
      }
      let wanted = missing(call)
      let taken = min(wanted, rest.count)
      guard hold(connection, call, HTTP2Range(offset: offset, count: taken), limit: .max) else { return }
      offset += taken
      let held = UnsafeRawBufferPointer(start: call.pointee.input, count: call.pointee.inputCount)
      guard let length = envelopeLength(held) else { return }
      if let error = envelopeError(held[0], length) { return failCall(call, error) }
      if held.count == 5 + length {
        let whole = takeHeld(connection, call)
        emit(.message, call, HTTP2Range(offset: Int(whole.offset) + 5, count: length))
      }
    }
  }

  /// Bytes until the held envelope's header, or its message, is whole.
  private func missing(_ call: UnsafeMutablePointer<RPCCall>) -> Int {
    let held = UnsafeRawBufferPointer(start: call.pointee.input, count: call.pointee.inputCount)
    guard let length = envelopeLength(held) else { return 5 - held.count }
    return 5 + length - held.count
  }

  private func lines(_ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>, _ range: HTTP2Range) {
    var offset = Int(range.offset)
    let end = offset + Int(range.count)
    while offset < end {
      let rest = UnsafeRawBufferPointer(rebasing: http.storage[offset..<end])
      guard let newline = memchr(rest.baseAddress!, 0x0A, rest.count) else {
        _ = hold(connection, call, HTTP2Range(offset: offset, count: rest.count), limit: limits.messageBytes)
        return
      }
      let length = UnsafeRawPointer(newline) - rest.baseAddress!
      if call.pointee.inputCount > 0 {
        let tail = HTTP2Range(offset: offset, count: length)
        guard hold(connection, call, tail, limit: limits.messageBytes) else { return }
        emitLine(call, takeHeld(connection, call))
      } else if length > limits.messageBytes {
        return failCall(call, tooLarge())
      } else {
        emitLine(call, HTTP2Range(offset: offset, count: length))
      }
      offset += length + 1
    }
  }

  /// A line without its end; empty lines mean nothing.
  private func emitLine(_ call: UnsafeMutablePointer<RPCCall>, _ line: HTTP2Range) {
    var line = line
    if line.count > 0, line.of(http.storage)[Int(line.count) - 1] == 0x0D { line.count -= 1 }
    if line.count > 0 { emit(.message, call, line) }
  }

  /// Keeps bytes of an incomplete message with its call. False means that a limit was passed and the call has failed.
  private func hold(
    _ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>, _ range: HTTP2Range, limit: Int
  ) -> Bool {
    let count = Int(range.count)
    if count == 0 { return true }
    let total = call.pointee.inputCount + count
    if total > limit {
      failCall(call, tooLarge())
      return false
    }
    if connection.inputBytes + count > limits.connectionInputBytes {
      let text = "the connection holds \(limits.connectionInputBytes) bytes of incomplete requests already"
      failCall(call, RPCError(.resourceExhausted, "CONNECTION_INPUT_LIMIT", text))
      return false
    }
    if total > call.pointee.inputCapacity {
      let grown = http.allocate(max(total, call.pointee.inputCapacity * 2))
      if let old = call.pointee.input { memcpy(grown.baseAddress!, old, call.pointee.inputCount) }
      http.deallocate(call.pointee.input)
      call.pointee.input = grown.baseAddress
      call.pointee.inputCapacity = grown.count
    }
    memcpy(call.pointee.input! + call.pointee.inputCount, range.of(http.storage).baseAddress!, count)
    call.pointee.inputCount = total
    connection.inputBytes += count
    return true
  }

  /// Moves the held bytes into the batch.
  private func takeHeld(_ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>) -> HTTP2Range {
    let range = http.append(UnsafeRawBufferPointer(start: call.pointee.input, count: call.pointee.inputCount))
    dropHeld(connection, call)
    return range
  }

  func dropHeld(_ connection: RPCConnection, _ call: UnsafeMutablePointer<RPCCall>) {
    guard call.pointee.input != nil else { return }
    connection.inputBytes -= call.pointee.inputCount
    http.deallocate(call.pointee.input)
    call.pointee.input = nil
    call.pointee.inputCount = 0
    call.pointee.inputCapacity = 0
  }

  // MARK: - Everything that is not a POST to a method

  private func beginUnusual(
    _ connection: RPCConnection, _ stream: HTTP2StreamHandle, _ head: HTTP2Head, _ endStream: Bool
  ) {
    let target = [UInt8](head.path.of(http.storage))
    let mark = target.firstIndex(of: UInt8(ascii: "?"))
    let path = Array(target[..<(mark ?? target.count)])
    if head.method == .get || head.method == .head, path.elementsEqual("/healthz".utf8) {
      return text(connection, stream, head.method, "ok\n", responses.textOK)
    }
    if head.method == .get || head.method == .head, path.elementsEqual("/readyz".utf8) {
      if let reason = readiness.reason {
        return text(connection, stream, head.method, "not ready: \(reason)\n", responses.textUnavailable)
      }
      return text(connection, stream, head.method, "ready\n", responses.textOK)
    }
    guard let method = path.withUnsafeBytes({ methods.find($0) }) else {
      let name = String(decoding: path.prefix(200), as: UTF8.self)
      return refuse(
        connection, stream, RPCError(.unimplemented, "UNKNOWN_METHOD", "no method at \(name)"), responses.unknownMethod)
    }
    guard head.method == .get, method.isSideEffectFree, method.kind == .unary || method.kind == .serverStream else {
      let text = "this method is called with POST"
      return refuse(connection, stream, RPCError(.unimplemented, "WRONG_HTTP_METHOD", text), responses.wrongVerb)
    }
    get(connection, stream, head, method, query: mark.map { Array(target[($0 + 1)...]) } ?? [])
  }

  private func text(
    _ connection: RPCConnection, _ stream: HTTP2StreamHandle, _ verb: HTTP2Method, _ body: String,
    _ headers: HTTP2HeaderList
  ) {
    if verb == .head { return connection.session.respond(stream, headers, endStream: true) }
    write(connection, stream, Array(body.utf8))
    connection.session.finish(stream)
    connection.session.respond(stream, headers)
  }

  /// Connect protocol, "Unary-Get-Request".
  private func get(
    _ connection: RPCConnection, _ stream: HTTP2StreamHandle, _ head: HTTP2Head, _ method: MethodTable.Entry,
    query: [UInt8]
  ) {
    var message: [UInt8] = []
    var encoding: [UInt8]?
    var isBase64 = false
    var compression: [UInt8] = []
    for part in query.split(separator: UInt8(ascii: "&")) {
      let pair = part.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
      let value = pair.count > 1 ? percentDecoded(pair[1]) : []
      if pair[0].elementsEqual("message".utf8) { message = value }
      if pair[0].elementsEqual("encoding".utf8) { encoding = value }
      if pair[0].elementsEqual("base64".utf8) { isBase64 = value == [UInt8(ascii: "1")] }
      if pair[0].elementsEqual("compression".utf8) { compression = value }
    }
    let codec: RPCCodec
    switch encoding.map({ String(decoding: $0, as: UTF8.self) }) {
    case "json": codec = .json
    case "proto" where method.kind == .unary: codec = .proto
    default: return refuse(connection, stream, unsupportedType(method.kind), responses.unsupportedType)
    }
    let framing = method.kind == .unary ? RPCFraming.unary : .ndjson
    let format = RequestFormat(framing: framing, codec: codec)
    if !compression.isEmpty, !compression.elementsEqual("identity".utf8) {
      return refuse(connection, stream, unsupportedEncoding(), nil, format)
    }
    if isBase64 {
      guard let decoded = base64Decoded(message) else {
        let error = RPCError(.invalidArgument, "BAD_BASE64", "message is not base64", fields: ["message"])
        return refuse(connection, stream, error, nil, format)
      }
      message = decoded
    }
    guard let call = start(connection, stream, method, format, head) else { return }
    requestEnded(connection, call, message.withUnsafeBytes { http.append($0) })
  }

  private func percentDecoded(_ text: ArraySlice<UInt8>) -> [UInt8] {
    func digit(_ byte: UInt8) -> UInt8? {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - 48
      case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - 87
      case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - 55
      default: nil
      }
    }
    var bytes: [UInt8] = []
    var index = text.startIndex
    while index < text.endIndex {
      if text[index] == UInt8(ascii: "%"), index + 2 < text.endIndex, let high = digit(text[index + 1]),
        let low = digit(text[index + 2])
      {
        bytes.append(high << 4 | low)
        index += 3
      } else {
        bytes.append(text[index] == UInt8(ascii: "+") ? UInt8(ascii: " ") : text[index])
        index += 1
      }
    }
    return bytes
  }
}
