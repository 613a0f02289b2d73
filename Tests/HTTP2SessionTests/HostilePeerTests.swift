// SPDX-License-Identifier: Apache-2.0
// Goal: each attack of a hostile client ends the connection, with the right code, after the number of frames that the
// limits state, and never grows memory. Method: frames written by hand, fed to a server session.
import HTTP2Session
import Testing

/// Frames as a hostile client writes them, RFC 9113 §4.1.
private struct Frames {
  var bytes = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + Frames.frame(4, 0, 0, [])

  static func frame(_ type: UInt8, _ flags: UInt8, _ stream: UInt32, _ payload: [UInt8]) -> [UInt8] {
    let count = UInt32(payload.count)
    return [UInt8(truncatingIfNeeded: count >> 16), UInt8(truncatingIfNeeded: count >> 8), UInt8(truncatingIfNeeded: count)]
      + [type, flags] + word(stream) + payload
  }

  static func word(_ value: UInt32) -> [UInt8] {
    [UInt8(value >> 24), UInt8(value >> 16 & 255), UInt8(value >> 8 & 255), UInt8(value & 255)]
  }

  /// POST http://t/p as an HPACK block without dynamic entries, RFC 7541 §6.
  static let requestBlock: [UInt8] = [0x83, 0x86, 0x04, 2] + Array("/p".utf8) + [0x01, 1] + Array("t".utf8)

  mutating func headers(_ stream: UInt32, endStream: Bool = false, block: [UInt8] = Frames.requestBlock) {
    bytes += Frames.frame(1, endStream ? 5 : 4, stream, block)
  }
  mutating func data(_ stream: UInt32, _ payload: [UInt8], flags: UInt8 = 0) {
    bytes += Frames.frame(0, flags, stream, payload)
  }
  mutating func reset(_ stream: UInt32) { bytes += Frames.frame(3, 0, stream, Frames.word(8)) }
  mutating func windowUpdate(_ stream: UInt32, _ increment: UInt32) {
    bytes += Frames.frame(8, 0, stream, Frames.word(increment))
  }
  mutating func ping() { bytes += Frames.frame(6, 0, 0, Array(repeating: 0, count: 8)) }
  mutating func settings(_ entries: [(UInt16, UInt32)]) {
    bytes += Frames.frame(4, 0, 0, entries.flatMap { [UInt8($0.0 >> 8), UInt8($0.0 & 255)] + Frames.word($0.1) })
  }
}

@Suite struct HostilePeerTests {
  /// A server session whose answers are read as frames: (type, flags, stream, payload).
  private func outcome(
    _ pair: SessionPair, _ frames: Frames, step: Int = 4096
  ) -> (alive: Bool, sent: [(type: UInt8, stream: UInt32, payload: [UInt8])]) {
    pair.piece = { step }
    var sent: [UInt8] = []
    var index = 0
    while index < frames.bytes.count, pair.serverAlive {
      let end = min(index + step, frames.bytes.count)
      pair.feedServer(Array(frames.bytes[index..<end]))
      sent += pair.take(pair.server)
      index = end
    }
    return (pair.serverAlive, list(sent))
  }

  /// The frames of what was sent.
  private func list(_ sent: [UInt8]) -> [(type: UInt8, stream: UInt32, payload: [UInt8])] {
    var list: [(type: UInt8, stream: UInt32, payload: [UInt8])] = []
    var at = 0
    while at + 9 <= sent.count {
      let count = Int(sent[at]) << 16 | Int(sent[at + 1]) << 8 | Int(sent[at + 2])
      let stream = sent[at + 5..<at + 9].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      list.append((sent[at + 3], stream, Array(sent[at + 9..<at + 9 + count])))
      at += 9 + count
    }
    return list
  }

  private func goawayCode(_ sent: [(type: UInt8, stream: UInt32, payload: [UInt8])]) -> UInt32? {
    sent.last { $0.type == 7 }.map { $0.payload[4..<8].reduce(0) { $0 << 8 | UInt32($1) } }
  }

  @Test("streams that the client makes us reset (MadeYouReset) end the connection after the burst, with ENHANCE_YOUR_CALM")
  func madeYouReset() {
    var frames = Frames()
    for index in 0..<12_000 {
      let stream = UInt32(index * 2 + 1)
      frames.headers(stream)
      frames.windowUpdate(stream, 0x7FFF_FFFF)
    }
    let result = outcome(SessionPair(), frames)
    #expect(!result.alive)
    #expect(goawayCode(result.sent) == 11)
    let resets = result.sent.filter { $0.type == 3 }.count
    #expect(resets >= 200 && resets < 500, "\(resets) resets")
  }

