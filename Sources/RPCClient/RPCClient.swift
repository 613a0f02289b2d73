// SPDX-License-Identifier: Apache-2.0
import Glibc
import HTTP2Session

/// One connection to a server, for one thread, without threads of its own: HTTP/2 in clear text by prior knowledge,
/// Connect protocol, JSON or protobuf bytes.
///
/// Two ways to use it, freely mixed. *Blocking*: `call` returns the answer. *Pump*: `start` and `openStream` begin calls,
/// `send` queues messages, and `poll` writes what is queued, waits, and returns one batch of events; so a process reads a
/// batch, acts, and writes once. Nothing is sent before the next `poll`, `call` or `flush`.
///
/// When the connection is lost, every live call gets `failed`, `isConnected` turns false, and new calls throw.
public final class RPCClient {
  public let endpoint: RPCEndpoint
  private let socket: ClientSocket
  let context: HTTP2Context
  let session: HTTP2Session
  private var heads: [String: HTTP2HeaderList] = [:]
  private var readBuffer: UnsafeMutableRawBufferPointer
  /// Serialised bytes that the socket has not taken yet.
  private var unsent: [UInt8] = []
  private var unsentOffset = 0

  var calls: [ClientCall] = []
  private var freeCalls: [UInt32] = []
  private var pending = EventList<RPCClientEvent>(capacity: 64)
  private var delivered = EventList<RPCClientEvent>(capacity: 64)
  /// Why the connection is lost; nil while it lives.
  public private(set) var lossReason: String?

  private static let readBytes = 64 << 10
  private static let pieceBytes = 128 << 10
  static let largestMessage = 64 << 20

  /// Connects and queues the connection preface.
  ///
  /// `limits` bound what the *server* may do to us. Throws when nobody answers within `timeout`.
  public init(
    _ endpoint: RPCEndpoint, timeout: Duration = .seconds(10), limits: HTTP2Limits = RPCClient.defaultLimits
  ) throws(RPCClientError) {
    self.endpoint = endpoint
    socket = try ClientSocket(endpoint, deadline: RPCClient.deadline(timeout))
    context = HTTP2Context(role: .client, limits: limits)
    session = HTTP2Session(context, now: monotonicNow())
    readBuffer = .allocate(byteCount: RPCClient.readBytes, alignment: 16)
  }

  deinit {
    Glibc.close(socket.descriptor)
    for call in calls { context.deallocate(call.input) }
    readBuffer.deallocate()
    pending.destroy()
    delivered.destroy()
  }

  /// Large windows: whoever polls takes everything at once.
  public static var defaultLimits: HTTP2Limits {
    var limits = HTTP2Limits()
    limits.streamWindow = 4 << 20
    limits.connectionWindow = 64 << 20
    return limits
  }

  /// The socket, for callers that wait for several things at once: wait for input, then `poll(until: 0)`.
  public var descriptor: Int32 { socket.descriptor }
  public var isConnected: Bool { lossReason == nil }

  // MARK: - Blocking

  /// Calls a unary method and waits for its answer; an error of the service is a reply, not a throw.
  ///
  /// `deadline` is sent to the server as `connect-timeout-ms`. Events of other streams that arrive meanwhile wait for `poll`.
  /// Throws `timeout` (the call is cancelled; it may have had its effect) or `connectionLost`.
  public func call(
    _ path: String, _ body: UnsafeRawBufferPointer, _ codec: RPCClientCodec = .json,
    timeout: Duration = .seconds(30), deadline: Duration? = nil
  ) throws(RPCClientError) -> RPCReply {
    let stream = try begin(path, .unary, codec, tag: 0, deadline: deadline)
    calls[Int(stream.slot)].isBlocking = true
    write(stream, body)
    session.finish(calls[Int(stream.slot)].stream!)
    let end = RPCClient.deadline(timeout)
    while true {
      if let reply = calls[Int(stream.slot)].reply {
        forget(stream.slot)
        trim()
        return reply
      }
      if let lossReason {
        forget(stream.slot)
        throw .connectionLost(lossReason)
      }
      if !turn(until: end), calls[Int(stream.slot)].reply == nil {
        cancel(stream)
        flush()
        throw .timeout
      }
    }
  }

  /// As `call`, with JSON text.
  public func call(
    _ path: String, json: String, timeout: Duration = .seconds(30), deadline: Duration? = nil
  ) throws(RPCClientError) -> RPCReply {
    let bytes = Array(json.utf8)
    return try bytes.withUnsafeBytes { body in
      Result { () throws(RPCClientError) in
        try call(path, body, .json, timeout: timeout, deadline: deadline)
      }
    }.get()
  }

