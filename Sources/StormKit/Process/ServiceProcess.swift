// SPDX-License-Identifier: Apache-2.0
import Foundation
import RPCClient

/// The service that a storm starts for itself, on a free loopback port.
final class ServiceProcess {
  let child: ChildProcess
  let address: String
  private var lastLines: [String] = []

  init(program: String) throws(StormFailure) {
    address = "127.0.0.1:\(try Self.freePort())"
    do {
      child = try ChildProcess(
        name: "service", program: program, arguments: ["serve", "--listen", address, "--until-stdin-ends"],
        capturesError: true)
    } catch {
      throw .broken("\(error)")
    }
    try waitUntilReady()
  }

  /// Reads what the service has said; it must not stand before a full pipe.
  func drain() {
    lastLines += child.lines()
    if lastLines.count > 20 { lastLines.removeFirst(lastLines.count - 20) }
  }

  /// Throws when the service is gone.
  func check() throws(StormFailure) {
    drain()
    guard child.hasEnded() else { return }
    throw .broken("the service ended with \(child.ending)\n" + lastLines.map { "  \($0)\n" }.joined())
  }

  func stop() {
    child.closeInput()
    child.signal(SIGTERM)
    while !child.outputEnded {
      waitForOutput([child], milliseconds: 1000)
      drain()
    }
    child.wait()
  }

  /// A port that nobody has now. The service may still find it taken, and then says so.
  private static func freePort() throws(StormFailure) -> UInt16 {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let code = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        bind(descriptor, address, length) == 0 ? getsockname(descriptor, address, &length) : -1
      }
    }
    guard code == 0 else { throw .broken("no free loopback port: \(String(cString: strerror(errno)))") }
    return UInt16(bigEndian: address.sin_port)
  }

  /// The service says when it listens, or ends; either shows in its output. Connecting is the proof.
  private func waitUntilReady() throws(StormFailure) {
    let deadline = monotonicNow() + 20_000_000_000
    while true {
      try check()
      if (try? LabClient(address)) != nil { return }
      guard monotonicNow() < deadline else {
        throw .unreachable("the service did not answer at \(address) within 20 s")
      }
      waitForOutput([child], milliseconds: 50)
    }
  }
}
