// SPDX-License-Identifier: Apache-2.0

/// Goes over a log once more for what led to one of its verdicts. Bounded work for each call, so that a shell can do other
/// things between.
public struct Retrace {
  public enum Progress: Sendable {
    case underWay
    case found(Explanation)
    /// The log ends before the verdict.
    case absent
  }

  private let number: UInt64
  private let verdict: Verdict
  private let device: String
  private var replay: Replay
  private var verdictCount: UInt64 = 0
  private var sightings: Sightings

  /// - Parameters:
  ///   - number: the verdict's place among all of the log, from 1 on.
  ///   - device: what people call the device of the verdict.
  /// - Throws: what is wrong with the log's head.
  public init(_ bytes: [UInt8], of verdict: Verdict, number: UInt64, device: String) throws(LogError) {
    self.number = number
    self.verdict = verdict
    self.device = device
    replay = try Replay(bytes, keepsVerdicts: false)
    sightings = Sightings(verdict)
  }

  /// Performs at most so many entries.
  /// - Throws: what is wrong with the log, or `diverged` where its verdict is another one.
  public mutating func advance(_ limit: Int) throws(LogError) -> Progress {
    for _ in 0..<limit {
      guard let effects = try replay.step() else { return .absent }
      verdictCount += UInt64(effects.verdicts.count)
      sightings.note(replay.entry!, effects, replay.machine)
      guard verdictCount >= number else { continue }
      let index = effects.verdicts.count - 1 - Int(verdictCount - number)
      guard effects.verdicts[index] == verdict else { throw .diverged(entry: replay.entryCount - 1) }
      return .found(sightings.explanation(device: device))
    }
    return .underWay
  }
}

/// What was seen of a verdict's device, page and operations: the material of its story.
struct Sightings {
  enum What: Equatable {
    case granted
    /// A walk whose answer the IOTLB keeps, for this device.
    case filled(DeviceID)
    case notPresent
    case requested
    case answered(PageResponse.Code)
    case step(OperationStep)
    case pushed(itag: UInt8, by: OperationID)
    case ended(itag: UInt8, InvalidationEnd.Kind)
    case issued
    case usedByCPU
    case returned(OperationID)
  }
  struct Sighting: Equatable {
    var at: Nanoseconds
    var what: What

    var operation: OperationID? {
      switch what {
      case .step(let step): step.operation
      case .returned(let operation): operation
      default: nil
      }
    }
  }
  /// An operation that keeps the PASIDs of the address space on the empty table.
  struct Window {
    var mark: OperationMark
    var until: Nanoseconds?
  }

  private(set) var verdict: Verdict
  private(set) var list: [Sighting] = []
  /// Steps at the page of other operations of the address space, the newest: one of them may have dropped the page.
  private(set) var others: [Sighting] = []
  private(set) var windows: [Window] = []
  /// The binding's, when the PASID shares an address space.
  private(set) var strategy: Strategy?
  private var space: AddressSpaceID?
  private var operations: [OperationID]
  private var groups: [UInt16] = []
  private var issues: [(tag: UInt32, at: Nanoseconds)] = []
  private var cpuAccesses: [OperationID] = []
  private var openTags: [UInt8] = []
  /// Of each: a story needs the first ones of a struggle and the last ones of everything else.
  private static let limit = 256

  init(_ verdict: Verdict) {
    self.verdict = verdict
    operations = verdict.marks.map(\.operation)
  }

  var isStruggle: Bool { verdict.kind == .gaveUp || verdict.kind == .livelock }

  mutating func note(_ entry: Log.Entry, _ effects: Effects, _ machine: Machine) {
    if case .command(let command, let reply) = entry.turn { note(command, reply, at: entry.time) }
    let walked = effects.counters.walks > 0
    for effect in effects.list { note(effect, at: entry.time, machine, walked: walked) }
  }

  private mutating func see(_ what: What, at time: Nanoseconds) {
    if list.count >= Self.limit {
      if isStruggle { return }
      list.removeFirst()
    }
    list.append(Sighting(at: time, what: what))
  }

  private mutating func note(_ command: Command, _ reply: Reply, at time: Nanoseconds) {
    switch command {
    case .attach(verdict.device, verdict.pasid, let attachment):
      if case .addressSpace(let space, let strategy) = attachment {
        self.space = space
        self.strategy = strategy
      } else {
        space = nil
        strategy = nil
      }
    case .pageRequest(verdict.device, let request)
    where request.pasid == verdict.pasid && request.page == verdict.page && isStruggle && time >= verdict.grantedAt:
      groups.append(request.groupIndex)
      see(.requested, at: time)
    case .dma(verdict.device, let request) where request.page == verdict.page:
      issues.append((request.tag, time))
    case .start(.cpuAccess(let space, let access))
    where space == self.space && access.address >> 12 == verdict.page && verdict.kind == .splitView:
      if case .operation(let id) = reply { cpuAccesses.append(id) }
    default: break
    }
  }

