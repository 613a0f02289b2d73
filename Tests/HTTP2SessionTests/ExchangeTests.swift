// SPDX-License-Identifier: Apache-2.0
// Goal: whatever the pieces in which bytes travel, both sides see the same requests, bodies and ends.
// Method: a client session and a server session joined by memory; the server echoes path and body.
import HTTP2Session
import Testing

@Suite struct ExchangeTests {
  private func expectEchoes(_ pair: SessionPair, _ bodies: [[UInt8]], _ location: SourceLocation = #_sourceLocation) {
    for (tag, body) in bodies.enumerated() {
      let path = "/service.v1.Echo/Call\(tag)"
      #expect(pair.request(UInt32(tag), path, body) != nil, sourceLocation: location)
    }
    pair.pump()
    for (tag, body) in bodies.enumerated() {
      let expected = Array("/service.v1.Echo/Call\(tag)".utf8) + body
      #expect(pair.answers[UInt32(tag)] == expected, "request \(tag)", sourceLocation: location)
      #expect(pair.statuses[UInt32(tag)] == 200, sourceLocation: location)
      #expect(pair.codes[UInt32(tag)] == .noError, sourceLocation: location)
    }
    #expect(pair.closedOnServer == bodies.count, sourceLocation: location)
    #expect(pair.server.openStreams == 0 && pair.client.openStreams == 0, sourceLocation: location)
    #expect(pair.server.pendingOutput == 0, sourceLocation: location)
  }

  private let bodies: [[UInt8]] = [[], [1], Array("hello".utf8), Array(repeating: 7, count: 20_000)]

  @Test("requests that arrive whole are echoed") func whole() { expectEchoes(SessionPair(), bodies) }

  @Test("requests that arrive byte by byte are echoed") func byteByByte() {
    let pair = SessionPair()
    pair.piece = { 1 }
    expectEchoes(pair, bodies)
  }

  @Test("requests in random pieces are echoed", arguments: 1...30) func randomPieces(seed: UInt64) {
    var generator = SeededGenerator(state: seed)
    let pair = SessionPair()
    let many = (0..<40).map { _ in
      [UInt8](repeating: UInt8.random(in: 0...255, using: &generator), count: Int.random(in: 0...70_000, using: &generator))
    }
    pair.piece = { Int.random(in: 1...5000, using: &generator) }
    expectEchoes(pair, many)
  }

  @Test("a stream slot is used again after its release") func slotsAreReused() {
    let pair = SessionPair()
    for round in 0..<100 {
      _ = pair.request(0, "/service.v1.Echo/Call", [UInt8(round)])
      pair.pump()
      #expect(pair.answers[0]?.last == UInt8(round))
    }
    #expect(pair.closedOnServer == 100)
  }

  @Test("a body that the server does not take stops at the stream's window") func windowBoundsInput() {
    var limits = HTTP2Limits()
    limits.streamWindow = 10_000
    let pair = SessionPair(server: limits)
    pair.serverConsumes = false
    pair.pump()
    let stream = pair.request(0, "/service.v1.Echo/Call", Array(repeating: 1, count: 50_000))!
    pair.pump()
    #expect(stream.pointee.pendingOutput == 40_000)
    #expect(pair.answers[0] == nil)
  }

  @Test("an answer that the client does not take stays with the server, and its count is known") func windowBoundsOutput() {
    var limits = HTTP2Limits()
    limits.streamWindow = 10_000
    let pair = SessionPair(client: limits)
    pair.pump()
    _ = pair.request(0, "/p", Array(repeating: 1, count: 50_000))
    let toServer = pair.take(pair.client)
    pair.feedServer(toServer)
    _ = pair.take(pair.server)
    #expect(pair.server.pendingOutput == 50_002 - 10_000)
    pair.client.end(.noError, "")
  }

  @Test("drain stops near its limit") func drainLimit() {
    var limits = HTTP2Limits()
    limits.streamWindow = 8 << 20
    let pair = SessionPair(server: limits, client: limits)
    pair.pump()
    _ = pair.request(0, "/p", Array(repeating: 1, count: 4 << 20))
    let drained = pair.client.drain(limit: 100_000, now: 0)
    #expect(drained.bytes.count >= 100_000 && drained.bytes.count < 140_000)
  }

  @Test("a shutdown notice is answered by a PING, GOAWAY names the last stream, open streams end well")
  func gracefulShutdown() {
    let pair = SessionPair()
    let stream = pair.client.request(pair.headers("/p"), owner: 5)!
    pair.pump()
    pair.server.announceShutdown()
    pair.pump()
    #expect(pair.goaways.map(\.last) == [Int32.max])
    pair.server.goaway()
    pair.pump()
    #expect(pair.goaways.map(\.last) == [Int32.max, 1])
    #expect(!pair.server.isDone)
    pair.client.finish(stream)
    pair.pump()
    #expect(pair.codes[5] == .noError)
    #expect(pair.server.isDone)
  }

  @Test("a reset stream tells the other side its code and drops what waited") func reset() {
    let pair = SessionPair()
    let stream = pair.client.request(pair.headers("/p"), owner: 3)!
    pair.write(pair.client, stream, [1, 2, 3])
    pair.client.reset(stream, .cancel)
    pair.pump()
    #expect(pair.codes[3] == .cancel)
    #expect(pair.client.pendingOutput == 0 && pair.client.openStreams == 0)
    #expect(pair.server.openStreams == 0)
  }
}