  @Test("our own cancels cost the client nothing") func ownResetsAreFree() {
    let pair = SessionPair()
    for round in 0..<1000 {
      var frames = Frames()
      if round > 0 { frames.bytes = [] }
      frames.headers(UInt32(round * 2 + 1))
      _ = frames.bytes.withUnsafeBytes { pair.server.receive($0, now: pair.time) }
      for event in pair.serverContext.events where event.kind == .head { pair.server.reset(event.stream!, .cancel) }
      pair.server.endBatch()
      _ = pair.take(pair.server)
    }
    #expect(pair.server.breach == nil)
    #expect(pair.closedOnServer == 1000)
  }

  @Test("a stream that is reset while a frame of it waits for room ends with our code, behind the whole frame")
  func resetInsideAFrame() {
    let pair = SessionPair()
    _ = pair.take(pair.server)
    var frames = Frames()
    frames.bytes += Frames.frame(4, 1, 0, [])
    frames.settings([(4, 1 << 20)])
    frames.windowUpdate(0, 1 << 20)
    frames.headers(1)
    for index in 0..<10 { frames.data(1, Array(repeating: 7, count: 16384), flags: index == 9 ? 1 : 0) }
    pair.feedServer(frames.bytes)
    // The socket takes one piece of the echo; libnghttp2 has the next DATA frame ready then.
    let first = pair.takeOnce(pair.server, limit: 20_000)
    #expect(first.count > 16384 && pair.server.pendingOutput > 100_000)
    pair.server.reset(pair.lastOnServer!, .enhanceYourCalm)
    #expect(pair.server.pendingOutput <= 16384)
    let sent = list(first + pair.take(pair.server)).filter { $0.stream == 1 }
    #expect(sent.map(\.type).suffix(2) == [0, 3] && sent.last?.payload == Frames.word(11))
    #expect(sent.filter { $0.type == 0 }.allSatisfy { $0.payload.count == 16384 })
    #expect(pair.server.pendingOutput == 0 && pair.closedOnServer == 1)
  }

  @Test("a session that ends with open streams leaves none of them behind, nor what waited in them")
  func endsWithOpenStreams() {
    let context = HTTP2Context(role: .server, limits: HTTP2Limits())
    for round in 0..<20 {
      let session = HTTP2Session(context, now: 1)
      var frames = Frames()
      // Some wait for their body, some for their answer, one has an answer that the window holds back.
      for index in 0..<10 { frames.headers(UInt32(2 * index + 1), endStream: index % 2 == 0) }
      frames.reset(5)
      _ = frames.bytes.withUnsafeBytes { session.receive($0, now: 1) }
      for event in context.events where event.kind == .head && round % 2 == 0 {
        let stream = event.stream!
        if let room = session.reserve(stream, 100_000) {
          room.initializeMemory(as: UInt8.self, repeating: 7, count: 100_000)
          session.commit(stream, 100_000, now: 1)
        }
        session.respond(stream, HTTP2HeaderList([(":status", "200")]))
      }
      session.endBatch()
      _ = session.drain(limit: 1 << 20, now: 1)
      #expect(context.liveStreams == 10)
    }
    #expect(context.liveStreams == 0)
  }

  @Test("an honest client's reset now and then never ends the connection") func resetsRefillWithTime() {
    let pair = SessionPair()
    for round in 0..<2000 {
      var frames = Frames()
      if round > 0 { frames.bytes = [] }
      let stream = UInt32(round * 2 + 1)
      frames.headers(stream)
      frames.windowUpdate(stream, 0x7FFF_FFFF)
      pair.feedServer(frames.bytes)
      _ = pair.take(pair.server)
      pair.time += 100_000_000
    }
    #expect(pair.serverAlive && pair.server.breach == nil)
  }

  @Test("rapid reset ends the connection after the burst") func rapidReset() {
    var frames = Frames()
    for index in 0..<3000 {
      frames.headers(UInt32(index * 2 + 1))
      frames.reset(UInt32(index * 2 + 1))
    }
    let pair = SessionPair()
    let result = outcome(pair, frames)
    #expect(goawayCode(result.sent) != nil)
    #expect(pair.paths.count <= 1100, "\(pair.paths.count) requests were seen")
  }