  private mutating func note(_ effect: Effect, at time: Nanoseconds, _ machine: Machine, walked: Bool) {
    switch effect {
    case .translation(let other, let answer)
    where walked && verdict.grantedVia == .iotlb && time < verdict.grantedAt && reaches(answer)
      && answer.coversPage(verdict.page) && machine.memory.generation(verdict.frame) == verdict.grantGeneration:
      list.removeAll { if case .filled = $0.what { true } else { false } }
      see(.filled(other), at: time)
    case .translation(verdict.device, let answer) where answer.pasid == verdict.pasid && answer.status == .success:
      note(answer, at: time)
    case .pageResponse(verdict.device, let response):
      guard let index = groups.firstIndex(of: response.groupIndex) else { return }
      groups.remove(at: index)
      see(.answered(response.code), at: time)
    case .invalidation(verdict.device, let invalidation)
    where invalidation.pasid == verdict.pasid && invalidation.range.contains(verdict.page):
      openTags.append(invalidation.itag)
      let operation = machine.devices[verdict.device].itags[Int(invalidation.itag)].operation
      see(.pushed(itag: invalidation.itag, by: operation), at: time)
    case .invalidationEnded(verdict.device, let end):
      guard let index = openTags.firstIndex(of: end.itag) else { return }
      openTags.remove(at: index)
      see(.ended(itag: end.itag, end.kind), at: time)
    case .dma(verdict.device, let answer):
      issues.removeAll { $0.tag == answer.tag }
    case .verdict:
      if let issue = issues.first { see(.issued, at: issue.at) }
    case .step(let step): note(step, at: time, machine)
    case .operation(let outcome):
      if operations.contains(outcome.operation) { see(.returned(outcome.operation), at: time) }
      if others.contains(where: { $0.operation == outcome.operation }) {
        others.append(Sighting(at: time, what: .returned(outcome.operation)))
      }
      if let index = cpuAccesses.firstIndex(of: outcome.operation) {
        cpuAccesses.remove(at: index)
        if time >= verdict.dropped.at && !list.contains(where: { $0.what == .usedByCPU }) { see(.usedByCPU, at: time) }
      }
    default: break
    }
  }

  private mutating func note(_ answer: TranslationAnswer, at time: Nanoseconds) {
    if answer.rights.isEmpty {
      if isStruggle && answer.page == verdict.page && time >= verdict.grantedAt { see(.notPresent, at: time) }
      return
    }
    guard time == verdict.grantedAt, reaches(answer) else { return }
    list.removeAll { $0.what == .granted }
    see(.granted, at: time)
  }

  /// Whether a translation leads to the frame of the verdict.
  private func reaches(_ answer: TranslationAnswer) -> Bool {
    guard answer.status == .success, !answer.rights.isEmpty else { return false }
    return (answer.physicalAddress ^ (UInt64(verdict.frame) << 12)) >> UInt64(answer.sizeLog2) == 0
  }

  private mutating func note(_ step: OperationStep, at time: Nanoseconds, _ machine: Machine) {
    if step.range.contains(verdict.page) || step.letter == .release {
      if operations.contains(step.operation) {
        see(.step(step), at: time)
      } else if space != nil && machine.operations[step.operation.slot]?.space == space {
        if others.count >= Self.limit { others.removeFirst() }
        others.append(Sighting(at: time, what: .step(step)))
      }
    }
    guard isStruggle, step.letter == .start || step.letter == .end, strategy?.emptyTable ?? .none != .none,
      machine.operations[step.operation.slot]?.space == space
    else { return }
    if step.letter == .start {
      // What ended before the struggle has nothing to do with it.
      windows.removeAll { $0.until ?? .max < verdict.grantedAt }
      guard windows.count < Self.limit else { return }
      windows.append(
        Window(
          mark: OperationMark(operation: step.operation, kind: step.kind, at: time, startedAt: time, flushedAt: 0)))
    } else if let index = windows.lastIndex(where: { $0.mark.operation == step.operation && $0.until == nil }) {
      windows[index].until = time
    }
  }

  /// A verdict does not know who dropped the page when its address space has taken another one since; the log does: the
  /// last operation that changed the page's entry before the access, the one that freed the frame if it is known.
  mutating func completeDrop() {
    guard verdict.dropped.operation == .none, !isStruggle, !verdict.isWalk, verdict.kind != .forgedTranslation,
      verdict.kind != .usedAfterCompletion
    else { return }
    let steps = (verdict.freedForGood ? list : others).reversed().lazy.compactMap { sighting in
      if case .step(let step) = sighting.what, step.letter == .entries { (sighting.at, step) } else { nil }
    }
    guard let step = steps.first?.1, let at = steps.last(where: { $0.1.operation == step.operation })?.0 else { return }
    if !operations.contains(step.operation) {
      operations.append(step.operation)
      list += others.filter { $0.operation == step.operation }
    }
    func last(_ letter: OperationStep.Letter) -> Nanoseconds {
      list.last {
        if case .step(let other) = $0.what {
          other.operation == step.operation && other.letter == letter && $0.at <= at
        } else {
          false
        }
      }?.at ?? 0
    }
    verdict.dropped = OperationMark(
      operation: step.operation, kind: step.kind, at: at, startedAt: last(.start), flushedAt: last(.flushed))
  }
}

extension TranslationAnswer {
  fileprivate func coversPage(_ page: PageNumber) -> Bool {
    (page ^ self.page) >> UInt64(sizeLog2 - Page.sizeLog2) == 0
  }
}
