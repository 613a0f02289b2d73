// SPDX-License-Identifier: Apache-2.0
import HTTP2Session
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// One event loop of the server: its connections, its calls, its handler.
///
/// Everything here is called on the loop's thread, except `post`, which any thread may call. `@unchecked Sendable` says
/// that and no more: references travel, state does not.
public final class RPCLoop: @unchecked Sendable {
  /// Index in `RPCServer.loops`.
  public let index: Int
  public let eventLoop: any EventLoop
  public let limits: RPCLimits

  let http: HTTP2Context
  let methods: MethodTable
  let responses = Responses()
  let readiness: Readiness
  let logger: Logger
  private var handler: (any RPCHandler)!

  var calls = CallTable()
  var events = EventList<RPCEvent>(capacity: 256)
  private var delivered = EventList<RPCEvent>(capacity: 256)
  var deadlines = DeadlineQueue()
  /// The loop's clock, sampled once per pass, in nanoseconds (CLOCK_MONOTONIC).
  public internal(set) var now: UInt64

  private(set) var connections: [RPCConnection] = []
  private var touched: [RPCConnection] = []
  private var inPass = false
  var writeBuffer: ByteBuffer

  private var timerAt = UInt64.max
  private var wakeAt = UInt64.max
  private var wake: Scheduled<Void>?
  private var isWoken = false
  /// When the first of the passes began that have followed one another without a look at the sockets.
  private var busySince: UInt64?
  private var sweptAt: UInt64 = 0
  private let sweepInterval: UInt64

  private let mailbox = NIOLockedValueBox<[any RPCWork]>([])
  private let spareBatches = NIOLockedValueBox<[OutboundBatch]>([])
  private(set) var isDraining = false
  private var whenEmpty: [EventLoopPromise<Void>] = []

  init(
    index: Int, eventLoop: any EventLoop, limits: RPCLimits, methods: MethodTable, readiness: Readiness, logger: Logger
  ) {
    self.index = index
    self.eventLoop = eventLoop
    self.limits = limits
    self.methods = methods
    self.readiness = readiness
    self.logger = logger
    http = HTTP2Context(role: .server, limits: limits.http2)
    writeBuffer = ByteBufferAllocator().buffer(capacity: 16 << 10)
    now = NIODeadline.now().uptimeNanoseconds
    let shortest = min(limits.writeStall, limits.preface, limits.headerBlock, limits.body)
    sweepInterval = min(max(shortest / 4, 10_000_000), 1_000_000_000)
  }

  deinit {
    events.destroy()
    delivered.destroy()
  }

  func start(_ handler: any RPCHandler) { self.handler = handler }

  // MARK: - Passes

  func readClock() { now = NIODeadline.now().uptimeNanoseconds }

  /// A read burst of one connection is over: its events become calls and messages, the handler acts, output leaves.
  func readCompleted(_ connection: RPCConnection) {
    readClock()
    busySince = nil
    let nested = inPass
    inPass = true
    collect(connection)
    deliver()
    connection.session.endBatch()
    touch(connection)
    inPass = nested
    if !nested { settle() }
  }

  /// Hands waiting events to the handler and flushes touched connections, until nothing is left of either.
  func settle() {
    if inPass { return }
    inPass = true
    repeat {
      deliver()
      flushTouched()
    } while events.count > 0 || !touched.isEmpty
    inPass = false
    if let at = deadlines.earliest { wake(at: at) }
  }

  private func deliver() {
    while events.count > 0 {
      swap(&events, &delivered)
      handler.handle(RPCBatch(now: now, events: delivered.elements, storage: http.storage), on: self)
      delivered.removeAll()
    }
  }

  func touch(_ connection: RPCConnection) {
    if connection.isTouched { return }
    connection.isTouched = true
    touched.append(connection)
  }

  private func flushTouched() {
    while let connection = touched.popLast() {
      connection.isTouched = false
      connection.flush()
    }
  }

  // MARK: - Work from elsewhere

  /// Gives the loop work from any thread; it runs in a later pass, with the output of all work of that pass leaving
  /// together. However much is posted before the loop turns to it, it is woken once.
  public func post(_ work: any RPCWork) {
    let isFirst = mailbox.withLockedValue { box in
      box.append(work)
      return box.count == 1
    }
    if isFirst { eventLoop.execute { self.runMail() } }
  }

