// SPDX-License-Identifier: Apache-2.0
import HTTP2Session

/// A client session and a server session joined by memory, and a server that echoes each request's path and body.
final class SessionPair {
  let serverContext: HTTP2Context
  let clientContext: HTTP2Context
  let server: HTTP2Session
  let client: HTTP2Session
  let ok = HTTP2HeaderList([(":status", "200"), ("content-type", "text/plain")])

  /// Lengths of the pieces in which bytes travel; 0 is "all at once".
  var piece: () -> Int = { 0 }
  var serverAlive = true
  var clientAlive = true
  var serverConsumes = true
  var time: UInt64 = 1_000_000_000

  /// What the server saw: a path per request.
  var paths: [String] = []
  var closedOnServer = 0
  /// The stream that the server answered last.
  var lastOnServer: HTTP2StreamHandle?
  private var bodies: [Int32: [UInt8]] = [:]
  /// What the client got: body, end and error code by tag.
  var answers: [UInt32: [UInt8]] = [:]
  var statuses: [UInt32: UInt16] = [:]
  var codes: [UInt32: HTTP2ErrorCode] = [:]
  var goaways: [(code: HTTP2ErrorCode, text: String, last: Int32)] = []
  var pings = 0

  init(server: HTTP2Limits = HTTP2Limits(), client: HTTP2Limits = HTTP2Limits()) {
    serverContext = HTTP2Context(role: .server, limits: server)
    clientContext = HTTP2Context(role: .client, limits: client)
    self.server = HTTP2Session(serverContext, now: time)
    self.client = HTTP2Session(clientContext, now: time)
  }

  func headers(_ path: String, _ more: [(name: String, value: String)] = []) -> HTTP2HeaderList {
    let fields: [(name: String, value: String)] = [
      (":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", path),
    ]
    return HTTP2HeaderList(fields + more)
  }

  func request(_ tag: UInt32, _ path: String, _ body: [UInt8]) -> HTTP2StreamHandle? {
    guard let stream = client.request(headers(path), owner: tag, endStream: body.isEmpty) else { return nil }
    if !body.isEmpty {
      write(client, stream, body)
      client.finish(stream)
    }
    return stream
  }

  func write(_ session: HTTP2Session, _ stream: HTTP2StreamHandle, _ bytes: [UInt8]) {
    guard let room = session.reserve(stream, bytes.count) else { return }
    room.copyMemory(from: bytes, byteCount: bytes.count)
    session.commit(stream, bytes.count, now: time)
  }

  /// Moves bytes in both directions until neither side has any.
  func pump() {
    var moved = true
    while moved {
      moved = false
      let toServer = take(client)
      if !toServer.isEmpty {
        moved = true
        feedServer(toServer)
      }
      let toClient = take(server)
      if !toClient.isEmpty {
        moved = true
        feedClient(toClient)
      }
    }
  }

  func take(_ session: HTTP2Session) -> [UInt8] {
    var bytes: [UInt8] = []
    while true {
      let drained = session.drain(limit: 64 << 10, now: time)
      if drained.bytes.isEmpty { break }
      bytes.append(contentsOf: drained.bytes)
    }
    if session === server { actOnServer() } else { actOnClient() }
    return bytes
  }

  /// One piece of a session's output, as a socket that has little room takes it.
  func takeOnce(_ session: HTTP2Session, limit: Int) -> [UInt8] {
    let bytes = Array(session.drain(limit: limit, now: time).bytes)
    if session === server { actOnServer() } else { actOnClient() }
    return bytes
  }

  func feedServer(_ bytes: [UInt8]) {
    for part in pieces(bytes) where serverAlive {
      serverAlive = part.withUnsafeBytes { server.receive($0, now: time) }
      actOnServer()
    }
  }

  func feedClient(_ bytes: [UInt8]) {
    for part in pieces(bytes) where clientAlive {
      clientAlive = part.withUnsafeBytes { client.receive($0, now: time) }
      actOnClient()
    }
  }

  private func pieces(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] {
    var parts: [ArraySlice<UInt8>] = []
    var index = 0
    while index < bytes.count {
      let wanted = piece()
      let end = wanted == 0 ? bytes.count : min(bytes.count, index + wanted)
      parts.append(bytes[index..<end])
      index = end
    }
    return parts
  }

  private func actOnServer() {
    for event in serverContext.events {
      let storage = serverContext.storage
      switch event.kind {
      case .head:
        let path = String(decoding: serverContext.head(event.head).path.of(storage), as: UTF8.self)
        paths.append(path)
        bodies[event.stream!.pointee.id] = Array(path.utf8)
      case .data:
        bodies[event.stream!.pointee.id, default: []] += Array(event.range.of(storage))
        if serverConsumes { server.consume(event.stream!) }
      case .closed:
        closedOnServer += 1
        bodies[event.stream!.pointee.id] = nil
        server.release(event.stream!)
        continue
      default: break
      }
      if event.endStream, let stream = event.stream {
        write(server, stream, bodies[stream.pointee.id] ?? [])
        server.finish(stream)
        server.respond(stream, ok)
        lastOnServer = stream
      }
    }
    server.endBatch()
  }

  private func actOnClient() {
    for event in clientContext.events {
      let storage = clientContext.storage
      switch event.kind {
      case .head: statuses[event.stream!.pointee.owner] = clientContext.head(event.head).status
      case .data:
        answers[event.stream!.pointee.owner, default: []] += Array(event.range.of(storage))
        client.consume(event.stream!)
      case .closed:
        codes[event.stream!.pointee.owner] = event.code
        client.release(event.stream!)
      case .goaway:
        goaways.append((event.code, String(decoding: event.range.of(storage), as: UTF8.self), event.lastStreamID))
      case .pingAcknowledged: pings += 1
      case .end: break
      }
    }
    client.endBatch()
  }
}

/// SplitMix64; its seed is printed by the test that uses it.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
