// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// Tries a cell of the table operation × column × strategy: one operation on a small machine, beside devices and a CPU
/// that do all that correct ones may do, between any two of its steps. What they earn is what the step list allows.
public struct CellTrial {
  public let cell: Cell
  /// What was found.
  public private(set) var verdicts: VerdictSet = []
  /// The first verdict of each kind.
  public private(set) var found: [Verdict] = []
  public private(set) var machine: Machine
  public private(set) var counters = Counters()
  /// Letters of the operation, in order.
  public private(set) var letters: [OperationStep.Letter] = []
  public private(set) var outcome: OperationOutcome?

  private var effects = Effects()
  private var grants: [HeldGrant] = []
  private var owed: [(device: DeviceID, invalidation: Invalidation)] = []
  private let scene: CellScene
  private var tried: OperationID?
  private let usesCPU: Bool
  private let flushesAtOnce: Bool
  private var reply: TranslationAnswer?
  private var responses: [PageResponse] = []
  private var groupAnswered = false
  private var freshCPU: UInt8 = 2
  private var hasLetGo = false
  /// Its first letters come before its id is known.
  private var isStarting = false

  /// A translation in the device's ATC.
  private struct HeldGrant {
    var page: PageNumber
    var answer: TranslationAnswer
  }

  /// Turns of the operation before the trial says that it waits for ever.
  private static let turnLimit = 10_000

  /// - Parameters:
  ///   - usesCPU: whether a CPU uses the page as well. What it does may make the device's access a split view, or bring a
  ///     page's rights back, so that a cell is tried with and without.
  ///   - flushesAtOnce: a flush queue's time has come as soon as something waits in it. What is deferred may be flushed
  ///     at any moment, so that a cell whose strategy defers is tried with the earliest and with the latest.
  public init(_ cell: Cell, usesCPU: Bool, flushesAtOnce: Bool = false) {
    self.cell = cell
    self.usesCPU = usesCPU
    self.flushesAtOnce = flushesAtOnce
    (scene, machine) = CellScene.make(cell, costs: .zero, seed: 1, flushesAtOnce: flushesAtOnce)
    run()
  }

  /// Every trial that a cell needs.
  public static func all(_ cell: Cell) -> [CellTrial] {
    (cell.strategy.deferral == .none ? [false] : [false, true]).flatMap { flushesAtOnce in
      [false, true].map { CellTrial(cell, usesCPU: $0, flushesAtOnce: flushesAtOnce) }
    }
  }

  /// Whether the operation has returned with success.
  public var isDone: Bool { outcome?.status == .success || groupAnswered }

  // MARK: The trial

  private mutating func run() {
    act()
    if let request = scene.request(cell) {
      isStarting = true
      guard case .operation(let id)? = apply(.start(request)) else { return }
      isStarting = false
      tried = id
    } else {
      // The second device asks for the right to write: a COW break by the fault handler.
      apply(
        .pageRequest(
          scene.devices[1],
          PageRequest(pasid: CellScene.pasid, page: CellScene.first, rights: .readWrite, groupIndex: 1, last: true)
        ))
      _ = machine.run(until: machine.time, limit: 1, into: &effects)
      tried = machine.enabledTurns().compactMap(\.operation).first
      take()
    }
    for _ in 0..<Self.turnLimit {
      act()
      guard let next = machine.enabledTurns().first(where: { $0.operation == tried }) else { break }
      perform(next)
    }
    act()
    // What was deferred is flushed when its time has come.
    for _ in 0..<Self.turnLimit {
      guard let next = machine.enabledTurns().first(where: { !$0.isTimeout }) else { break }
      perform(next)
      act()
    }
    machine.checkInvariants()
  }

  /// Everything that a correct device and a CPU may do now.
  private mutating func act() {
    settle()
    useGrants()
    complete()
    ask()
    useCPU()
    letGo()
    useGrants()
    struggle()
    // The flush of a queue is over before the next step, too.
    if flushesAtOnce { complete() }
  }

  /// The other process unmaps what it shares, as soon as the operation has left the table: it is the last who uses it.
  private mutating func letGo() {
    guard cell.size.isOfSharedLeaves, !hasLetGo, letters.contains(.entries) else { return }
    hasLetGo = true
    apply(.start(.munmap(scene.other, CellScene.sharedArea)))
    settle()
    ask()
  }

  /// Reads, and writes where it may, through everything in the ATC.
  private mutating func useGrants() {
    for grant in grants {
      for write in [false, true] where !write || grant.answer.rights.contains(.write) {
        apply(
          .dma(
            scene.devices[0],
            DMARequest(
              tag: 1, write: write, translated: true, pasid: CellScene.pasid, address: grant.answer.physicalAddress,
              page: grant.page, value: 0xd)))
        settle()
      }
    }
  }

  private mutating func complete() {
    while let (device, invalidation) = owed.first {
      owed.removeFirst()
      // The second device holds nothing.
      if device == scene.devices[0] {
        grants.removeAll { invalidation.range.contains($0.page) && $0.answer.order < invalidation.order }
      }
      apply(.complete(device, itagVector: 1 << UInt32(invalidation.itag)))
      settle()
    }
  }

