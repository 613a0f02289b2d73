// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer

/// A machine with its clock, its log, and what the service keeps about it. Belongs to one shard and its loop.
final class MachineHost {
  enum Pacing {
    /// Machine time is the loop's clock since `origin`.
    case wall(origin: UInt64)
    /// Machine time moves by `Advance` alone.
    case manual
  }

  let id: UInt128
  /// The id's text.
  let text: String
  let tenant: Tenant
  /// Place in the order of creation.
  let order: UInt64
  let pacing: Pacing
  unowned let shard: Shard

  var machine: Machine
  /// What turns did and nobody was told yet; the counters add up over the machine's life.
  var effects = Effects()
  /// Effects that the trace has.
  private var tracedCount = 0
  /// Machine time of a MANUAL machine.
  private(set) var clock: Nanoseconds = 0

  var ports: [DevicePort?] = []
  var touchedPorts: [DevicePort] = []
  var subscribers: [SubscriberPort?] = []
  var touchedSubscribers: [SubscriberPort] = []
  /// Pages of a mirror's fault whose operation returns in the same turn.
  private var faultAnswer: RangeFaultAnswer?
  var operations: OperationBook
  var verdicts: VerdictBook
  var trace: TraceBook
  var figures = MachineFigures()
  var log: MachineLog?

  var isTouched = false
  /// When the loop will turn to the machine by itself; service's clock.
  var scheduledWake = UInt64.max

  init(
    id: UInt128, order: UInt64, tenant: Tenant, settings: Settings, pacing: Pacing, records: Bool, shard: Shard
  ) {
    self.id = id
    text = ObjectID.text(.machine, id)
    self.order = order
    self.tenant = tenant
    self.pacing = pacing
    self.shard = shard
    machine = Machine(settings: settings)
    operations = OperationBook(limit: shard.limits.finishedOperations)
    verdicts = VerdictBook(limit: shard.limits.verdictsPerKind)
    trace = TraceBook(limit: shard.limits.traceHistory)
    if records { log = MachineLog(settings: settings, limit: shard.limits.logBytes) }
  }

  // MARK: - Time

  /// Machine time at this time of the loop's clock.
  @inline(__always)
  func time(_ now: UInt64) -> Nanoseconds {
    switch pacing {
    case .wall(let origin): max(machine.time, now &- origin)
    case .manual: clock
    }
  }

  /// When the next turn of a WALL machine is due, in the loop's clock.
  func nextWake() -> UInt64? {
    guard case .wall(let origin) = pacing, let due = machine.nextDue() else { return nil }
    return origin &+ due
  }

  // MARK: - Turns

  /// Performs one command as one turn. Its effects wait for `dispatch`.
  @inline(__always)
  func perform(_ command: Command, _ now: UInt64) throws(CallError) -> Reply {
    let count = effects.list.count
    let reply: Reply
    do throws(Refusal) {
      reply = try machine.apply(command, at: time(now), into: &effects)
    } catch {
      effects.list.removeSubrange(count...)
      throw .refusal(error)
    }
    if log != nil { log!.append(command, reply, at: machine.time) }
    if trace.isKept { noteTrace() }
    return reply
  }

  /// Performs translation requests of one device, each as one turn, as `perform` would one after the other.
  /// - Returns: how many; the next one would be refused.
  @inline(__always)
  func translate(_ device: DeviceID, _ requests: [TranslationRequest], _ now: UInt64) -> Int {
    let count = machine.translate(device, requests.span, at: time(now), into: &effects)
    if log != nil {
      for request in requests[..<count] { log!.append(.translate(device, request), .none, at: machine.time) }
    }
    if trace.isKept { noteTrace() }
    return count
  }

  /// Performs due turns of a WALL machine, at most those of a pass.
  /// - Returns: whether more are due.
  @inline(__always)
  func runDue(_ now: UInt64) -> Bool {
    guard case .wall = pacing else { return false }
    let end = time(now)
    var count = 0
    while let due = machine.nextDue(), due <= end {
      if count == shard.limits.turnsPerPass { return true }
      if count > 0, count % shard.limits.turnsPerShare == 0, shard.isPassOver { return true }
      turn(at: due)
      count += 1
    }
    return false
  }

  /// Performs turns of a MANUAL machine that are due until `end`, each at its due time, at most `limit`.
  /// - Returns: turns performed.
  func advance(until end: Nanoseconds?, limit: Int) -> Int {
    var count = 0
    while count < limit, let due = machine.nextDue(), due <= end ?? .max {
      turn(at: due)
      count += 1
    }
    let rest = machine.nextDue()
    if let end, rest == nil || rest! > end { clock = end } else { clock = max(clock, machine.time) }
    return count
  }

