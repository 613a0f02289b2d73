// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Dispatch
import Foundation
import LabService
import Logging
import RPCServer
import UnixSignals

/// `iommulab serve`: the service, until a signal ends it.
struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Host machines for devices anywhere on the network.",
    discussion: """
      Prints one line when it is ready, with the addresses that it really listens on. SIGTERM and SIGINT end it \
      gracefully: /readyz says no, clients get a GOAWAY, streams end, and calls that wait get --grace seconds; a second \
      signal ends it at once.
      """)

  @Option(help: ArgumentHelp("HOST:PORT or unix:PATH; port 0 takes a free one. Repeatable.", valueName: "address"))
  var listen: [String] = ["127.0.0.1:7460"]

  @Option(help: ArgumentHelp("Event loops, 1 to 64 (default: one for each processor).", valueName: "n"))
  var loops: Int?

  @Option(help: ArgumentHelp("Seconds for calls that wait when the service ends.", valueName: "seconds"))
  var grace: Double = 5

  @Flag(help: "Listen beyond loopback although the service asks nobody for a token.")
  var insecure = false

  @Flag(help: "Print the ready line as JSON.")
  var json = false

  @Option(help: ArgumentHelp("trace, debug, info, notice, warning, error or critical.", valueName: "level"))
  var logLevel = "warning"

  @Flag(help: "End, as by SIGTERM, when standard input ends: for parents that must not leave a service behind.")
  var untilStdinEnds = false

  mutating func validate() throws {
    if let loops, !(1...64).contains(loops) { throw ValidationError("--loops must be 1 to 64") }
    guard grace >= 0, grace <= 3600 else { throw ValidationError("--grace must be 0 to 3600 seconds") }
    guard Logger.Level(rawValue: logLevel) != nil else { throw ValidationError("--log-level knows no \(logLevel)") }
    for address in try addresses() where !address.isLoopback && !insecure {
      throw ValidationError(
        "\(address) is beyond loopback, and whoever reaches it may do anything. Listen on 127.0.0.1, or add --insecure."
      )
    }
  }

  private func addresses() throws -> [ListenAddress] {
    try listen.map { text in
      guard let address = ListenAddress(text) else {
        throw ValidationError("--listen \(text): neither HOST:PORT nor unix:PATH")
      }
      return address
    }
  }

  func run() throws {
    raiseFileLimit()
    Task.detached {
      do {
        try await serve()
      } catch {
        Self.exit(withError: error)
      }
    }
    // Not `dispatchMain`, which ends the main thread: callgrind does not survive that.
    DispatchSemaphore(value: 0).wait()
  }

  private func serve() async throws {
    var logger = Logger(label: "iommulab") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = Logger.Level(rawValue: logLevel)!
    let signals = await UnixSignalsSequence(trapping: .sigterm, .sigint)
    let count = loops ?? min(64, max(1, ProcessInfo.processInfo.activeProcessorCount))
    let server = LabServer(
      configuration: RPCServer.Configuration(listeners: try addresses(), loopCount: count), logger: logger)
    let bound: [ListenAddress]
    do {
      bound = try await server.start()
    } catch {
      FileHandle.standardError.write(Data("iommulab: cannot listen: \(error)\n".utf8))
      throw ExitCode(1)
    }
    announce(bound, count)
    if untilStdinEnds { Self.endWithInput() }
    var stopping: Task<Void, Never>?
    let grace = Duration.milliseconds(Int64(grace * 1000))
    for await _ in signals {
      // The second signal: now.
      if stopping != nil { _exit(1) }
      stopping = Task {
        await server.shutdown(grace: grace)
        _exit(0)
      }
    }
  }

  private static func endWithInput() {
    Thread.detachNewThread {
      while readLine() != nil {}
      kill(getpid(), SIGTERM)
    }
  }

  private func announce(_ addresses: [ListenAddress], _ loops: Int) {
    let list = addresses.map(\.description)
    let line =
      json
      ? "{\"ready\":true,\"listen\":[\(list.map { "\"\($0)\"" }.joined(separator: ","))],\"loops\":\(loops),\"pid\":\(getpid())}"
      : "iommulab is ready on \(list.joined(separator: " "))"
    FileHandle.standardOutput.write(Data((line + "\n").utf8))
  }

  /// A connection is a file: as many as the system lets us have.
  private func raiseFileLimit() {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
    limit.rlim_cur = limit.rlim_max
    _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }
}

extension ListenAddress {
  /// Whether only this host reaches it.
  fileprivate var isLoopback: Bool {
    switch self {
    case .unix: true
    case .tcp(let host, _): host == "localhost" || host == "::1" || host.hasPrefix("127.")
    }
  }
}
