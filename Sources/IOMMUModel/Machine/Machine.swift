// SPDX-License-Identifier: Apache-2.0

/// One simulated host: physical memory, CPUs with TLBs, address spaces, one IOMMU, devices, a clock.
///
/// Deterministic and without I/O: the same settings and the same turns at the same times give the same effects and the
/// same state hash, on every machine, in debug and release. The machine lists its enabled internal turns and never
/// picks one; a scheduler outside picks. A value: a copy is an independent machine.
///
/// What changes nothing and is called by what does is inlined always: a call would pass the machine as a value beside its
/// own mutation, and so copy its kilobyte.
public struct Machine {
  public let settings: Settings
  /// Machine time of the last turn.
  public internal(set) var time: Nanoseconds = 0
  /// Turns performed.
  public internal(set) var turn: UInt64 = 0

  let lists: StepLists
  let walker = PageWalker(format: .x86Level4)
  var memory: PhysicalMemory
  var swap: SwapDevice
  var files = Slab<FileID, BackingFile>()
  var spaces = Slab<AddressSpaceID, AddressSpace>()
  var kernel = KernelHalf()
  var domains = Slab<DomainID, Domain>()
  var devices = Slab<DeviceID, Device>()
  var bindings = Slab<BindingID, Binding>()
  var subscribers = Slab<SubscriberID, Subscriber>()
  var operations: [Operation?] = []
  var freeOperationSlots: [Int] = []
  var operationCount = 0
  var lastOperationNumber: UInt64 = 0
  var tableLocks = FrameLocks()
  /// Pages under migration.
  var pageLocks = FrameLocks()
  var cpuTLB: CPUTLB
  var caches: IOMMUCaches
  var queue: PageRequestQueue
  var handler: FaultHandler
  /// Detach operations that wait until no page request of theirs is on its way.
  var drains: [OperationID] = []
  /// Address spaces whose flush queue waits for a slot for its operation.
  var flushesWanted: [AddressSpaceID] = []
  var pending = PendingTurns()
  var history = OperationHistory()
  var lastEpoch: UInt32 = 0
  var costGenerator: SeededGenerator
  var serviceGenerator: SeededGenerator

  /// - Parameter settings: fixed for the machine's life. Cache sizes must be powers of two; the shell has checked them.
  public init(settings: Settings) {
    self.settings = settings
    lists = StepLists(settings.kernel, settings.kernelTableFree, orders: settings.orders)
    memory = PhysicalMemory(
      frameCount: settings.frameCount, recycleOrder: settings.recycleOrder, seed: settings.seed,
      chunkFramesLog2: settings.chunkFramesLog2)
    swap = SwapDevice(capacity: settings.frameCount)
    cpuTLB = CPUTLB(cpuCount: settings.cpuCount, entryCount: settings.caches.cpuTLB)
    caches = IOMMUCaches(settings.caches)
    queue = PageRequestQueue(capacity: Int(settings.pageRequestQueueCapacity))
    handler = FaultHandler(idleWorkers: Int(settings.handlerWorkers))
    costGenerator = SeededGenerator(seed: settings.seed, purpose: "cost")
    serviceGenerator = SeededGenerator(seed: settings.seed, purpose: "service")
  }

  /// Another draw of durations from here on, for measurements from one state. Who keeps a log does not: the log has the
  /// seed of the settings.
  public mutating func reseed(_ seed: UInt64) {
    costGenerator = SeededGenerator(seed: seed, purpose: "cost")
    serviceGenerator = SeededGenerator(seed: seed, purpose: "service")
  }

  // MARK: Turns

  /// Performs one command as one turn.
  /// - Throws: a refusal; nothing has changed then, the time included.
  public mutating func apply(
    _ command: Command, at time: Nanoseconds, into effects: inout Effects
  ) throws(Refusal) -> Reply {
    let before = self.time
    begin(at: time)
    do throws(Refusal) {
      let reply: Reply
      if case .translate(let device, let request) = command {
        // The hottest command by far does not pass through the rooms of the others.
        try answerTranslation(device, request, &effects)
        reply = .none
      } else {
        reply = try perform(command, &effects)
      }
      finishTurn(&effects)
      return reply
    } catch {
      self.time = before
      turn -= 1
      throw error
    }
  }

