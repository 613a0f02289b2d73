// SPDX-License-Identifier: Apache-2.0
import Foundation
import RPCClient

/// The service that a storm starts for itself, on a free loopback port. It ends when its input ends, and so with its
/// parent, however that ends.
final class ServiceProcess {
  let child: ChildProcess
  /// `HOST:PORT`, as the service said it.
  private(set) var address = ""
  private var lastLines: [String] = []

  init(program: String) throws(StormFailure) {
    do {
      child = try ChildProcess(
        name: "service", program: program, arguments: ["serve", "--listen", "127.0.0.1:0", "--until-stdin-ends"],
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
    while !child.outputEnded {
      waitForOutput([child], milliseconds: 1000)
      drain()
    }
    child.wait()
  }

  /// The service says where it listens.
  private func waitUntilReady() throws(StormFailure) {
    let deadline = monotonicNow() + 20_000_000_000
    while monotonicNow() < deadline {
      waitForOutput([child], milliseconds: 100)
      try check()
      if Interrupt.hasHappened { throw .interrupted }
      for line in lastLines where line.contains("ready on ") {
        address = line.split(separator: " ").last.map(String.init) ?? ""
        return
      }
    }
    throw .unreachable("the service was not ready within 20 s")
  }
}
