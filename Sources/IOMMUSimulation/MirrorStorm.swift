// SPDX-License-Identifier: Apache-2.0
import HeapModule
import IOMMUModel
import MirrorEndpoint

/// Mirrors of one address space behind wires with latency, while a process does all that it can do to its memory, one
/// operation after the other, and exits. One thread, virtual time; the same plan gives the same run.
public struct MirrorStorm {
  public struct Plan: Sendable {
    public var seed: UInt64
    public var kernel = KernelColumn.now
    public var mirrors: [MirrorKind]
    /// Of the first mirror.
    public var misbehaviour: MirrorMisbehaviour = []
    public var pageCount: UInt64 = 24
    public var accessesPerMirror: UInt64 = 300
    public var operationCount = 40
    public var settings = Settings()
    public init(seed: UInt64, mirrors: [MirrorKind]) {
      self.seed = seed
      self.mirrors = mirrors
      settings.frameCount = 512
      settings.gatherBatch = 4
      settings.costs.dilationMilli = 1000
    }
  }

  public let plan: Plan
  public private(set) var machine: Machine
  public private(set) var verdicts: [Verdict] = []
  public private(set) var counters = Counters()
  /// Every kind of operation that has returned, and how.
  public private(set) var outcomes: [OperationOutcome] = []
  public private(set) var mirrors: [MirrorEndpoint] = []
  public var log: LogWriter
  private static let first: PageNumber = 0x400
  /// Called after every turn, for tests that check invariants.
  private let afterTurn: ((borrowing Machine) -> Void)?
  private var ids: [SubscriberID] = []
  private var faults: [(operation: OperationID, mirror: Int, tag: UInt32)] = []
  private var wire = Heap<Parcel>()
  private var lastParcel: UInt64 = 0
  private var lastArrival: [(toMachine: Nanoseconds, toMirror: Nanoseconds)] = []
  private var now: Nanoseconds = 0
  private var generator: SeededGenerator
  private var effects = Effects()
  private var space = AddressSpaceID(rawValue: 0)
  private var children: [AddressSpaceID] = []
  private var started = 0
  private var waitingFor: OperationID?
  private var isExiting = false

  private struct Parcel: Comparable {
    enum Content {
      case toMachine(MirrorMessage)
      case event(MirrorEvent)
      case fault(MirrorFaultAnswer)
      case installed(tag: UInt32)
      case accessed(tag: UInt32, fenced: Bool)
      case lost
    }
    var at: Nanoseconds
    var sequence: UInt64
    var mirror: Int
    var content: Content
    static func < (a: Parcel, b: Parcel) -> Bool { (a.at, a.sequence) < (b.at, b.sequence) }
    static func == (a: Parcel, b: Parcel) -> Bool { a.sequence == b.sequence }
  }

  public init(_ plan: Plan, afterTurn: ((borrowing Machine) -> Void)? = nil) {
    self.plan = plan
    self.afterTurn = afterTurn
    var settings = plan.settings
    settings.seed = plan.seed
    settings.kernel = plan.kernel
    machine = Machine(settings: settings)
    log = LogWriter(settings: settings, build: "simulation")
    generator = SeededGenerator(seed: plan.seed, purpose: "mirrors")
    guard case .addressSpace(let space)? = apply(.createAddressSpace) else { preconditionFailure("the first one fits") }
    self.space = space
    mapAll()
    for (index, kind) in plan.mirrors.enumerated() {
      let range = MirrorRange(first: Self.first, count: plan.pageCount)
      guard
        case .subscriber(let id, let sequence, let open)? = apply(
          .subscribe(space, SubscriberProfile(kind, range, owner: UInt32(index + 1))))
      else { preconditionFailure("a subscriber fits") }
      var configuration = MirrorEndpoint.Configuration(
        kind: kind, seed: generator.next(), runs: [range], accessCount: plan.accessesPerMirror)
      configuration.owner = UInt32(index + 1)
      if kind.isInterval { configuration.faultPages = 4 }
      if index == 0 { configuration.misbehaviour = plan.misbehaviour }
      ids.append(id)
      lastArrival.append((0, 0))
      mirrors.append(MirrorEndpoint(configuration, sequence: sequence, openWindows: open))
    }
  }

  private mutating func mapAll() {
    let range = PageRange(first: Self.first, count: plan.pageCount)
    apply(.start(.mmap(space, range, .readWrite, pageSizeLog2: 12)))
  }

  // MARK: Run

