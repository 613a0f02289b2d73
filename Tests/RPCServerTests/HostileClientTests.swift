// SPDX-License-Identifier: Apache-2.0
// Goal: clients that stall, flood, or do not read are ended in bounded time and memory, and nobody else notices.
// Method: plain sockets with bytes written by hand; times are cut to fractions of a second by the limits.
import Foundation
import RPCClient
import RPCServer
import Testing

@Suite(.serialized) struct HostileClientTests {
  private let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + [0, 0, 0, 4, 0, 0, 0, 0, 0]

  private func frame(_ type: UInt8, _ flags: UInt8, _ stream: UInt8, _ payload: [UInt8]) -> [UInt8] {
    [0, UInt8(payload.count >> 8), UInt8(payload.count & 255), type, flags, 0, 0, 0, stream] + payload
  }

  private func field(_ name: String, _ value: String) -> [UInt8] {
    [0, UInt8(name.utf8.count)] + Array(name.utf8) + [UInt8(value.utf8.count)] + Array(value.utf8)
  }

  private func request(_ method: String, _ type: String) -> [UInt8] {
    [0x83, 0x86] + field(":path", "/test.v1.TestService/\(method)") + field(":authority", "t")
      + field("content-type", type)
  }

  private func withServer(_ limits: RPCLimits, _ body: (TestServer) throws -> Void) async throws {
    let server = try await TestServer(limits: limits)
    do { try body(server) } catch {
      await server.stop()
      throw error
    }
    await server.stop()
  }

  private var quick: RPCLimits {
    var limits = RPCLimits()
    limits.preface = 200_000_000
    limits.headerBlock = 200_000_000
    limits.body = 200_000_000
    limits.writeStall = 400_000_000
    return limits
  }

  @Test("half a preface is closed in time") func halfPreface() async throws {
    try await withServer(quick) { server in
      let socket = RawSocket(server.port)
      socket.write(Array("PRI * HT".utf8))
      #expect(socket.readToEnd().isEmpty && socket.isClosed)
    }
  }

  @Test("a connection that says nothing is closed in time") func silence() async throws {
    try await withServer(quick) { server in
      let socket = RawSocket(server.port)
      #expect(socket.readToEnd().isEmpty && socket.isClosed)
    }
  }

  @Test("half a header block is closed in time, with GOAWAY") func halfHeaders() async throws {
    try await withServer(quick) { server in
      let socket = RawSocket(server.port)
      let block = request("Echo", "application/json")
      socket.write(preface + frame(1, 0, 1, Array(block.prefix(10))))
      let answer = socket.readToEnd()
      #expect(String(decoding: answer, as: UTF8.self).contains("a header block did not end in time"))
      #expect(socket.isClosed)
    }
  }

  @Test("half a body is answered deadline_exceeded and the handler never sees it") func halfBody() async throws {
    try await withServer(quick) { server in
      let socket = RawSocket(server.port)
      socket.write(preface + frame(1, 4, 1, request("Echo", "application/json")) + frame(0, 0, 1, Array("{\"a\"".utf8)))
      socket.write(Array(frame(6, 0, 0, Array(repeating: 0, count: 8))))
      var answer: [UInt8] = []
      var buffer = [UInt8](repeating: 0, count: 4096)
      while !String(decoding: answer, as: UTF8.self).contains("BODY_TIMEOUT") {
        let count = recv(socket.descriptor, &buffer, buffer.count, 0)
        if count <= 0 { break }
        answer += buffer[..<count]
      }
      #expect(String(decoding: answer, as: UTF8.self).contains("BODY_TIMEOUT"))
      #expect(server.witness.seen.requests == 0)
    }
  }

  @Test("rubbish gets a clean close", arguments: ["\u{16}\u{3}\u{1}\u{2}\u{0}", "GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/9"])
  func rubbish(text: String) async throws {
    try await withServer(quick) { server in
      let socket = RawSocket(server.port)
      socket.write(Array(text.utf8))
      let answer = String(decoding: socket.readToEnd(), as: UTF8.self)
      #expect(answer.hasPrefix("HTTP/1.1 400") && socket.isClosed)
    }
  }

