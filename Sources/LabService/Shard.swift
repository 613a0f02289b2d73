// SPDX-License-Identifier: Apache-2.0
import HeapModule
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

/// The service on one event loop: the machines that belong to it, and the calls for them, whichever loop they came in on.
///
/// Everything is called on the loop's thread; a shard hands work to another one by `RPCLoop.post` alone, once per pass.
/// `@unchecked Sendable` says that and no more.
final class Shard: RPCHandler, @unchecked Sendable {
  let loop: RPCLoop
  let limits: ServiceLimits
  let fleet: Fleet
  /// All shards, by their loop's index. Set once, before the server starts.
  var peers: [Shard] = []

  private(set) var machines: [UInt128: MachineHost] = [:]
  /// The machine that a call named last: the calls for one machine come in runs.
  private var recent: MachineHost?
  /// Streams of this shard's machines.
  var streams: [CallID: StreamState] = [:]
  /// Streams of this loop's connections whose machine is another shard's.
  var routes: [CallID: Int] = [:]

  var answers: AnswerCache
  var desk: ReplyDesk
  var writer = WireWriter()
  var attachBatch = AttachBatch()
  /// Translation requests of the batch that stand together.
  var translations: [TranslationRequest] = []
  var deviceCall = DeviceCall()
  var pumps: [LogPump] = []
  var explanations: [ExplanationJob] = []

  /// The loop's clock, of this pass.
  private(set) var now: UInt64 = 0
  /// The pass began with a batch from another shard.
  private(set) var isForwarded = false
  private var touched: [MachineHost] = []
  private var forwards: [ForwardBatch?]
  private var endedRoutes: [[CallID]]
  private var wakes = Heap<Wake>()
  /// When leases and heartbeats must be looked at.
  private var sweepAt = UInt64.max
  private var armedAt = UInt64.max

  enum StreamState {
    case device(MachineHost, DevicePort)
    case trace(MachineHost)
    case subscriber(MachineHost, SubscriberPort)
  }

  private struct Wake: Comparable {
    var at: UInt64
    var machine: UInt128
    static func < (a: Wake, b: Wake) -> Bool { a.at < b.at }
  }

  init(loop: RPCLoop, loops: [RPCLoop], fleet: Fleet, limits: ServiceLimits) {
    self.loop = loop
    self.fleet = fleet
    self.limits = limits
    answers = AnswerCache(limit: limits.answersPerLoop)
    desk = ReplyDesk(loop: loop, loops: loops)
    forwards = Array(repeating: nil, count: loops.count)
    endedRoutes = Array(repeating: [], count: loops.count)
  }

  // MARK: - Passes

  func handle(_ batch: RPCBatch, on loop: RPCLoop) {
    begin(batch.now)
    for event in batch.events {
      guard let method = LabMethod(rawValue: UInt8(truncatingIfNeeded: event.method)) else { continue }
      switch event.kind {
      case .request: take(.request, event.call, method, event.codec, batch.message(event))
      case .begun: break
      case .message: take(.message, event.call, method, event.codec, batch.message(event))
      case .halfClosed: take(.halfClosed, event.call, method, event.codec)
      case .ended: take(.ended, event.call, method, event.codec, end: event.end)
      }
    }
    endPass()
  }

  func timer(now: UInt64, on loop: RPCLoop) {
    armedAt = .max
    begin(now)
    while let first = wakes.min, first.at <= now {
      wakes.removeMin()
      guard let host = machines[first.machine], host.scheduledWake == first.at else { continue }
      host.scheduledWake = .max
      touch(host)
    }
    if sweepAt <= now { sweep() }
    endPass()
  }

  func begin(_ now: UInt64, forwarded: Bool = false) {
    self.now = now
    isForwarded = forwarded
  }

  /// The pass has had its time.
  var isPassOver: Bool { loop.clock() &- now >= limits.passTime }

  /// The machine has a turn in this pass. Due turns come before what this pass brings.
  @inline(__always)
  func touch(_ host: MachineHost) {
    if host.isTouched { return }
    host.isTouched = true
    touched.append(host)
    _ = host.runDue(now)
  }

  /// Runs what is due, in turn over the machines of the pass, then sends everything.
  func endPass() {
    for host in touched {
      host.dispatch()
      let more = host.runDue(now)
      host.dispatch()
      let lags = flush(host)
      host.isTouched = false
      // Output leaves between two passes.
      if lags { wake(host, at: now &+ 1_000_000) }
      if more { wake(host, at: now) } else if let due = host.nextWake() { wake(host, at: due) }
    }
    touched.removeAll(keepingCapacity: true)
    if !pumps.isEmpty { pump() }
    if !explanations.isEmpty { explain() }
    for index in forwards.indices {
      if let batch = forwards[index] {
        forwards[index] = nil
        peers[index].loop.post(batch)
      }
      if !endedRoutes[index].isEmpty {
        peers[index].loop.post(RoutesEnded(target: peers[index], calls: endedRoutes[index]))
        endedRoutes[index] = []
      }
    }
    desk.flush()
    isForwarded = false
    arm()
  }