  /// When the earliest internal turn is due; nil: none is enabled. Drops turns that became void.
  public mutating func nextDue() -> Nanoseconds? {
    while let first = pending.first {
      if !isVoid(first) { return first.due }
      _ = pending.removeFirst()
    }
    return nil
  }

  /// Performs the earliest internal turn. Answers its sequence, for the log; nil when none is enabled.
  /// - Parameter time: not before its due time, nor before the machine's time; both are raised to.
  @discardableResult
  public mutating func applyNext(at time: Nanoseconds, into effects: inout Effects) -> UInt64? {
    guard nextDue() != nil else { return nil }
    let next = pending.removeFirst()
    perform(next, at: max(time, next.due), &effects)
    return next.sequence
  }

  /// Performs the internal turn of this sequence, whether or not it is the earliest: explorer and replay pick so.
  /// - Returns: false when no such turn is enabled; nothing has changed then.
  public mutating func apply(pending sequence: UInt64, at time: Nanoseconds, into effects: inout Effects) -> Bool {
    if let first = pending.first, first.sequence == sequence {
      guard !isVoid(first) else { return false }
      perform(pending.removeFirst(), at: max(time, first.due), &effects)
      return true
    }
    guard let chosen = pending.remove(sequence: sequence), !isVoid(chosen) else { return false }
    perform(chosen, at: max(time, chosen.due), &effects)
    return true
  }

  /// The enabled internal turns by due time.
  public func enabledTurns() -> [PendingTurn] { pending.sorted.filter { !isVoid($0) } }

  /// Repeated single turns, by due time.
  /// - Returns: turns performed; fewer than `limit` when none is due until `end`.
  @discardableResult
  public mutating func run(until end: Nanoseconds, limit: Int, into effects: inout Effects) -> Int {
    var count = 0
    while count < limit, let due = nextDue(), due <= end {
      applyNext(at: due, into: &effects)
      count += 1
    }
    return count
  }

  private mutating func perform(_ chosen: PendingTurn, at time: Nanoseconds, _ effects: inout Effects) {
    begin(at: time)
    switch chosen.kind {
    case .step(let operation): resume(operation, &effects)
    case .landing(let device): land(device, &effects)
    case .timeout(let device, _): fence(device, &effects)
    case .interrupt: drainQueue(&effects)
    case .flushTimer(let space): endFlushTimer(space)
    case .answer(let subscriber, _): lose(subscriber, &effects)
    }
    finishTurn(&effects)
  }

  @inline(__always)
  mutating func begin(at time: Nanoseconds) {
    self.time = max(self.time, min(time, Self.lastMoment))
    turn += 1
  }

  @inline(__always)
  mutating func finishTurn(_ effects: inout Effects) {
    if memory.corruptedFrames > 0 {
      let corruption = memory.takeCorruption()
      effects.counters.corruptedFrames += corruption.found
      effects.counters.unexplainedCorruptions += corruption.unexplained
    }
  }

  /// A turn whose reason has gone since it was scheduled.
  @inline(__always)
  private func isVoid(_ chosen: PendingTurn) -> Bool {
    switch chosen.kind {
    case .step(let operation):
      return !waits(operation, for: chosen.sequence)
    case .landing(let device):
      return !devices.contains(device)
    case .timeout(let device, let itag):
      guard devices.contains(device) else { return true }
      let tag = devices[device].itags[Int(itag)]
      return tag.state != .owed || tag.timeoutTurn != chosen.sequence
    case .interrupt:
      return !queue.interruptPending
    case .flushTimer(let space):
      return !spaces.contains(space) || spaces[space].flushQueue.timer != chosen.sequence
    case .answer(let subscriber, let event):
      guard subscribers.contains(subscriber) else { return true }
      return !subscribers[subscriber].owed.contains { $0.event.number == event }
    }
  }

  // MARK: Durations

  /// Machine time stops here, 146 years on, so that no sum of a time and a duration overflows.
  public static let lastMoment: Nanoseconds = 1 << 62
  private static let longestDuration: Nanoseconds = 1 << 61

  @inline(__always)
  func dilated(_ duration: Nanoseconds) -> Nanoseconds {
    let (product, overflow) = duration.multipliedReportingOverflow(by: settings.costs.dilationMilli)
    return overflow ? Self.longestDuration : min(product / 1000, Self.longestDuration)
  }

  mutating func cost(_ distribution: Distribution, times count: Int = 1) -> Nanoseconds {
    dilated(distribution.sample(&costGenerator) * UInt64(count))
  }
}