  private func turn(at due: Nanoseconds) {
    guard let sequence = machine.applyNext(at: due, into: &effects) else { return }
    if log != nil { log!.append(pending: sequence, at: machine.time) }
    if trace.isKept { noteTrace() }
    if effects.list.count >= 128 { dispatch() }
  }

  private func noteTrace() {
    for index in tracedCount..<effects.list.count { trace.append(machine.time, effects.list[index], effects) }
    tracedCount = effects.list.count
  }

  // MARK: - Effects

  /// Takes out what the machine ignored of a device just now, for a caller that is told of it directly. The trace has it
  /// already.
  func takeIgnored(_ device: DeviceID) -> [IgnoredMessage] {
    var ignored: [IgnoredMessage] = []
    effects.list.removeAll { effect in
      guard case .device(device, .ignored(let message)) = effect else { return false }
      ignored.append(message)
      return true
    }
    tracedCount = min(tracedCount, effects.list.count)
    return ignored
  }

  @inline(__always)
  func port(_ id: DeviceID) -> DevicePort? {
    guard id.slot < ports.count, let port = ports[id.slot], port.id == id, !port.isGone else { return nil }
    return port
  }

  /// Tells everybody who must hear of it what the turns did.
  @inline(__always)
  func dispatch() {
    tracedCount = 0
    if !effects.list.isEmpty { dispatchAll() }
  }

  private func dispatchAll() {
    for index in effects.list.indices {
      switch effects.list[index] {
      case .translation(let device, let answer): push(device, .translation(.init(answer)))
      case .pageResponse(let device, let response):
        figures.note(response)
        if let port = port(device), let call = port.pagesCalls.removeValue(forKey: response.groupIndex) {
          shard.answer(call, .init(response))
        } else {
          push(device, .pageResponse(.init(response)))
        }
      case .invalidation(let device, let invalidation): push(device, .invalidation(.init(invalidation)))
      case .dma(let device, let answer):
        if answer.tag > greatestDeviceTag, let call = port(device)?.dmaCalls.removeValue(forKey: answer.tag) {
          shard.answer(call.caller, .init(answer, tag: call.tag))
        } else if answer.tag <= greatestDeviceTag {
          push(device, .dma(.init(answer, tag: answer.tag)))
        }
      case .invalidationEnded(_, let end): figures.note(end)
      case .device(let device, let change):
        push(device, .init(change))
        if change == .removed, let port = port(device) {
          port.isGone = true
          for caller in port.abandonCalls() {
            shard.fail(
              caller, .service(.deviceRemoved, "the device was removed before the answer came", fields: ["device"]))
          }
        }
      case .step: break
      case .operation(let outcome):
        guard let running = operations.end(outcome), let caller = running.caller else { break }
        if caller.method.answersPages {
          shard.answer(caller, outcome, faultAnswer?.operation == outcome.operation ? faultAnswer : nil)
        } else {
          shard.answer(caller, outcome, isLoad: running.isLoad)
        }
      case .verdict(let index): verdicts.append(effects.verdicts[index])
      case .notifierEvent(let index):
        push(effects.notifierEvents[index].subscriber, .call(effects.notifierEvents[index]))
      case .rangeFault(let index): faultAnswer = effects.rangeFaults[index]
      case .subscriber(let subscriber, .lost): push(subscriber, .lost)
      }
    }
    effects.removeList()
  }

  @inline(__always)
  func push(_ device: DeviceID, _ event: Wire.DeviceEvent) {
    guard let port = port(device) else { return }
    port.push(event, limit: shard.limits.eventsBeforeStream)
    if !port.isTouched {
      port.isTouched = true
      touchedPorts.append(port)
    }
  }

  // MARK: - Subscribers

  func subscriber(_ id: SubscriberID) -> SubscriberPort? {
    guard id.slot < subscribers.count, let port = subscribers[id.slot], port.id == id else { return nil }
    return port
  }

  private func push(_ id: SubscriberID, _ event: SubscriberPort.Event) {
    guard let port = subscriber(id) else { return }
    port.push(event, limit: shard.limits.eventsBeforeStream)
    if !port.isTouched {
      port.isTouched = true
      touchedSubscribers.append(port)
    }
  }

  func add(_ port: SubscriberPort) {
    while subscribers.count <= port.id.slot { subscribers.append(nil) }
    subscribers[port.id.slot] = port
  }

  // MARK: - Devices

  func add(_ port: DevicePort) {
    while ports.count <= port.id.slot { ports.append(nil) }
    ports[port.id.slot] = port
  }
}
