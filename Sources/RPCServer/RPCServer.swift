// SPDX-License-Identifier: Apache-2.0
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix

/// The RPC server: listeners, event loops, HTTP/2, the Connect protocol and NDJSON; no knowledge of any method.
///
/// **The seam to the service.** No generic, closure or existential crosses it per message.
///
/// - The service gives its methods as data (`[RPCMethod]`); a method's index is its number in every event.
/// - Per event loop there is one `RPCLoop` and one `RPCHandler` of the service, called only on that loop's thread. When a
///   read burst of a connection is over, `handle` gets one `RPCBatch`: trivial `RPCEvent`s, one run of bytes, and the time.
///   A unary or server-streaming method's request is one event, `request`; a bidirectional or client-streaming call is
///   `begun`, `message`…, `halfClosed`. `ended` says that a call is over without the handler's doing (deadline, reset, cut,
///   lost connection); it comes at most once, and only for a call that the handler has seen.
/// - Replies are calls of the loop, by `CallID`: `reply`/`send` (or `beginOutput` and `commitOutput`, to write in place),
///   `finish`, `fail`. They may come in `handle` or in any later pass; output leaves once, at the end of the pass. A reply
///   to a call that is over is refused and changes nothing, for a `CallID` is never used again.
/// - Work crosses loops in batches: `post` takes an `RPCWork` (or an `OutboundBatch` of replies) from any thread and wakes
///   the loop once, however much is posted. `arm` gives the loop's handler its one timer.
/// - Messages are bytes: JSON text or protobuf, by `event.codec`. Framing, limits, deadlines and slow readers are dealt
///   with here; back-pressure towards a client is `pause`, `resume` and `pendingOutput`.
public final class RPCServer: Sendable {
  public struct Configuration: Sendable {
    public var listeners: [ListenAddress]
    public var loopCount: Int
    public var limits = RPCLimits()
    /// Connections that the kernel keeps for us before they are accepted.
    public var backlog: Int32 = 1024

    public init(listeners: [ListenAddress], loopCount: Int = 1) {
      self.listeners = listeners
      self.loopCount = loopCount
    }
  }

  public let configuration: Configuration
  public let loops: [RPCLoop]
  private let group: MultiThreadedEventLoopGroup
  private let readiness: Readiness
  private let logger: Logger
  private let listening = NIOLockedValueBox<[any Channel]>([])

  public init(configuration: Configuration, methods: [RPCMethod], logger: Logger) {
    precondition(configuration.loopCount >= 1 && configuration.loopCount <= 255, "1 to 255 event loops")
    self.configuration = configuration
    self.logger = logger
    let readiness = Readiness()
    self.readiness = readiness
    group = MultiThreadedEventLoopGroup(numberOfThreads: configuration.loopCount)
    let table = MethodTable(methods)
    var index = -1
    loops = group.makeIterator().map { eventLoop in
      index += 1
      return RPCLoop(
        index: index, eventLoop: eventLoop, limits: configuration.limits, methods: table, readiness: readiness,
        logger: logger)
    }
  }

  /// Starts the handlers, each made on its loop's thread, then the listeners; returns where they listen, in the order of
  /// the configuration, with the real port for port 0. On an error nothing listens any more.
  public func start(_ makeHandler: @escaping @Sendable (RPCLoop) -> any RPCHandler) async throws -> [ListenAddress] {
    for loop in loops {
      try await loop.eventLoop.submit { loop.start(makeHandler(loop)) }.get()
    }
    var bound: [ListenAddress] = []
    do {
      for address in configuration.listeners {
        let channel = try await listen(address)
        listening.withLockedValue { $0.append(channel) }
        let actual = address.bound(to: channel.localAddress)
        logger.info("listening", metadata: ["address": "\(actual)"])
        bound.append(actual)
      }
    } catch {
      await closeListeners()
      throw error
    }
    return bound
  }

  private func listen(_ address: ListenAddress) async throws -> any Channel {
    let loops = loops
    let bootstrap = ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: configuration.backlog)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.writeBufferWaterMark, value: .init(low: 64 << 10, high: 256 << 10))
      .childChannelOption(
        .recvAllocator, value: AdaptiveRecvByteBufferAllocator(minimum: 2 << 10, initial: 4 << 10, maximum: 16 << 10)
      )
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let loop = loops.first { $0.eventLoop === channel.eventLoop }!
          try channel.pipeline.syncOperations.addHandler(RPCConnection(loop))
        }
      }
    switch address {
    case .tcp(let host, let port):
      return try await bootstrap.childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
        .bind(host: host, port: port).get()
    case .unix(let path):
      return try await bootstrap.bind(unixDomainSocketPath: path, cleanupExistingSocketFile: true).get()
    }
  }

  /// What `/readyz` says: nil is 200, a reason is 503 with that reason. A new server is "starting".
  public func setReadiness(_ reason: String?) { readiness.reason = reason }

  /// Ends the server gracefully: `/readyz` turns 503, listeners close, every connection gets a shutdown notice, then GOAWAY
  /// with its last stream; open calls go on for at most `grace`, then their connections are ended. Returns when the
  /// loops have stopped.
  public func shutdown(grace: Duration) async {
    readiness.reason = "draining"
    await closeListeners()
    let empty = EventLoopFuture.andAllComplete(
      loops.map { loop in loop.eventLoop.flatSubmit { loop.drain() } }, on: loops[0].eventLoop)
    let nanoseconds = grace.components.seconds * 1_000_000_000 + grace.components.attoseconds / 1_000_000_000
    let loops = loops
    let timer = loops[0].eventLoop.scheduleTask(in: .nanoseconds(nanoseconds)) {
      for loop in loops {
        loop.eventLoop.execute { loop.endConnections("the server's grace period is over") }
      }
    }
    try? await empty.get()
    timer.cancel()
    logger.info("drained")
    try? await group.shutdownGracefully()
  }

  private func closeListeners() async {
    let channels = listening.withLockedValue { channels in
      defer { channels = [] }
      return channels
    }
    for channel in channels { try? await channel.close().get() }
  }
}

/// Where a server listens: `HOST:PORT` or `unix:PATH`.
public enum ListenAddress: Sendable, Equatable, CustomStringConvertible {
  case tcp(host: String, port: Int)
  case unix(path: String)

  /// Nil when the text is neither form.
  public init?(_ text: String) {
    if text.hasPrefix("unix:") {
      let path = String(text.dropFirst(5))
      guard !path.isEmpty, path.utf8.count < 108 else { return nil }
      self = .unix(path: path)
      return
    }
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else { return nil }
    var host = String(text[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
    guard !host.isEmpty else { return nil }
    self = .tcp(host: host, port: Int(port))
  }

  public var description: String {
    switch self {
    case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    case .unix(let path): "unix:\(path)"
    }
  }

  fileprivate func bound(to address: SocketAddress?) -> ListenAddress {
    if case .tcp(let host, _) = self, let port = address?.port { return .tcp(host: host, port: port) }
    return self
  }
}

/// The server's answer to `/readyz`, shared by its loops.
final class Readiness: Sendable {
  private let box = NIOLockedValueBox<String?>("starting")

  var reason: String? {
    get { box.withLockedValue { $0 } }
    set { box.withLockedValue { $0 = newValue } }
  }
}
