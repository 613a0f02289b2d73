// SPDX-License-Identifier: Apache-2.0
// Goal: each form of call works over real sockets, with one and with two event loops. Method: our own client.
import RPCClient
import RPCServer
import Testing

@Suite(.serialized) struct CallTests {
  /// Runs `body` with a server and a client, then drains the server.
  private func withServer(
    loops: Int = 1, limits: RPCLimits = RPCLimits(), _ body: (TestServer, RPCClient) throws -> Void
  ) async throws {
    let server = try await TestServer(loops: loops, limits: limits)
    do {
      let client = try server.client()
      try body(server, client)
      client.close()
    } catch {
      await server.stop()
      throw error
    }
    await server.stop()
  }

  /// The messages of a stream and its end.
  private func read(_ client: RPCClient, _ stream: RPCStreamID) -> (messages: [String], failure: RPCFailure?, ended: Bool) {
    var messages: [String] = []
    let end = monotonicNow() + 20_000_000_000
    while monotonicNow() < end {
      for event in client.poll(until: end) where event.stream == stream {
        switch event.kind {
        case .opened: break
        case .message: messages.append(String(decoding: client.message(event), as: UTF8.self))
        case .ended: return (messages, nil, true)
        case .failed: return (messages, client.failure(event), true)
        }
      }
      if !client.isConnected { break }
    }
    return (messages, nil, false)
  }

  @Test("a unary call is answered, in JSON and in protobuf bytes, over TCP and over a Unix socket", arguments: [1, 2])
  func unary(loops: Int) async throws {
    try await withServer(loops: loops) { server, client in
      #expect(try client.call("/test.v1.TestService/Echo", json: "{\"a\":1}").text == "{\"a\":1}")
      let reply = try [UInt8]([8, 1]).withUnsafeBytes { try client.call("/test.v1.TestService/Echo", $0, .proto) }
      #expect(reply.status == 200 && reply.body == [8, 1])
      let local = try RPCClient(.unix(path: server.socketPath))
      #expect(try local.call("/test.v1.TestService/Echo", json: "{}").text == "{}")
      local.close()
    }
  }

  @Test("a body of almost a mebibyte comes back whole; one above it is resource_exhausted") func bodySizes() async throws {
    try await withServer { server, client in
      let large = [UInt8](repeating: UInt8(ascii: "x"), count: 1 << 20)
      let reply = try large.withUnsafeBytes { try client.call("/test.v1.TestService/Echo", $0) }
      #expect(reply.body == large)
      let before = server.witness.seen.requests
      let refused = try (large + [1]).withUnsafeBytes { try client.call("/test.v1.TestService/Echo", $0) }
      #expect(refused.status == 429)
      #expect(refused.failure?.reason == "MESSAGE_TOO_LARGE")
      #expect(server.witness.seen.requests == before)
      #expect(try client.call("/test.v1.TestService/Echo", json: "1").text == "1", "the connection goes on")
    }
  }

  @Test("a server stream gives its messages in order and ends", arguments: [1, 2]) func serverStream(loops: Int) async throws {
    try await withServer(loops: loops) { _, client in
      let stream = try client.openStream("/test.v1.TestService/Count")
      Array("{\"n\":5000}".utf8).withUnsafeBytes { _ = client.send(stream, $0) }
      client.halfClose(stream)
      let result = read(client, stream)
      #expect(result.messages == (0..<5000).map { "{\"i\":\($0)}" })
      #expect(result.ended && result.failure == nil)
    }
  }