  private func wake(_ host: MachineHost, at time: UInt64) {
    guard time < host.scheduledWake else { return }
    host.scheduledWake = time
    wakes.insert(Wake(at: time, machine: host.id))
  }

  private func arm() {
    var time = min(wakes.min?.at ?? .max, sweepAt)
    if !pumps.isEmpty { time = min(time, now &+ 1_000_000) }
    if !explanations.isEmpty { time = min(time, now) }
    if time != armedAt {
      armedAt = time
      loop.arm(time)
    }
  }

  /// Asks for a look at leases and heartbeats at `time`.
  func sweep(at time: UInt64) { sweepAt = min(sweepAt, time) }

  /// Ends the presence of devices without a sign of life, and sends heartbeats.
  private func sweep() {
    sweepAt = .max
    for host in machines.values.sorted(by: { $0.order < $1.order }) {
      for case let port? in host.ports where !port.isGone {
        if let stream = port.stream {
          if stream.lastSentAt &+ limits.heartbeat <= now { heartbeat(host, port) }
          sweep(at: (port.stream?.lastSentAt ?? now) &+ limits.heartbeat)
        } else if port.leaseEnds <= now {
          touch(host)
          remove(host, port)
        } else {
          sweep(at: port.leaseEnds)
        }
      }
      sweepSubscribers(host)
      for index in host.trace.watchers.indices {
        if host.trace.watchers[index].lastSentAt &+ limits.heartbeat <= now { traceHeartbeat(host, index) }
        sweep(at: host.trace.watchers[index].lastSentAt &+ limits.heartbeat)
      }
    }
  }

  // MARK: - Where a machine is

  enum Location {
    case here(MachineHost)
    case elsewhere(Int)
    case nowhere
  }

  func add(_ host: MachineHost) { machines[host.id] = host }

  func remove(_ host: MachineHost) {
    machines[host.id] = nil
    recent = nil
  }

  /// The loop of a machine stands in its id.
  @inline(__always)
  func locate(_ id: UInt128) -> Location {
    if let recent, recent.id == id, recent.tenant == .default { return .here(recent) }
    let index = Int(truncatingIfNeeded: id & 0xff)
    if index == loop.index {
      guard let host = machines[id], host.tenant == .default else { return .nowhere }
      recent = host
      return .here(host)
    }
    return id != 0 && index < peers.count ? .elsewhere(index) : .nowhere
  }

  func forward(
    to index: Int, _ kind: ForwardBatch.Kind, _ call: CallID, _ method: LabMethod, _ codec: RPCCodec,
    end: RPCEnd = .none, _ bytes: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    if forwards[index] == nil { forwards[index] = ForwardBatch(target: peers[index]) }
    forwards[index]!.append(kind, call, method, codec, end: end, bytes)
  }

  // MARK: - Ends of streams

  /// Ends a stream of one of this shard's machines, well or with an error.
  func endStream(_ call: CallID, _ error: CallError?) {
    streams[call] = nil
    if let error { desk.fail(call, error) } else { desk.finish(call) }
    dropRoute(call)
  }

  /// Tells the loop of a foreign stream's connection that the stream is over.
  func dropRoute(_ call: CallID) {
    if call.loopIndex != loop.index { endedRoutes[call.loopIndex].append(call) }
  }

  // MARK: - Answers

  func answer(_ caller: Caller, _ message: any Message) {
    desk.send(caller.call, caller.codec, message)
    guard !caller.requestID.isEmpty else { return }
    for joined in answers.finish(caller.key, message) { desk.send(joined.call, joined.codec, message) }
  }

  func fail(_ caller: Caller, _ error: CallError) {
    desk.fail(caller.call, error)
    guard !caller.requestID.isEmpty else { return }
    for joined in answers.drop(caller.key) { desk.fail(joined.call, error) }
  }

  /// Whether a call with a `request_id` is a repeat, which is dealt with here. Otherwise it is the first of its kind.
  func isRepeat(_ caller: Caller) -> Bool {
    if caller.requestID.isEmpty { return false }
    let content = AnswerCache.Content(method: caller.method, digest: caller.digest)
    let first: AnswerCache.Content
    switch answers[caller.key] {
    case nil:
      if answers.begin(caller.key, content) { return false }
      desk.fail(
        caller.call,
        .service(
          .tooManyWaitingCalls, "\(limits.answersPerLoop) calls with a request_id wait for their answers already"))
      return true
    case .waiting(let waiting, _, _)?:
      first = waiting
      if first == content { answers.join(caller.key, caller) }
    case .answered(let answered, _, let message)?:
      first = answered
      if first == content { desk.send(caller.call, caller.codec, message) }
    }
    if first != content {
      let whose = first.method == caller.method ? "another request" : "a call of \(first.method.descriptor.name)"
      desk.fail(
        caller.call,
        .service(.requestIDInUse, "the request_id belongs to \(whose); choose another one", fields: ["requestId"]))
    }
    return true
  }
}

extension Caller {
  var key: AnswerCache.Key { AnswerCache.Key(tenant: tenant, machine: machine, requestID: requestID) }
}