  @Test("bad envelopes fail their call: compressed, end-of-stream from a client, too long, truncated", arguments: [
    ([1, 0, 0, 0, 1, 0x7B], "UNEXPECTED_COMPRESSION"), ([2, 0, 0, 0, 1, 0x7B], "BAD_ENVELOPE"),
    ([0, 0xFF, 0, 0, 0], "MESSAGE_TOO_LARGE"), ([0, 0, 0, 0, 9, 1], "TRUNCATED_ENVELOPE"),
  ] as [([UInt8], String)])
  func badEnvelopes(bytes: [UInt8], reason: String) async throws {
    try await withServer(quick) { server in
      let socket = RawSocket(server.port)
      socket.write(preface + frame(1, 4, 1, request("Chat", "application/connect+json")) + frame(0, 1, 1, bytes))
      socket.write(frame(7, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0]))
      let answer = String(decoding: socket.readToEnd(), as: UTF8.self)
      #expect(answer.contains(reason))
      #expect(server.witness.wait { $0.ended == [.badRequest] })
    }
  }

  @Test("a stream that does not read is cut at its limit; the connection goes on") func slowStream() async throws {
    var limits = RPCLimits()
    limits.streamOutputBytes = 2 << 20
    try await withServer(limits) { server in
      var windows = RPCClient.defaultLimits
      windows.streamWindow = 100_000
      let client = try RPCClient(.tcp(host: "127.0.0.1", port: server.port), limits: windows)
      let stream = try client.openStream("/test.v1.TestService/Flood")
      Array("{}".utf8).withUnsafeBytes { _ = client.send(stream, $0) }
      client.halfClose(stream)
      client.flush()
      #expect(server.witness.wait { $0.ended == [.outputLimit] })
      #expect(server.witness.seen.flooded <= 4 << 20)
      #expect(try client.call("/test.v1.TestService/Echo", json: "1").text == "1")
      client.close()
    }
  }

  @Test("a connection that does not read is cut at its limit, and closed") func slowConnection() async throws {
    var limits = RPCLimits()
    limits.connectionOutputBytes = 2 << 20
    try await withServer(limits) { server in
      let socket = RawSocket(server.port, receiveBuffer: 4096)
      // A window of 2^31-1 for streams and connection, so that only the socket holds the data back.
      socket.write(Array(preface.prefix(24)) + frame(4, 0, 0, [0, 4, 0x7F, 0xFF, 0xFF, 0xFF]))
      socket.write(frame(8, 0, 0, [0x7F, 0xFE, 0, 0]))
      socket.write(frame(1, 4, 1, request("Flood", "application/connect+json")) + frame(0, 1, 1, [0, 0, 0, 0, 2, 0x7B, 0x7D]))
      #expect(server.witness.wait { $0.ended == [.outputLimit] })
      #expect(server.witness.seen.flooded <= 16 << 20, "\(server.witness.seen.flooded) bytes were taken")
      #expect(!socket.readToEnd().isEmpty && socket.isClosed)
      let client = try server.client()
      #expect(try client.call("/test.v1.TestService/Echo", json: "1").text == "1")
    }
  }

  @Test("a stream that is cut while the socket is full inside one of its frames ends alone") func slowStreamFullSocket()
    async throws
  {
    var limits = RPCLimits()
    limits.streamOutputBytes = 2 << 20
    try await withServer(limits) { server in
      let socket = RawSocket(server.port, receiveBuffer: 4096)
      // As above: only the socket holds the data back, so the server stops in the middle of what the windows allow.
      socket.write(Array(preface.prefix(24)) + frame(4, 0, 0, [0, 4, 0x7F, 0xFF, 0xFF, 0xFF]))
      socket.write(frame(8, 0, 0, [0x7F, 0xFE, 0, 0]))
      socket.write(frame(1, 4, 1, request("Flood", "application/connect+json")) + frame(0, 1, 1, [0, 0, 0, 0, 2, 0x7B, 0x7D]))
      #expect(server.witness.wait { $0.ended == [.outputLimit] })
      // A second stream of the same connection is answered behind what the socket still holds.
      socket.write(frame(1, 4, 3, request("Echo", "application/json")) + frame(0, 1, 3, Array("[\"after\"]".utf8)))
      socket.write(frame(7, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0]))
      #expect(String(decoding: socket.readToEnd(), as: UTF8.self).contains("after"))
    }
  }

  @Test("output that waits too long cuts its call") func writeStall() async throws {
    try await withServer(quick) { server in
      var windows = RPCClient.defaultLimits
      windows.streamWindow = 1000
      let client = try RPCClient(.tcp(host: "127.0.0.1", port: server.port), limits: windows)
      let stream = try client.openStream("/test.v1.TestService/Chat")
      let large = [UInt8](repeating: 0x31, count: 100_000)
      large.withUnsafeBytes { _ = client.send(stream, $0) }
      client.flush()
      // The client reads nothing from now on, so its window stays shut.
      #expect(server.witness.wait { $0.ended == [.writeStall] || $0.ended == [.badRequest] })
    }
  }

  @Test("a client killed in the middle of a stream frees its call") func killed() async throws {
    try await withServer(RPCLimits()) { server in
      let process = Process()
      process.executableURL = URL(fileURLWithPath: "/usr/bin/curl")
      process.arguments = [
        "-sN", "--http2-prior-knowledge", "-H", "content-type: application/x-ndjson", "-T", "-", "-X", "POST",
        "http://127.0.0.1:\(server.port)/test.v1.TestService/Chat",
      ]
      let input = Pipe()
      process.standardInput = input
      process.standardOutput = Pipe()
      try process.run()
      input.fileHandleForWriting.write(Data("{}\n".utf8))
      #expect(server.witness.wait { $0.begun == 1 })
      kill(process.processIdentifier, SIGKILL)
      #expect(server.witness.wait { $0.ended == [.connectionLost] })
      process.waitUntilExit()
    }
  }
}
