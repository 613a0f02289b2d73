// SPDX-License-Identifier: Apache-2.0
import DeviceEndpoint
import HeapModule
import IOMMUModel

/// A whole storm in one thread and virtual time: the machine, device endpoints behind wires with latency, and a mutator
/// for each address space. The same plan gives the same run, byte for byte.
public struct SimulatedStorm {
  public let plan: StormPlan
  public private(set) var machine: Machine
  public private(set) var counters = Counters()
  public private(set) var verdicts: [Verdict] = []
  /// Of strategies that defer flushes.
  public private(set) var windows = StaleWindows()
  /// Every turn of the run, for `Replay`.
  public var log: LogWriter
  public private(set) var effectDigest = Digest()

  private var endpoints: [DeviceEndpoint] = []
  private var deviceIDs: [DeviceID] = []
  private var mutators: [Mutator] = []
  private var wire = Heap<Parcel>()
  private var lastParcel: UInt64 = 0
  /// Posted order: nothing overtakes on one way of one wire.
  private var lastArrival: [(toMachine: Nanoseconds, toDevice: Nanoseconds)] = []
  private var wireGenerator: SeededGenerator
  /// The clock of the wires; the machine's is the time of its last turn.
  private var now: Nanoseconds = 0
  private var effects = Effects()
  private var output = EndpointOutput()
  /// Outcomes of the turn under way.
  private var returnedNow: [OperationOutcome] = []
  /// Called after every turn, for tests that check invariants.
  private let afterTurn: ((borrowing Machine) -> Void)?

  private struct Parcel: Comparable {
    enum Content {
      case toMachine(DeviceMessage)
      case toDevice(Effect)
    }
    var at: Nanoseconds
    var sequence: UInt64
    var device: Int
    var content: Content
    static func < (a: Parcel, b: Parcel) -> Bool { (a.at, a.sequence) < (b.at, b.sequence) }
    static func == (a: Parcel, b: Parcel) -> Bool { a.sequence == b.sequence }
  }

  private struct Mutator {
    var space: AddressSpaceID
    var mutations: [Mutation]
    var done = 0
    /// What is left of the mutation under way, last first.
    var requests: [OperationRequest] = []
    var waitingFor: OperationID?
    var devices: Range<Int>
  }

  public init(_ plan: StormPlan, afterTurn: ((borrowing Machine) -> Void)? = nil) {
    self.plan = plan
    self.afterTurn = afterTurn
    var settings = plan.settings
    settings.seed = plan.seed
    machine = Machine(settings: settings)
    log = LogWriter(settings: settings, build: "simulation")
    wireGenerator = SeededGenerator(seed: plan.seed, purpose: "wire")
    for space in 0..<plan.spaceCount { makeSpace(space) }
  }

  private mutating func makeSpace(_ index: Int) {
    guard case .addressSpace(let space)? = apply(.createAddressSpace) else { preconditionFailure("the first one fits") }
    _ = apply(
      .start(.mmap(space, PageRange(first: StormPlan.firstPage, count: plan.pageCount), .readWrite, pageSizeLog2: 12)))
    let first = endpoints.count
    let allocation = plan.settings.pageRequestQueueCapacity / UInt32(plan.spaceCount * plan.devicesPerSpace)
    for _ in 0..<plan.devicesPerSpace {
      let number = endpoints.count
      let profile = DeviceProfile(rid: UInt16(number + 8), priAllocation: allocation, retryLimit: plan.retryLimit)
      guard case .device(let id, _)? = apply(.registerDevice(profile)) else { preconditionFailure("device fits") }
      _ = apply(.attach(id, PASID(index + 1), .addressSpace(space, plan.strategy)))
      deviceIDs.append(id)
      lastArrival.append((0, 0))
      endpoints.append(
        DeviceEndpoint(
          EndpointConfiguration(
            workload: AccessWorkload(
              seed: plan.seed &+ UInt64(number) << 32, accessCount: plan.accessesPerDevice,
              targets: [
                AccessTarget(pasid: UInt32(index + 1), firstPage: StormPlan.firstPage, pageCount: plan.pageCount)
              ]),
            concurrency: plan.concurrency, priAllocation: allocation, groupMemberLimit: 2, retryLimit: plan.retryLimit,
            stampPrefix: UInt32(number + 1))))
    }
    mutators.append(
      Mutator(space: space, mutations: plan.mutations(space: index), devices: first..<endpoints.count))
  }

  // MARK: Run

  /// Runs until every access has ended and every operation has returned.
  /// - Returns: false when nothing is left to happen before that: somebody waits for ever.
  public mutating func run() -> Bool {
    for device in endpoints.indices { pump(device) }
    while true {
      for index in mutators.indices { while push(index) {} }
      if isDone { return true }
      let due = machine.nextDue()
      if let parcel = wire.min, due == nil || parcel.at <= due! {
        deliver(wire.removeMin())
      } else if let due {
        effects.removeAll()
        now = due
        let sequence = machine.applyNext(at: now, into: &effects)!
        log.append(pending: sequence, at: machine.time)
        take()
      } else {
        return false
      }
    }
  }

  private var isDone: Bool {
    endpoints.allSatisfy { $0.isIdle || $0.isFenced }
      && mutators.allSatisfy { $0.done == $0.mutations.count && $0.requests.isEmpty && $0.waitingFor == nil }
  }