  private func runMail() {
    let mail = mailbox.withLockedValue { box in
      let mail = box
      box.removeAll(keepingCapacity: true)
      return mail
    }
    readClock()
    for work in mail { work.run(on: self, now: now) }
    settle()
  }

  /// An empty batch for replies to calls of this loop, filled on any thread and given back with `post`.
  public func takeBatch() -> OutboundBatch {
    spareBatches.withLockedValue { $0.popLast() } ?? OutboundBatch()
  }

  func putBatch(_ batch: OutboundBatch) {
    spareBatches.withLockedValue { if $0.count < 64 { $0.append(batch) } }
  }

  // MARK: - Time

  /// Asks for one call of `RPCHandler.timer` at `time` of the loop's clock (nanoseconds; `.max` takes the wish back; a time
  /// that has come means "soon, after output has left"). There is one such wish per loop, and the latest counts.
  public func arm(_ time: UInt64) {
    timerAt = time
    if time != .max { wake(at: time) }
  }

  /// What the clock shows now, within a pass.
  public func clock() -> UInt64 { NIODeadline.now().uptimeNanoseconds }

  private func wake(at time: UInt64) {
    guard time < wakeAt else { return }
    wakeAt = time
    // A pass of the timer schedules once, at its end.
    if !isWoken { schedule() }
  }

  private func schedule() {
    wake?.cancel()
    wake = nil
    if wakeAt <= now {
      eventLoop.execute { self.woken() }
    } else if wakeAt != .max {
      wake = eventLoop.scheduleTask(deadline: .uptimeNanoseconds(wakeAt)) { self.woken() }
    }
  }

  private func woken() {
    readClock()
    guard wakeAt <= now else { return }
    wakeAt = .max
    wake = nil
    isWoken = true
    while let call = deadlines.popDue(now) { deadlinePassed(call) }
    if !connections.isEmpty, now &- sweptAt >= sweepInterval { sweep() }
    if timerAt <= now {
      timerAt = .max
      handler.timer(now: now, on: self)
    }
    settle()
    if timerAt != .max { wake(at: timerAt) }
    if !connections.isEmpty { wake(at: sweptAt + sweepInterval) }
    isWoken = false
    letSocketsIn()
    schedule()
  }

  /// The event loop runs whatever is due before it looks at its sockets. After a while of passes that each found the next
  /// one due, the next one is put off until it has looked.
  private func letSocketsIn() {
    let end = clock()
    let since = busySince ?? now
    if wakeAt > end &+ Self.reach {
      busySince = nil
    } else if end &- since >= limits.busyTime {
      busySince = nil
      wakeAt = end &+ Self.reach
    } else {
      busySince = since
    }
  }
  /// From the end of a pass to the moment at which the event loop asks what is due.
  private static let reach: UInt64 = 20_000

  /// Ends what takes too long. Runs a few times within the shortest of the times, never per request.
  private func sweep() {
    sweptAt = now
    for connection in connections { connection.checkTimes() }
  }

  // MARK: - Connections

  func add(_ connection: RPCConnection) -> Bool {
    guard connections.count < limits.connectionsPerLoop else {
      logger.warning("connection refused", metadata: ["reason": "connection limit", "limit": "\(connections.count)"])
      return false
    }
    if connections.isEmpty { sweptAt = now }
    connection.index = connections.count
    connections.append(connection)
    wake(at: sweptAt + sweepInterval)
    return true
  }

  func remove(_ connection: RPCConnection) {
    guard connection.index >= 0 else { return }
    let last = connections.removeLast()
    if last !== connection {
      connections[connection.index] = last
      last.index = connection.index
    }
    connection.index = -1
    if connections.isEmpty {
      for promise in whenEmpty { promise.succeed() }
      whenEmpty = []
    }
  }

  /// First step of the drain on every connection; the future succeeds when the last one is closed.
  func drain() -> EventLoopFuture<Void> {
    let promise = eventLoop.makePromise(of: Void.self)
    readClock()
    isDraining = true
    if connections.isEmpty {
      promise.succeed()
    } else {
      whenEmpty.append(promise)
      for connection in connections { connection.drain() }
      settle()
    }
    return promise.futureResult
  }

  /// The grace period is over: every connection gets its last GOAWAY and is closed.
  func endConnections(_ reason: String) {
    readClock()
    for connection in connections { connection.end(.noError, reason) }
    settle()
  }
}