  // MARK: - Pump

  /// Begins a unary call; its answer is a `message` or `failed` event.
  public func start(
    _ path: String, _ body: UnsafeRawBufferPointer, _ codec: RPCClientCodec = .json, tag: UInt64 = 0,
    deadline: Duration? = nil
  ) throws(RPCClientError) -> RPCStreamID {
    let stream = try begin(path, .unary, codec, tag: tag, deadline: deadline)
    write(stream, body)
    session.finish(calls[Int(stream.slot)].stream!)
    return stream
  }

  /// Opens a Connect stream. For a server-streaming method send the request and then `halfClose`.
  public func openStream(
    _ path: String, _ codec: RPCClientCodec = .json, tag: UInt64 = 0, deadline: Duration? = nil
  ) throws(RPCClientError) -> RPCStreamID {
    try begin(path, .stream, codec, tag: tag, deadline: deadline)
  }

  /// Queues one message; false when the stream is over.
  @discardableResult
  public func send(_ stream: RPCStreamID, _ message: UnsafeRawBufferPointer) -> Bool {
    guard let output = beginOutput(stream, reserving: message.count) else { return false }
    if let base = message.baseAddress { memcpy(output, base, message.count) }
    commitOutput(stream, message.count)
    return true
  }

  /// Room for a message of at most `count` bytes, in place; `commitOutput` queues what was written, before any other call.
  /// Nil when the stream is over.
  public func beginOutput(_ stream: RPCStreamID, reserving count: Int) -> UnsafeMutableRawPointer? {
    guard let handle = handle(stream) else { return nil }
    return session.reserve(handle, count + 5).map { $0 + 5 }
  }

  public func commitOutput(_ stream: RPCStreamID, _ count: Int) {
    guard let handle = handle(stream), let header = session.reserve(handle, count + 5) else { return }
    header.storeBytes(of: 0, as: UInt8.self)
    header.storeBytes(of: UInt32(count).bigEndian, toByteOffset: 1, as: UInt32.self)
    session.commit(handle, count + 5, now: 0)
  }

  /// We send no more messages on this stream; it goes on in the other direction.
  public func halfClose(_ stream: RPCStreamID) {
    if let handle = handle(stream) { session.finish(handle) }
  }

  /// Ends the call at once with RST_STREAM(CANCEL); no event follows.
  public func cancel(_ stream: RPCStreamID) {
    guard let handle = handle(stream) else { return }
    session.reset(handle, .cancel)
    handle.pointee.owner = HTTP2Stream.unowned
    forget(stream.slot)
  }

  /// Bytes of this stream that wait for the server's window or the socket.
  public func pendingOutput(_ stream: RPCStreamID) -> Int { handle(stream)?.pointee.pendingOutput ?? 0 }

  /// Writes what is queued, as far as the socket takes it.
  public func flush() {
    guard lossReason == nil else { return }
    while true {
      if unsentOffset < unsent.count, !writeUnsent() { return }
      let drained = session.drain(limit: RPCClient.pieceBytes, now: monotonicNow())
      if !drained.alive { return lose("HTTP/2 failed") }
      if drained.bytes.isEmpty { break }
      write(drained.bytes)
    }
    collect()
  }

  /// Writes what is queued, waits for events until `deadline` (CLOCK_MONOTONIC in nanoseconds; 0 does not wait) and returns
  /// them. They and their messages are valid until the next `poll`. An empty batch means that the deadline has come or the
  /// connection is lost.
  public func poll(until deadline: UInt64) -> UnsafeBufferPointer<RPCClientEvent> {
    delivered.removeAll()
    trim()
    if pending.count == 0 {
      repeat {
        if lossReason != nil || !turn(until: deadline) { break }
      } while pending.count == 0
    } else {
      flush()
    }
    swap(&pending, &delivered)
    return delivered.elements
  }

  public func poll(timeout: Duration) -> UnsafeBufferPointer<RPCClientEvent> {
    poll(until: RPCClient.deadline(timeout))
  }

  /// The bytes of a `message` event.
  public func message(_ event: RPCClientEvent) -> UnsafeRawBufferPointer { event.bytes.of(context.storage) }

  /// The error of a `failed` event.
  public func failure(_ event: RPCClientEvent) -> RPCFailure {
    if let failure = RPCFailure(json: event.bytes.of(context.storage)) { return failure }
    return RPCClient.failureWithoutBody(event.status, event.code, lossReason)
  }

  /// Says goodbye (GOAWAY) and closes; live calls get no more events.
  public func close() {
    guard lossReason == nil else { return }
    session.end(.noError, "")
    flush()
    lossReason = "closed by us"
    shutdown(socket.descriptor, Int32(SHUT_RDWR))
  }

