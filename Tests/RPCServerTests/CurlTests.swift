// SPDX-License-Identifier: Apache-2.0
// Goal: what people type works, and what they type wrong is explained. Method: the real curl.
import RPCServer
import Testing

@Suite(.serialized) struct CurlTests {
  private let h2 = "--http2-prior-knowledge"
  private let json = "content-type: application/json"

  private func withServer(_ body: (TestServer) throws -> Void) async throws {
    let server = try await TestServer()
    do { try body(server) } catch {
      await server.stop()
      throw error
    }
    await server.stop()
  }

  @Test("POST and GET of a unary method answer 200 with the message") func unary() async throws {
    try await withServer { server in
      let url = "%/test.v1.TestService/Echo"
      let post = try server.curl(h2, "-i", "-H", json, "-d", "{\"a\":1}", url)
      #expect(post.hasPrefix("HTTP/2 200") && post.hasSuffix("{\"a\":1}"))
      #expect(post.contains("content-type: application/json"))
      #expect(try server.curl(h2, "-G", "--data-urlencode", "message={\"a\": 2}", url + "?encoding=json") == "{\"a\": 2}")
      #expect(try server.curl(h2, url + "?encoding=json&message=5&unknown=1") == "5")
      #expect(try server.curl(h2, url + "?encoding=json&base64=1&message=eyJhIjozfQ") == "{\"a\":3}")
    }
  }

  @Test("curl -N shows each message of a server stream as a line") func ndjson() async throws {
    try await withServer { server in
      let url = "%/test.v1.TestService/Count"
      let lines = "{\"i\":0}\n{\"i\":1}\n{\"i\":2}\n"
      let accept = "accept: application/x-ndjson"
      #expect(try server.curl(h2, "-N", "-H", json, "-H", accept, "-d", "{\"n\":3}", url) == lines)
      #expect(try server.curl(h2, "-N", "-H", "content-type: application/x-ndjson", "-d", "{\"n\":3}", url) == lines)
      let refused = try server.curl(h2, "-i", "-H", json, "-d", "{\"n\":3}", url)
      #expect(refused.hasPrefix("HTTP/2 415") && refused.contains("accept: application/x-ndjson"))
    }
  }

  @Test("a bidirectional method takes lines and gives lines; the last needs no newline") func bidiLines() async throws {
    try await withServer { server in
      let answer = try server.curl(
        h2, "-N", "-H", "content-type: application/x-ndjson", "--data-binary", "@-", "%/test.v1.TestService/Chat",
        input: "{\"l\":1}\r\n\n{\"l\":2}\n{\"l\":3}")
      #expect(answer == "{\"l\":1}\n{\"l\":2}\n{\"l\":3}\n")
    }
  }

  @Test("a failing NDJSON stream ends with a line that holds the error") func ndjsonError() async throws {
    try await withServer { server in
      let answer = try server.curl(
        h2, "-N", "-H", "content-type: application/x-ndjson", "-d", "{}", "%/test.v1.TestService/Refuse")
      #expect(answer.hasPrefix("{\"i\":0}\n{\"error\":{\"code\":\"out_of_range\""))
    }
  }

  @Test("an unknown path is 404, a wrong verb 405, a wrong content type 415, an unknown compression 501, each with a reason")
  func refusals() async throws {
    try await withServer { server in
      let url = "%/test.v1.TestService/Echo"
      let unknown = try server.curl(h2, "-i", "-H", json, "-d", "{}", "%/test.v1.TestService/Nothing")
      #expect(unknown.hasPrefix("HTTP/2 404") && unknown.contains("\"code\":\"unimplemented\""))
      #expect(unknown.contains("\"reason\":\"UNKNOWN_METHOD\""))
      let verb = try server.curl(h2, "-i", "-X", "PUT", "-H", json, "-d", "{}", url)
      #expect(verb.hasPrefix("HTTP/2 405") && verb.contains("allow: POST"))
      #expect(try server.curl(h2, "-i", "%/test.v1.TestService/Hang?encoding=json&message=1").hasPrefix("HTTP/2 405"))
      let type = try server.curl(h2, "-i", "-H", "content-type: text/plain", "-d", "{}", url)
      #expect(type.hasPrefix("HTTP/2 415") && type.contains("application/json"))
      let gzip = try server.curl(h2, "-i", "-H", json, "-H", "content-encoding: gzip", "-d", "{}", url)
      #expect(gzip.hasPrefix("HTTP/2 501") && gzip.contains("supported encodings: identity"))
      let timeout = try server.curl(h2, "-i", "-H", json, "-H", "connect-timeout-ms: soon", "-d", "{}", url)
      #expect(timeout.hasPrefix("HTTP/2 400") && timeout.contains("BAD_TIMEOUT"))
      #expect(server.witness.seen.requests == 0)
    }
  }

  @Test("curl shows the error of a body that is far too large") func oversized() async throws {
    try await withServer { server in
      let answer = try server.curl(
        h2, "-i", "-H", json, "--data-binary", "@-", "%/test.v1.TestService/Echo",
        input: String(repeating: "x", count: 3 << 20))
      #expect(answer.hasPrefix("HTTP/2 429") && answer.contains("MESSAGE_TOO_LARGE"))
    }
  }

  @Test("/healthz is 200; /readyz tells why not") func health() async throws {
    try await withServer { server in
      #expect(try server.curl(h2, "-i", "%/healthz").hasPrefix("HTTP/2 200"))
      #expect(try server.curl(h2, "%/readyz") == "ready\n")
      server.server.setReadiness("the store is read-only")
      let refused = try server.curl(h2, "-i", "%/readyz")
      #expect(refused.hasPrefix("HTTP/2 503") && refused.hasSuffix("not ready: the store is read-only\n"))
    }
  }

  @Test("plain HTTP/1.1 gets one line that names the right flag", arguments: ["--http1.1", "--http2"])
  func http1(flag: String) async throws {
    try await withServer { server in
      let answer = try server.curl(flag, "-i", "-H", json, "-d", "{}", "%/test.v1.TestService/Echo")
      #expect(answer.hasPrefix("HTTP/1.1 400") && answer.contains("--http2-prior-knowledge"))
    }
  }
}