  @Test("an oversized header list resets its stream; a few of them end the connection") func headerLists() {
    var frames = Frames()
    // One literal field of 4 kB, indexed (0x40), then referred to 100 times (0xBE): 400 kB decoded.
    let value = Array(repeating: UInt8(ascii: "a"), count: 4000)
    let bomb = Frames.requestBlock + [0x40, 1] + Array("x".utf8) + [0x7F, 0xA1, 0x1E] + value
      + Array(repeating: 0xBE, count: 100)
    for index in 0..<20 { frames.headers(UInt32(index * 2 + 1), block: bomb) }
    let pair = SessionPair()
    let result = outcome(pair, frames)
    #expect(!result.alive)
    #expect(goawayCode(result.sent) == 11)
    #expect(pair.paths.isEmpty, "the owner saw \(pair.paths.count) requests")
    #expect(result.sent.filter { $0.type == 3 }.count <= 5)
  }

  @Test("empty DATA frames end the connection after the burst") func emptyData() {
    var frames = Frames()
    frames.headers(1)
    for _ in 0..<50_000 { frames.data(1, []) }
    let result = outcome(SessionPair(), frames)
    #expect(!result.alive)
    #expect(goawayCode(result.sent) == 11)
  }

  @Test("SETTINGS that flip the window for ever end the connection") func settingsFlood() {
    var frames = Frames()
    for index in 0..<20_000 { frames.settings([(4, index % 2 == 0 ? 1 : 65535)]) }
    #expect(goawayCode(outcome(SessionPair(), frames).sent) == 11)
  }

  @Test("PRIORITY frames for ever end the connection") func priorityFlood() {
    var frames = Frames()
    for _ in 0..<50_000 { frames.bytes += Frames.frame(2, 0, 1, [0, 0, 0, 0, 16]) }
    #expect(goawayCode(outcome(SessionPair(), frames).sent) == 11)
  }

  @Test("64 entries in one SETTINGS end the connection") func settingsEntries() {
    var frames = Frames()
    frames.settings(Array(repeating: (4, 65535), count: 64))
    #expect(goawayCode(outcome(SessionPair(), frames).sent) == 11)
  }

  @Test("the ninth CONTINUATION ends the connection") func continuations() {
    var frames = Frames()
    frames.bytes += Frames.frame(1, 0, 1, Frames.requestBlock)
    for _ in 0..<9 { frames.bytes += Frames.frame(9, 0, 1, [0x00, 1, 0x61, 1, 0x61]) }
    #expect(!outcome(SessionPair(), frames).alive)
  }

  @Test("PINGs whose answers nobody takes end the connection") func pingFlood() {
    let pair = SessionPair()
    var frames = Frames()
    for _ in 0..<2000 { frames.ping() }
    pair.feedServer(frames.bytes)
    #expect(!pair.serverAlive)
  }

  @Test("a stream above the limit is refused and never seen by the owner") func tooManyStreams() {
    var limits = HTTP2Limits()
    limits.concurrentStreams = 10
    var frames = Frames()
    for index in 0..<30 { frames.headers(UInt32(index * 2 + 1)) }
    let pair = SessionPair(server: limits)
    let result = outcome(pair, frames)
    #expect(pair.paths.count == 10)
    #expect(result.sent.contains { $0.type == 3 } || goawayCode(result.sent) != nil)
  }

  @Test("bytes that are not HTTP/2 end the connection") func notHTTP2() {
    let pair = SessionPair()
    pair.feedServer(Array("GET / HTTP/1.1\r\nhost: x\r\n\r\n".utf8))
    #expect(!pair.serverAlive)
  }

  @Test("a header block cut at any byte is put together") func cutHeaderBlock() {
    var frames = Frames()
    frames.headers(1, endStream: true)
    for cut in 1..<frames.bytes.count {
      let pair = SessionPair()
      pair.feedServer(Array(frames.bytes[..<cut]))
      pair.feedServer(Array(frames.bytes[cut...]))
      #expect(pair.paths == ["/p"], "cut at \(cut)")
    }
  }

  @Test("random bytes after the preface never trap", arguments: 1...40) func noise(seed: UInt64) {
    var generator = SeededGenerator(state: seed)
    let pair = SessionPair()
    var bytes = Frames().bytes
    for _ in 0..<200 {
      let count = Int.random(in: 0...60, using: &generator)
      let payload = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
      let type = UInt8.random(in: 0...12, using: &generator)
      let flags = UInt8.random(in: 0...63, using: &generator)
      bytes += Frames.frame(type, flags, UInt32.random(in: 0...9, using: &generator), payload)
    }
    pair.piece = { Int.random(in: 1...300, using: &generator) }
    pair.feedServer(bytes)
    _ = pair.take(pair.server)
  }
}
