// SPDX-License-Identifier: Apache-2.0
import Glibc
import LabService
import Logging
import RPCServer

/// The service for instruction counting: what `iommulab serve --json` starts, on one loop, with a main thread that
/// waits for SIGTERM itself. (An asynchronous main ends its thread in `dispatchMain`, and callgrind 3.19 crashes there.)
enum CountedService {
  static func run() {
    var mask = sigset_t()
    sigemptyset(&mask)
    sigaddset(&mask, SIGTERM)
    pthread_sigmask(SIG_BLOCK, &mask, nil)
    Task { await start() }
    var received: Int32 = 0
    sigwait(&mask, &received)
    exit(0)
  }

  private static func start() async {
    guard let address = ListenAddress("127.0.0.1:0") else { fatalError("a loopback address is an address") }
    var logger = Logger(label: "iommulab") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = .warning
    let server = LabServer(
      configuration: RPCServer.Configuration(listeners: [address], loopCount: 1), logger: logger)
    do {
      let bound = try await server.start()
      let line = "{\"listen\":[\"\(bound[0])\"]}\n"
      _ = line.withCString { write(1, $0, strlen($0)) }
    } catch {
      fatalError("cannot listen: \(error)")
    }
  }
}
