// SPDX-License-Identifier: Apache-2.0
import Foundation
import Logging
import NIOConcurrencyHelpers
import RPCClient
import RPCServer

/// The methods of the service under test, in the order of its table.
enum TestMethod: UInt16 {
  case echo, count, chat, hang, flood, elsewhere, refuse, collect

  static let table = [
    RPCMethod("/test.v1.TestService/Echo", .unary, sideEffectFree: true),
    RPCMethod("/test.v1.TestService/Count", .serverStream, sideEffectFree: true),
    RPCMethod("/test.v1.TestService/Chat", .bidi),
    RPCMethod("/test.v1.TestService/Hang", .unary),
    RPCMethod("/test.v1.TestService/Flood", .serverStream),
    RPCMethod("/test.v1.TestService/Elsewhere", .unary),
    RPCMethod("/test.v1.TestService/Refuse", .serverStream),
    RPCMethod("/test.v1.TestService/Collect", .clientStream),
  ]
}

/// What the handlers saw, for the tests to ask.
final class Witness: Sendable {
  struct Seen {
    var ended: [RPCEnd] = []
    var requests = 0
    var begun = 0
    var flooded = 0
    var lateReplies: [Bool] = []
  }
  private let box = NIOLockedValueBox(Seen())
  var seen: Seen { box.withLockedValue { $0 } }
  func note(_ change: (inout Seen) -> Void) { box.withLockedValue(change) }

  /// Waits until `condition` holds, for at most ten seconds, looking again whenever the scheduler gives us a turn.
  func wait(_ condition: (Seen) -> Bool) -> Bool {
    let end = monotonicNow() + 10_000_000_000
    while monotonicNow() < end {
      if condition(seen) { return true }
      sched_yield()
    }
    return false
  }
}

final class TestHandler: RPCHandler {
  private let witness: Witness
  private let others: @Sendable () -> [RPCLoop]
  private var hanging: [CallID] = []
  private var flooded: CallID?
  private var collected: [CallID: Int] = [:]

  init(_ witness: Witness, _ others: @escaping @Sendable () -> [RPCLoop]) {
    self.witness = witness
    self.others = others
  }

  func handle(_ batch: RPCBatch, on loop: RPCLoop) {
    for event in batch.events {
      switch event.kind {
      case .request:
        witness.note { $0.requests += 1 }
        request(event, batch.message(event), loop)
      case .begun:
        witness.note { $0.begun += 1 }
        collected[event.call] = 0
      case .message:
        collected[event.call]! += 1
        if event.method == TestMethod.chat.rawValue { loop.send(event.call, batch.message(event)) }
      case .halfClosed:
        if event.method == TestMethod.collect.rawValue { send(loop, event.call, "{\"n\":\(collected[event.call]!)}") }
        loop.finish(event.call)
      case .ended:
        if event.call == flooded { flooded = nil }
        let late = loop.send(event.call, batch.message(event))
        witness.note {
          $0.ended.append(event.end)
          $0.lateReplies.append(late)
        }
      }
    }
  }

  private func request(_ event: RPCEvent, _ message: UnsafeRawBufferPointer, _ loop: RPCLoop) {
    switch TestMethod(rawValue: event.method)! {
    case .echo: loop.reply(event.call, message)
    case .count:
      let digits = message.filter { $0 >= 48 && $0 <= 57 }
      let count = Int(String(decoding: digits, as: UTF8.self)) ?? 0
      for number in 0..<count { send(loop, event.call, "{\"i\":\(number)}") }
      loop.finish(event.call)
    case .hang: hanging.append(event.call)
    case .flood:
      flooded = event.call
      loop.arm(0)
    case .elsewhere:
      let home = loop.index
      let other = others().last!
      other.post(AnswerFrom(event.call, others()[home]))
    case .refuse:
      send(loop, event.call, "{\"i\":0}")
      loop.fail(event.call, RPCError(.outOfRange, "too_far", "i is \"too\" far", fields: ["i", "j"]))
    case .chat, .collect: break
    }
  }

