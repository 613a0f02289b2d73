// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import Logging
import RPCServer

/// The lab as a service: an `RPCServer` with the methods of the contract, and one shard of machines per event loop.
public final class LabServer: Sendable {
  private let server: RPCServer
  private let shards: [Shard]

  public init(configuration: RPCServer.Configuration, limits: ServiceLimits = ServiceLimits(), logger: Logger) {
    let server = RPCServer(configuration: configuration, methods: Self.methods, logger: logger)
    let fleet = Fleet(loopCount: server.loops.count, logger: logger)
    let shards = server.loops.map { Shard(loop: $0, loops: server.loops, fleet: fleet, limits: limits) }
    for shard in shards { shard.peers = shards }
    self.server = server
    self.shards = shards
  }

  /// The contract's methods; the index of each is its `LabMethod`'s raw value.
  static let methods: [RPCMethod] = LabMethod.allCases.map { method in
    let kind: RPCMethod.Kind =
      switch method.descriptor.kind {
      case .unary: .unary
      case .serverStream: .serverStream
      case .bidirectional: .bidi
      }
    return RPCMethod(method.path, kind, sideEffectFree: method.descriptor.sideEffectFree)
  }

  /// Listens, and is ready. Returns where, with the real ports.
  public func start() async throws -> [ListenAddress] {
    let shards = shards
    let addresses = try await server.start { loop in shards[loop.index] }
    server.setReadiness(nil)
    return addresses
  }

  /// Ends gracefully: not ready, no new connections, GOAWAY in two steps; streams are ended after the notice, and calls
  /// that wait get at most `grace`.
  public func shutdown(grace: Duration) async {
    let shards = shards
    let streams = Task {
      // Clients get a moment to see the notice before their streams end.
      try await Task.sleep(for: min(.milliseconds(200), grace))
      for shard in shards where !Task.isCancelled { shard.loop.post(StreamsEnd(target: shard)) }
    }
    await server.shutdown(grace: grace)
    streams.cancel()
  }
}

/// Every stream of a shard's machines ends with `SHUTTING_DOWN`.
private final class StreamsEnd: RPCWork, @unchecked Sendable {
  private let target: Shard
  init(target: Shard) { self.target = target }
  func run(on loop: RPCLoop, now: UInt64) {
    target.begin(now)
    for call in Array(target.streams.keys) {
      target.endStream(call, .service(.shuttingDown, "the service is shutting down; connect anew in a while"))
    }
    target.endPass()
  }
}