  private static func deadline(_ timeout: Duration) -> UInt64 {
    let parts = timeout.components
    return monotonicNow() + UInt64(max(0, parts.seconds * 1_000_000_000 + parts.attoseconds / 1_000_000_000))
  }

  // MARK: - Calls

  private func begin(
    _ path: String, _ form: ClientCall.Form, _ codec: RPCClientCodec, tag: UInt64, deadline: Duration?
  ) throws(RPCClientError) -> RPCStreamID {
    if let lossReason { throw .connectionLost(lossReason) }
    let slot = freeCalls.popLast() ?? UInt32(calls.count)
    if Int(slot) == calls.count { calls.append(ClientCall()) }
    let generation = calls[Int(slot)].generation &+ 1
    let headers = head(path, form, codec, deadline)
    guard let stream = session.request(headers, owner: slot) else {
      freeCalls.append(slot)
      throw .connectionLost("the server takes no new calls on this connection")
    }
    calls[Int(slot)] = ClientCall(generation: generation, form: form, stream: stream, tag: tag)
    return RPCStreamID(slot: slot, generation: generation)
  }

  private func head(
    _ path: String, _ form: ClientCall.Form, _ codec: RPCClientCodec, _ deadline: Duration?
  ) -> HTTP2HeaderList {
    let type =
      switch (form, codec) {
      case (.unary, .json): "application/json"
      case (.unary, .proto): "application/proto"
      case (.stream, .json): "application/connect+json"
      case (.stream, .proto): "application/connect+proto"
      }
    let key = "\(type) \(path)"
    if deadline == nil, let known = heads[key] { return known }
    var fields = [
      (name: ":method", value: "POST"), (name: ":scheme", value: "http"),
      (name: ":authority", value: endpoint.authority), (name: ":path", value: path),
      (name: "content-type", value: type), (name: "connect-protocol-version", value: "1"),
    ]
    if let deadline {
      let milliseconds = deadline.components.seconds * 1000 + deadline.components.attoseconds / 1_000_000_000_000_000
      fields.append((name: "connect-timeout-ms", value: String(max(1, milliseconds))))
      return HTTP2HeaderList(fields)
    }
    let made = HTTP2HeaderList(fields)
    heads[key] = made
    return made
  }

  private func handle(_ stream: RPCStreamID) -> HTTP2StreamHandle? {
    guard Int(stream.slot) < calls.count, calls[Int(stream.slot)].generation == stream.generation else { return nil }
    return calls[Int(stream.slot)].stream
  }

  private func write(_ stream: RPCStreamID, _ bytes: UnsafeRawBufferPointer) {
    guard let handle = handle(stream), let base = bytes.baseAddress,
      let output = session.reserve(handle, bytes.count)
    else { return }
    memcpy(output, base, bytes.count)
    session.commit(handle, bytes.count, now: 0)
  }

  /// Frees a call's slot. Its stream, if it still lives, is nobody's.
  func forget(_ slot: UInt32) {
    let index = Int(slot)
    calls[index].stream?.pointee.owner = HTTP2Stream.unowned
    context.deallocate(calls[index].input)
    calls[index] = ClientCall(generation: calls[index].generation)
    freeCalls.append(slot)
  }

  // MARK: - Bytes

  /// One turn: write, wait for input until `deadline`, read, collect. False when the deadline has come.
  private func turn(until deadline: UInt64) -> Bool {
    let known = pending.count
    flush()
    if pending.count > known || lossReason != nil { return true }
    if deadline == 0 { return readAll() }
    guard socket.wait(forOutput: unsentOffset < unsent.count, until: deadline) else { return false }
    _ = readAll()
    return true
  }

  /// Reads what there is, in bounded portions; false when there was nothing.
  private func readAll() -> Bool {
    var hasRead = false
    reading: for _ in 0..<16 {
      switch socket.read(readBuffer) {
      case .count(let count):
        hasRead = true
        let bytes = UnsafeRawBufferPointer(rebasing: readBuffer[..<count])
        if !session.receive(bytes, now: monotonicNow()) {
          collect()
          lose("the server broke HTTP/2")
          return true
        }
        if count < readBuffer.count { break reading }
      case .wouldBlock: break reading
      case .ended:
        collect()
        lose("the server closed the connection")
        return true
      case .failed(let number):
        collect()
        lose(String(cString: strerror(number)))
        return true
      }
    }
    collect()
    return hasRead
  }