  /// Runs until every operation has returned, the exit as the last, and every mirror is quiet.
  /// - Returns: false when nothing is left to happen before that: somebody waits for ever.
  public mutating func run() -> Bool {
    for mirror in mirrors.indices { pump(mirror) }
    while true {
      while waitingFor == nil, !isExiting || !children.isEmpty { startNext() }
      if isExiting, waitingFor == nil, faults.isEmpty, mirrors.allSatisfy(\.isQuiet) { return true }
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
    counters.add(effects.counters)
    verdicts += effects.verdicts
    afterTurn?(machine)
    for effect in effects.list {
      switch effect {
      case .notifierEvent(let index):
        let event = effects.notifierEvents[index]
        if let mirror = ids.firstIndex(of: event.subscriber) { send(mirror, .event(MirrorEvent(event))) }
      case .rangeFault(let index):
        let answer = effects.rangeFaults[index]
        lastAnswer = answer
      case .subscriber(let id, .lost):
        if let mirror = ids.firstIndex(of: id) { send(mirror, .lost) }
      case .operation(let outcome): returned(outcome)
      default: break
      }
    }
  }

  /// The pages of a fault, whose operation returns in the same turn.
  private var lastAnswer: RangeFaultAnswer?
  /// Outcomes that came before the reply that names their operation.
  private var early: [OperationOutcome] = []

  private mutating func returned(_ outcome: OperationOutcome) {
    if outcome.kind == .rangeFault {
      guard let index = faults.firstIndex(where: { $0.operation == outcome.operation }) else {
        return early.append(outcome)
      }
      let fault = faults.remove(at: index)
      answer(outcome, fault.mirror, fault.tag)
      return
    }
    outcomes.append(outcome)
    if outcome.kind == .fork, outcome.status == .success {
      children.append(AddressSpaceID(rawValue: UInt32(outcome.value)))
    }
    if waitingFor == outcome.operation { waitingFor = nil } else { early.append(outcome) }
  }

  private mutating func answer(_ outcome: OperationOutcome, _ mirror: Int, _ tag: UInt32) {
    if outcome.status == .success, let answer = lastAnswer, answer.operation == outcome.operation {
      send(mirror, .fault(MirrorFaultAnswer(tag: tag, answer)))
    } else {
      send(mirror, .fault(MirrorFaultAnswer(tag: tag, outcome.status)))
    }
  }

  // MARK: Wires

  private mutating func send(_ mirror: Int, _ content: Parcel.Content) {
    let latency = 300 + generator.next(below: 3000)
    lastParcel += 1
    var at = now + latency
    if case .toMachine = content {
      at = max(lastArrival[mirror].toMachine, at)
      lastArrival[mirror].toMachine = at
    } else {
      // Answers of calls and events of the stream do not wait for each other.
      at = now + latency
    }
    wire.insert(Parcel(at: at, sequence: lastParcel, mirror: mirror, content: content))
  }

  private mutating func deliver(_ parcel: Parcel) {
    now = max(now, parcel.at)
    let mirror = parcel.mirror
    switch parcel.content {
    case .toMachine(let message): perform(message, mirror)
    case .event(let event): mirrors[mirror].receive(event)
    case .fault(let answer): mirrors[mirror].receive(answer)
    case .installed(let tag): mirrors[mirror].receiveInstalled(tag: tag)
    case .accessed(let tag, let fenced): mirrors[mirror].receiveAccess(tag: tag, fenced: fenced)
    case .lost: mirrors[mirror].fence()
    }
    pump(mirror)
  }

  private mutating func perform(_ message: MirrorMessage, _ mirror: Int) {
    let reply = apply(message.command(ids[mirror]))
    switch (message, reply) {
    case (.fault(let tag, _, _), .operation(let operation)?):
      if let index = early.firstIndex(where: { $0.operation == operation }) {
        answer(early.remove(at: index), mirror, tag)
      } else {
        faults.append((operation, mirror, tag))
      }
    case (.fault(let tag, _, _), _): send(mirror, .fault(MirrorFaultAnswer(tag: tag, status: .gone)))
    case (.install(let tag, _, _), _): send(mirror, .installed(tag: tag))
    case (.access(let tag, _, _, _, _), .mirrorAccess(let status, _)?):
      send(mirror, .accessed(tag: tag, fenced: status == .fenced))
    default: break
    }
  }

  private mutating func pump(_ mirror: Int) {
    mirrors[mirror].pump()
    let messages = mirrors[mirror].messages
    mirrors[mirror].messages.removeAll(keepingCapacity: true)
    for message in messages { send(mirror, .toMachine(message)) }
  }

  // MARK: The process

  private mutating func startNext() {
    let request: OperationRequest
    if started < plan.operationCount {
      request = draw()
    } else if let child = children.popLast() {
      request = .space(.exit, child)
    } else {
      isExiting = true
      request = .space(.exit, space)
    }
    started += 1
    // Accesses keep in step with the operations, and go on into the exit.
    for mirror in mirrors.indices {
      let limit = plan.accessesPerMirror * UInt64(started) / UInt64(plan.operationCount)
      mirrors[mirror].startLimit = isExiting ? .max : limit
      pump(mirror)
    }
    guard case .operation(let id)? = apply(.start(request)) else { return }
    if let index = early.firstIndex(where: { $0.operation == id }) {
      early.remove(at: index)
    } else {
      waitingFor = id
    }
  }

  /// All that a process may do to its memory, and what may be done to it. The reaper comes last, in every other run, for
  /// nothing comes back after it.
  private mutating func draw() -> OperationRequest {
    func range() -> PageRange {
      let count = 1 + generator.next(below: 8)
      return PageRange(first: Self.first + generator.next(below: plan.pageCount - count + 1), count: count)
    }
    if started == plan.operationCount - 1 && plan.kernel == .now && plan.seed % 2 == 0 {
      return .space(.oomReap, space)
    }
    let ranges = OperationKind.ofRanges.filter { $0 != .munmap }
    switch generator.next(below: 12) {
    case 0: return .range(.munmap, space, range())
    case 1: return .mmap(space, range(), .readWrite, pageSizeLog2: 12)
    case 2..<6: return .range(ranges[Int(generator.next(below: UInt64(ranges.count)))], space, range())
    case 6: return .protect(.mprotect, space, range(), generator.next(below: 2) == 0 ? .read : .readWrite)
    case 7: return .space(children.count < 2 ? .fork : .clearSoftDirty, space)
    case 8: return .space(.clearSoftDirty, space)
    case 9: return .move(.mremap, space, range(), to: Self.first + 0x200 * (1 + generator.next(below: 3)))
    case 10:
      return .ksmReplacePage(
        space, range(), keeper: children.last ?? space, keeperFirst: Self.first + generator.next(below: plan.pageCount))
    default:
      return .cpuAccess(
        space,
        CPUAccess(
          cpu: 0, kind: .store, address: range().first << 12 + 8 * generator.next(below: 512), value: generator.next()))
    }
  }
}