  @Test("an error after a message carries code, reason, fields and text") func streamError() async throws {
    try await withServer { _, client in
      let stream = try client.openStream("/test.v1.TestService/Refuse")
      Array("{}".utf8).withUnsafeBytes { _ = client.send(stream, $0) }
      client.halfClose(stream)
      let result = read(client, stream)
      #expect(result.messages == ["{\"i\":0}"])
      #expect(result.failure == RPCFailure(
        code: "out_of_range", reason: "too_far", message: "i is \"too\" far", fields: ["i", "j"]))
    }
  }

  @Test("a bidirectional stream echoes while both sides are open, messages of every size", arguments: [1, 2])
  func bidi(loops: Int) async throws {
    try await withServer(loops: loops) { _, client in
      let stream = try client.openStream("/test.v1.TestService/Chat")
      var expected: [String] = []
      for size in [0, 1, 5, 100, 16_384, 70_000, 1 << 20, 3] {
        let message = String(repeating: "m", count: size)
        expected.append(message)
        Array(message.utf8).withUnsafeBytes { _ = client.send(stream, $0) }
      }
      var got: [String] = []
      let end = monotonicNow() + 20_000_000_000
      while got.count < expected.count, monotonicNow() < end {
        for event in client.poll(until: end) where event.kind == .message {
          got.append(String(decoding: client.message(event), as: UTF8.self))
        }
      }
      #expect(got == expected)
      client.halfClose(stream)
      #expect(read(client, stream).ended)
    }
  }

  @Test("many streams on one connection are told apart") func manyStreams() async throws {
    try await withServer { _, client in
      for tag in 0..<300 {
        let body = Array("{\"tag\":\(tag)}".utf8)
        _ = try body.withUnsafeBytes { try client.start("/test.v1.TestService/Echo", $0, tag: UInt64(tag)) }
      }
      var seen: Set<UInt64> = []
      let end = monotonicNow() + 20_000_000_000
      while seen.count < 300, monotonicNow() < end {
        for event in client.poll(until: end) {
          #expect(event.kind == .message)
          #expect(String(decoding: client.message(event), as: UTF8.self) == "{\"tag\":\(event.tag)}")
          seen.insert(event.tag)
        }
      }
      #expect(seen.count == 300)
    }
  }

  @Test("a blocking call is answered while events of another stream wait, and they are there afterwards")
  func callBesideAStream() async throws {
    try await withServer { server, client in
      let stream = try client.openStream("/test.v1.TestService/Count")
      Array("3".utf8).withUnsafeBytes { _ = client.send(stream, $0) }
      client.halfClose(stream)
      client.flush()
      #expect(server.witness.wait { $0.requests == 1 })
      for number in 0..<5 {
        let text = try client.call("/test.v1.TestService/Echo", json: "\(number)", timeout: .seconds(5)).text
        #expect(text == "\(number)")
      }
      #expect(read(client, stream).messages == ["{\"i\":0}", "{\"i\":1}", "{\"i\":2}"])
    }
  }

  @Test("client messages are counted and answered at half-close") func clientStream() async throws {
    try await withServer { _, client in
      let stream = try client.openStream("/test.v1.TestService/Collect")
      for _ in 0..<50 { Array("{}".utf8).withUnsafeBytes { _ = client.send(stream, $0) } }
      client.halfClose(stream)
      #expect(read(client, stream).messages == ["{\"n\":50}"])
    }
  }

  @Test("an answer made on another event loop reaches its call") func answerFromAnotherLoop() async throws {
    try await withServer(loops: 2) { _, client in
      for _ in 0..<20 {
        let text = try client.call("/test.v1.TestService/Elsewhere", json: "{}").text
        #expect(text == "{\"loop\":1}")
      }
    }
  }

  @Test("a passed deadline answers the caller, tells the handler once, and refuses late replies") func deadline() async throws {
    try await withServer { server, client in
      let reply = try client.call("/test.v1.TestService/Hang", json: "{}", deadline: .milliseconds(50))
      #expect(reply.status == 504)
      #expect(reply.failure?.code == "deadline_exceeded")
      #expect(server.witness.wait { $0.ended == [.deadline] })
      #expect(server.witness.seen.lateReplies == [false])
      #expect(try client.call("/test.v1.TestService/Echo", json: "1", deadline: .seconds(5)).text == "1")
    }
  }

  @Test("a cancelled call and a lost connection are told to the handler") func cancelAndLoss() async throws {
    try await withServer { server, client in
      let stream = try Array("{}".utf8).withUnsafeBytes { try client.start("/test.v1.TestService/Hang", $0) }
      client.flush()
      #expect(server.witness.wait { $0.requests == 1 })
      client.cancel(stream)
      client.flush()
      #expect(server.witness.wait { $0.ended == [.reset] })
      _ = try client.openStream("/test.v1.TestService/Chat")
      client.flush()
      #expect(server.witness.wait { $0.begun == 1 })
      client.close()
      #expect(server.witness.wait { $0.ended.count == 2 })
    }
  }

  @Test("a drain lets an open call end well, announces itself, and refuses what comes later") func drain() async throws {
    let server = try await TestServer()
    let client = try server.client()
    let stream = try client.openStream("/test.v1.TestService/Chat")
    Array("1".utf8).withUnsafeBytes { _ = client.send(stream, $0) }
    while client.poll(timeout: .seconds(5)).first(where: { $0.kind == .message }) == nil {}
    async let stopped: Void = server.stop(grace: .seconds(10))
    // The server waits for this call only.
    Array("2".utf8).withUnsafeBytes { _ = client.send(stream, $0) }
    client.halfClose(stream)
    let result = read(client, stream)
    #expect(result.messages == ["2"] && result.ended && result.failure == nil)
    while client.isConnected { _ = client.poll(timeout: .seconds(5)) }
    await stopped
    #expect(throws: RPCClientError.self) { try server.client() }
  }

  @Test("a drain ends calls that outlast its grace period") func drainGrace() async throws {
    let server = try await TestServer()
    let client = try server.client()
    let stream = try client.openStream("/test.v1.TestService/Chat")
    while client.poll(timeout: .seconds(5)).first(where: { $0.kind == .opened }) == nil {}
    async let stopped: Void = server.stop(grace: .milliseconds(200))
    let result = read(client, stream)
    #expect(result.failure?.code == "unavailable")
    await stopped
    #expect(server.witness.seen.ended == [.connectionLost])
  }
}