  private func write(_ bytes: UnsafeRawBufferPointer) {
    switch socket.write(bytes) {
    case .count(let count):
      if count < bytes.count { keepUnsent(bytes[count...]) }
    case .wouldBlock: keepUnsent(bytes[...])
    case .ended, .failed: keepUnsent(bytes[...])  // the read tells what is wrong, after what the server said last
    }
  }

  private func keepUnsent(_ bytes: Slice<UnsafeRawBufferPointer>) {
    unsent.removeAll(keepingCapacity: true)
    unsent.append(contentsOf: bytes)
    unsentOffset = 0
  }

  private func writeUnsent() -> Bool {
    let outcome = unsent.withUnsafeBytes { socket.write(UnsafeRawBufferPointer(rebasing: $0[unsentOffset...])) }
    if case .count(let count) = outcome { unsentOffset += count }
    guard unsentOffset == unsent.count else { return false }
    unsent.removeAll(keepingCapacity: unsent.capacity <= 1 << 20)
    unsentOffset = 0
    return true
  }

  private func lose(_ why: String) {
    guard lossReason == nil else { return }
    lossReason = why
    shutdown(socket.descriptor, Int32(SHUT_RDWR))
    for slot in calls.indices where calls[slot].stream != nil {
      if calls[slot].isBlocking { continue }
      emit(.failed, UInt32(slot))
      forget(UInt32(slot))
    }
  }

  /// Clears the bytes of old batches when nobody may look at them any more.
  private func trim() {
    if pending.count == 0, delivered.count == 0 { session.endBatch() } else { session.returnWindow() }
  }

  // MARK: - Events

  private func collect() {
    for index in 0..<context.events.count {
      let event = context.events[index]
      if event.kind == .goaway { noteGoaway(event) }
      guard let stream = event.stream else { continue }
      let slot = stream.pointee.owner
      if event.kind == .data { session.consume(stream) }
      if slot != HTTP2Stream.unowned { act(slot, event) }
      if event.kind == .closed {
        // A blocking call keeps its slot until it has returned, but not its stream.
        if slot != HTTP2Stream.unowned, calls[Int(slot)].stream == stream { calls[Int(slot)].stream = nil }
        session.release(stream)
      }
    }
    session.dropEvents()
  }

  private func noteGoaway(_ event: HTTP2Event) {
    guard event.code != .noError else { return }
    let text = String(decoding: event.range.of(context.storage), as: UTF8.self)
    goawayReason = "GOAWAY \(event.code.rawValue) \(text)"
  }
  /// What the server's GOAWAY said, when it was an error.
  public private(set) var goawayReason: String?

  private func act(_ slot: UInt32, _ event: HTTP2Event) {
    let index = Int(slot)
    switch event.kind {
    case .head:
      calls[index].status = context.head(event.head).status
      if calls[index].form == .stream, calls[index].status == 200 { emit(.opened, slot) }
    case .data:
      if calls[index].form == .stream, calls[index].status == 200 {
        envelopes(slot, event.range)
      } else {
        hold(slot, event.range)
      }
    default: break
    }
    guard event.endStream || event.kind == .closed, isLive(slot, event.stream) else { return }
    finished(slot, event.code)
  }

  func isLive(_ slot: UInt32, _ stream: HTTP2StreamHandle?) -> Bool {
    calls[Int(slot)].stream == stream && stream?.pointee.owner == slot
  }

  /// The server's side has ended.
  private func finished(_ slot: UInt32, _ code: HTTP2ErrorCode) {
    let index = Int(slot)
    let call = calls[index]
    if call.form == .stream, call.status == 200 {
      // A Connect stream ends with its own word; without it, it was cut.
      emit(.failed, slot, code: code)
      forget(slot)
      return
    }
    let body = call.held
    if call.isBlocking {
      if call.reply != nil { return }
      var reply = RPCReply(status: Int(call.status), body: Array(body), failure: nil)
      if call.status != 200 {
        reply.failure = RPCFailure(json: body) ?? RPCClient.failureWithoutBody(call.status, code, nil)
      }
      calls[index].reply = reply
      return
    }
    emit(call.status == 200 ? .message : .failed, slot, context.append(body), code: code)
    forget(slot)
  }

  func emit(
    _ kind: RPCClientEvent.Kind, _ slot: UInt32, _ bytes: HTTP2Range = HTTP2Range(),
    code: HTTP2ErrorCode = .noError
  ) {
    let call = calls[Int(slot)]
    pending.append(
      RPCClientEvent(
        kind: kind, stream: RPCStreamID(slot: slot, generation: call.generation), tag: call.tag, bytes: bytes,
        code: code, status: call.status))
  }
}