  /// Fills the ATC again.
  private mutating func ask() {
    let area = CellScene.asked(cell)
    for page in area.first..<area.first + (cell.size == .fullBatch ? 6 : 1) {
      for noWrite in [true, false] {
        reply = nil
        apply(
          .translate(scene.devices[0], TranslationRequest(tag: 2, pasid: CellScene.pasid, page: page, noWrite: noWrite))
        )
        guard let answer = reply, !answer.rights.isEmpty else { continue }
        // An answer with less rights does not push the one with more out of the ATC.
        let isOld = grants.contains {
          $0.page == page && $0.answer.physicalAddress == answer.physicalAddress
            && $0.answer.rights.isStrictSuperset(of: answer.rights)
        }
        if isOld { continue }
        grants.removeAll { $0.page == page && $0.answer.physicalAddress == answer.physicalAddress }
        grants.append(HeldGrant(page: page, answer: answer))
      }
    }
    // A page that nobody has touched is in no IOTLB: its way through the tables is walked each time.
    let last = cell.size.isOfSharedLeaves ? CellScene.sharedArea.end - 1 : area.end - 1
    apply(
      .translate(
        scene.devices[0],
        TranslationRequest(tag: 4, pasid: CellScene.pasid, page: last, noWrite: true)))
  }

  /// A CPU loads from the first and the last of the pages, and then one whose TLB is empty; where one faults, it waits
  /// for the locks.
  private mutating func useCPU() {
    guard usesCPU else { return }
    let first = CellScene.page(cell)
    for cpu in [0, freshCPU] {
      for page in cell.size == .fullBatch ? [first, first + 5] : [first] {
        apply(.start(.cpuAccess(scene.space, CPUAccess(cpu: cpu, kind: .load, address: page << 12))))
        settle()
      }
    }
    // CPU 1 belongs to what is tried.
    freshCPU = min(freshCPU + 1, CellScene.cpuCount - 1)
  }

  /// The device needs a page that the operation does not touch, or one that it has made writable, and asks until its
  /// retries are used up.
  private mutating func struggle() {
    struggle(for: CellScene.bystander, .read)
    if cell.size == .upgrade && isDone { struggle(for: CellScene.area(cell).first, .readWrite) }
    if cell.size.isOfSharedLeaves && isDone {
      // A CPU that has not used it before brings back what was left with its table, with the rights that it has now.
      apply(.start(.cpuAccess(scene.space, CPUAccess(cpu: 1, kind: .load, address: CellScene.page(cell) << 12))))
      settle()
      useGrants()
    }
  }

  private mutating func struggle(for page: PageNumber, _ rights: Rights) {
    for attempt in 0..<3 {
      reply = nil
      apply(
        .translate(
          scene.devices[0],
          TranslationRequest(tag: 3, pasid: CellScene.pasid, page: page, noWrite: !rights.contains(.write))))
      guard let answer = reply, answer.status == .success, !answer.rights.isSuperset(of: rights) else { return }
      if attempt == 2 {
        apply(.giveUp(scene.devices[0], CellScene.pasid, page, rights))
        return
      }
      responses.removeAll()
      apply(
        .pageRequest(
          scene.devices[0], PageRequest(pasid: CellScene.pasid, page: page, rights: rights, groupIndex: 7, last: true)))
      settle()
      guard responses.contains(where: { $0.groupIndex == 7 && $0.code == .success }) else { return }
    }
  }

  // MARK: The machine

  /// Everything that is due now, but the steps of the operation that is tried, and no time-out.
  private mutating func settle() {
    while let next = machine.enabledTurns().first(where: {
      $0.due <= machine.time && !$0.isTimeout && ($0.operation == nil || $0.operation != tried)
    }) { perform(next) }
  }

  private mutating func perform(_ turn: PendingTurn) {
    effects.removeAll()
    let performed = machine.apply(pending: turn.sequence, at: machine.time, into: &effects)
    precondition(performed, "an enabled turn can be performed")
    take()
  }

  @discardableResult
  private mutating func apply(_ command: Command) -> Reply? {
    effects.removeAll()
    do throws(Refusal) {
      let reply = try machine.apply(command, at: machine.time, into: &effects)
      take()
      return reply
    } catch {
      return nil
    }
  }

  private mutating func take() {
    counters.add(effects.counters)
    for effect in effects.list {
      switch effect {
      case .translation(_, let answer): reply = answer
      case .pageResponse(let device, let response):
        responses.append(response)
        if device == scene.devices[1] { groupAnswered = response.code == .success }
      case .invalidation(let device, let invalidation):
        owed.append((device, invalidation))
      case .step(let step): if isStarting || step.operation == tried { letters.append(step.letter) }
      case .operation(let outcome):
        if outcome.operation == tried { self.outcome = outcome }
      case .verdict(let index):
        let verdict = effects.verdicts[index]
        if !verdicts.contains(verdict.kind) { found.append(verdict) }
        verdicts.insert(verdict.kind)
      case .dma, .device, .invalidationEnded, .notifierEvent, .rangeFault, .subscriber: break
      }
    }
    effects.removeAll()
  }
}