  private func send(_ loop: RPCLoop, _ call: CallID, _ text: String) {
    var text = text
    text.withUTF8 { _ = loop.send(call, UnsafeRawBufferPointer($0)) }
  }

  /// Sends a mebibyte per pass for as long as the call takes it.
  func timer(now: UInt64, on loop: RPCLoop) {
    guard let call = flooded else { return }
    let piece = [UInt8](repeating: UInt8(ascii: "1"), count: 64 << 10)
    for _ in 0..<16 {
      guard piece.withUnsafeBytes({ loop.send(call, $0) }) else { return }
    }
    witness.note { $0.flooded += 1 << 20 }
    loop.arm(0)
  }
}

/// Answers a call of one loop from the thread of another.
final class AnswerFrom: RPCWork {
  private let call: CallID
  private let home: RPCLoop
  init(_ call: CallID, _ home: RPCLoop) {
    self.call = call
    self.home = home
  }
  func run(on loop: RPCLoop, now: UInt64) {
    let batch = home.takeBatch()
    Array("{\"loop\":\(loop.index)}".utf8).withUnsafeBytes { batch.send(call, $0) }
    home.post(batch)
  }
}

/// A running server for one test.
final class TestServer: Sendable {
  let witness = Witness()
  let server: RPCServer
  let port: UInt16
  let socketPath: String

  init(loops: Int = 1, limits: RPCLimits = RPCLimits()) async throws {
    socketPath = "/tmp/iommulab-test-\(getpid())-\(UInt64.random(in: 0 ... .max)).sock"
    let configuration = RPCServer.Configuration(
      listeners: [.tcp(host: "127.0.0.1", port: 0), .unix(path: socketPath)], loopCount: loops)
    var changed = configuration
    changed.limits = limits
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    let server = RPCServer(configuration: changed, methods: TestMethod.table, logger: logger)
    self.server = server
    let witness = witness
    let bound = try await server.start { _ in TestHandler(witness) { server.loops } }
    guard case .tcp(_, let port) = bound[0] else { fatalError("no TCP listener") }
    self.port = UInt16(port)
    server.setReadiness(nil)
  }

  func client() throws -> RPCClient { try RPCClient(.tcp(host: "127.0.0.1", port: port)) }
  func stop(grace: Duration = .seconds(1)) async {
    await server.shutdown(grace: grace)
    unlink(socketPath)
  }

  /// Runs the real curl; `%` in an argument stands for the server's URL.
  func curl(_ arguments: String..., input: String = "") throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/curl")
    process.arguments =
      ["-sS", "-m", "20"] + arguments.map { $0.replacingOccurrences(of: "%", with: "http://127.0.0.1:\(port)") }
    let (output, source) = (Pipe(), Pipe())
    process.standardOutput = output
    process.standardError = output
    process.standardInput = source
    try process.run()
    source.fileHandleForWriting.write(Data(input.utf8))
    try source.fileHandleForWriting.close()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return String(decoding: data, as: UTF8.self)
  }
}

/// A plain socket, for what no client library would send.
final class RawSocket {
  let descriptor: Int32

  init(_ port: UInt16, receiveBuffer: Int32? = nil) {
    descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    if var size = receiveBuffer {
      setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
    }
    var time = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let code = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, length) }
    }
    precondition(code == 0, "connect: \(errno)")
  }

  deinit { close(descriptor) }

  func write(_ bytes: [UInt8]) { _ = bytes.withUnsafeBytes { send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) } }

  /// The peer has closed the connection, as `readToEnd` saw it.
  private(set) var isClosed = false

  /// Everything until the peer closes, or until nothing has come for ten seconds; `isClosed` tells which.
  func readToEnd() -> [UInt8] {
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = recv(descriptor, &buffer, buffer.count, 0)
      if count <= 0 {
        isClosed = count == 0 || errno == ECONNRESET
        return all
      }
      all += buffer[..<count]
    }
  }
}
