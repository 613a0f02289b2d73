// SPDX-License-Identifier: Apache-2.0

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
    /// The mirror is told of the page, answers, and installs it.
    case told(NotifierEvent, of: OperationKind)
    case answeredEvent(NotifierEvent, of: OperationKind)
    case installed(fault: UInt64)
  }
  struct Sighting: Equatable {
    var moment: Moment
    var what: What

    var at: Nanoseconds { moment.at }

    var operation: OperationID? {
      switch what {
      case .step(let step): step.operation
      case .returned(let operation): operation
      case .told(let event, _), .answeredEvent(let event, _): event.operation
      default: nil
      }
    }
  }
  /// When it was seen. Without costs much happens at one time: the order in which it was seen is the log's.
  struct Moment: Comparable {
    var at: Nanoseconds
    /// 1, 2, 3 …; 0: not seen, and before all that was at that time.
    var order = 0

    static func < (a: Moment, b: Moment) -> Bool { (a.at, a.order) < (b.at, b.order) }
  }
  /// An operation that keeps the PASIDs of the address space on the empty table.
  struct Window {
    var mark: OperationMark
    var since: Moment
    var until: Moment?
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
  private var issues: [(tag: UInt32, moment: Moment)] = []
  private var cpuAccesses: [OperationID] = []
  private var openTags: [UInt8] = []
  private var owedEvents: [(event: NotifierEvent, kind: OperationKind)] = []
  /// Of each: a story needs the first ones of a struggle and the last ones of everything else.
  private static let limit = 256
  private var lastOrder = 0

  init(_ verdict: Verdict) {
    self.verdict = verdict
    operations = verdict.marks.map(\.operation)
  }

  var isOfMirror: Bool { verdict.isOfMirror }
  var isStruggle: Bool { verdict.kind == .gaveUp || verdict.kind == .livelock }

  mutating func note(_ entry: Log.Entry, _ effects: Effects, _ machine: Machine) {
    if case .command(let command, let reply) = entry.turn {
      note(command, reply, at: entry.time)
      if isOfMirror { noteMirror(command, reply, at: entry.time, earns: effects.verdicts.contains(verdict)) }
    }
    let walked = effects.counters.walks > 0
    for effect in effects.list {
      note(effect, at: entry.time, machine, walked: walked)
      if isOfMirror { noteMirror(effect, effects, at: entry.time, machine) }
    }
  }

  private mutating func see(_ what: What, at time: Nanoseconds) { see(what, moment(time)) }

  private mutating func see(_ what: What, _ moment: Moment) {
    if list.count >= Self.limit {
      if isStruggle { return }
      list.removeFirst()
    }
    list.append(Sighting(moment: moment, what: what))
  }

  private mutating func moment(_ time: Nanoseconds) -> Moment {
    lastOrder += 1
    return Moment(at: time, order: lastOrder)
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
      issues.append((request.tag, moment(time)))
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
      if let issue = issues.first { see(.issued, issue.moment) }
    case .step(let step): note(step, at: time, machine)
    case .operation(let outcome):
      if operations.contains(outcome.operation) { see(.returned(outcome.operation), at: time) }
      if others.contains(where: { $0.operation == outcome.operation }) {
        others.append(Sighting(moment: moment(time), what: .returned(outcome.operation)))
      }
      if let index = cpuAccesses.firstIndex(of: outcome.operation) {
        cpuAccesses.remove(at: index)
        if time >= verdict.dropped.at && !list.contains(where: { $0.what == .usedByCPU }) { see(.usedByCPU, at: time) }
      }
    default: break
    }
  }

  // MARK: Mirrors

  /// - Parameter earns: it is the command that earned the verdict.
  private mutating func noteMirror(_ command: Command, _ reply: Reply, at time: Nanoseconds, earns: Bool) {
    switch command {
    case .subscribe(let space, _):
      if case .subscriber(verdict.subscriber, _, _) = reply { self.space = space }
    case .answer(verdict.subscriber, let answer):
      guard let index = owedEvents.firstIndex(where: { $0.event.number == answer.number }) else { return }
      let owed = owedEvents.remove(at: index)
      if !answer.refuses { see(.answeredEvent(owed.event, of: owed.kind), at: time) }
    case .mirrorInstall(verdict.subscriber, let install) where install.range.contains(verdict.page) && !earns:
      see(.installed(fault: install.fault), at: time)
    default: break
    }
  }

  private mutating func noteMirror(_ effect: Effect, _ effects: Effects, at time: Nanoseconds, _ machine: Machine) {
    switch effect {
    case .notifierEvent(let index):
      let event = effects.notifierEvents[index]
      guard event.subscriber == verdict.subscriber, event.range.contains(verdict.page) else { return }
      // It waits for the answer, and so is still there.
      let kind = machine.kind(event.operation) ?? .exit
      owedEvents.append((event, kind))
      see(.told(event, of: kind), at: time)
    case .rangeFault(let index):
      let fault = effects.rangeFaults[index]
      let range = PageRange(first: fault.first, count: UInt64(fault.pages.count))
      guard fault.subscriber == verdict.subscriber, time == verdict.grantedAt, range.contains(verdict.page),
        fault.pages[Int(verdict.page - fault.first)].physicalAddress >> 12 == UInt64(verdict.frame)
      else { return }
      list.removeAll { $0.what == .granted }
      see(.granted, at: time)
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
        others.append(Sighting(moment: moment(time), what: .step(step)))
      }
    }
    guard isStruggle, step.letter == .start || step.letter == .end, strategy?.emptyTable ?? .none != .none,
      machine.operations[step.operation.slot]?.space == space
    else { return }
    if step.letter == .start {
      // What ended before the struggle has nothing to do with it.
      windows.removeAll { $0.until?.at ?? .max < verdict.grantedAt }
      guard windows.count < Self.limit else { return }
      windows.append(
        Window(
          mark: OperationMark(operation: step.operation, kind: step.kind, at: time, startedAt: time, flushedAt: 0),
          since: moment(time)))
    } else if let index = windows.lastIndex(where: { $0.mark.operation == step.operation && $0.until == nil }) {
      windows[index].until = moment(time)
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