  /// Intended accesses that have ended.
  public var endedAccesses: UInt64 { endpoints.reduce(0) { $0 + $1.endedAccesses } }
  public var gaveUp: UInt64 { endpoints.reduce(0) { $0 + $1.counters.gaveUp } }

  @discardableResult
  private mutating func apply(_ command: Command) -> Reply? {
    effects.removeAll()
    do throws(Refusal) {
      let reply = try machine.apply(command, at: now, into: &effects)
      log.append(command, reply, at: machine.time)
      take()
      return reply
    } catch {
      return nil
    }
  }

  private mutating func take() {
    returnedNow.removeAll(keepingCapacity: true)
    counters.add(effects.counters)
    afterTurn?(machine)
    effects.digest(into: &effectDigest)
    verdicts += effects.verdicts
    let defers = plan.strategy.deferral != .none
    for effect in effects.list {
      if defers { windows.note(effect, at: machine.time) }
      switch effect {
      case .translation(let id, _), .pageResponse(let id, _), .invalidation(let id, _), .dma(let id, _),
        .device(let id, _):
        if let device = deviceIDs.firstIndex(of: id) { send(device, .toDevice(effect)) }
      case .operation(let outcome):
        returnedNow.append(outcome)
        returned(outcome)
      case .step, .invalidationEnded, .verdict, .notifierEvent, .rangeFault, .subscriber: break
      }
    }
  }

  // MARK: Wires

  private mutating func send(_ device: Int, _ content: Parcel.Content) {
    let latency = machine.settings.costs.dilationMilli * plan.wireLatency.draw(&wireGenerator) / 1000
    lastParcel += 1
    let at: Nanoseconds
    if case .toMachine = content {
      at = max(lastArrival[device].toMachine, now + latency)
      lastArrival[device].toMachine = at
    } else {
      at = max(lastArrival[device].toDevice, now + latency)
      lastArrival[device].toDevice = at
    }
    wire.insert(Parcel(at: at, sequence: lastParcel, device: device, content: content))
  }

  private mutating func deliver(_ parcel: Parcel) {
    now = parcel.at
    switch parcel.content {
    case .toMachine(let message):
      apply(message.command(deviceIDs[parcel.device]))
    case .toDevice(let effect):
      output.removeAll()
      endpoints[parcel.device].receive(effect, now: now, into: &output)
      sendOutput(parcel.device)
      pump(parcel.device)
    }
  }

  private mutating func pump(_ device: Int) {
    output.removeAll()
    endpoints[device].settle(now: now, into: &output)
    sendOutput(device)
  }

  private mutating func sendOutput(_ device: Int) {
    for message in output.messages { send(device, .toMachine(message)) }
  }

  // MARK: Mutators

  /// Starts the next operation of a mutator when its devices have come far enough.
  /// - Returns: whether another may follow at once.
  private mutating func push(_ index: Int) -> Bool {
    guard mutators[index].waitingFor == nil else { return false }
    if mutators[index].requests.isEmpty {
      let mutator = mutators[index]
      guard mutator.done < mutator.mutations.count else { return false }
      let ended = mutator.devices.reduce(UInt64(0)) { $0 + endpoints[$1].endedAccesses }
      let total = plan.accessesPerDevice * UInt64(mutator.devices.count)
      guard ended * UInt64(mutator.mutations.count) >= total * UInt64(mutator.done) else { return false }
      mutators[index].requests = expand(mutator.mutations[mutator.done], mutator.space)
      mutators[index].done += 1
    }
    let request = mutators[index].requests.removeLast()
    start(request, mutator: index)
    return mutators[index].waitingFor == nil
  }

  /// Starts an operation. It may return in the same turn, or later, or be refused.
  private mutating func start(_ request: OperationRequest, mutator index: Int) {
    guard case .operation(let id)? = apply(.start(request)) else { return }
    mutators[index].waitingFor = id
    if let outcome = returnedNow.first(where: { $0.operation == id }) { returned(outcome) }
  }

  /// The requests of a mutation, last first.
  private func expand(_ mutation: Mutation, _ space: AddressSpaceID) -> [OperationRequest] {
    switch mutation {
    case .unmapAndMap(let range):
      return [.mmap(space, range, .readWrite, pageSizeLog2: 12), .munmap(space, range)]
    case .dontNeed(let range): return [.dontNeed(space, range)]
    case .protectAndRestore(let range): return [.mprotect(space, range, .readWrite), .mprotect(space, range, .read)]
    case .touch(let range):
      return [
        .cpuAccess(space, CPUAccess(cpu: 0, kind: .touch, address: range.first << 12, pageCount: range.count))
      ]
    case .forkAndStore(let range):
      let stores = (range.first..<range.end).map { page in
        OperationRequest.cpuAccess(space, CPUAccess(cpu: 1, kind: .store, address: page << 12, value: page))
      }
      return stores + [.fork(space)]
    }
  }

  private mutating func returned(_ outcome: OperationOutcome) {
    for index in mutators.indices where mutators[index].waitingFor == outcome.operation {
      mutators[index].waitingFor = nil
      if outcome.kind == .fork && outcome.status == .success {
        // The child leaves when the stores are done.
        mutators[index].requests.insert(.exit(AddressSpaceID(rawValue: UInt32(outcome.value))), at: 0)
      }
    }
  }
}
