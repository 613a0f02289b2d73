// SPDX-License-Identifier: Apache-2.0

/// The sites at which a strategy may run I, and I itself: caches of the IOMMU first, then ATC, then the fence command.
extension Machine {
  /// Runs S, the flush site, E, or (`nil`) the `release` hook: subscribers first, then the strategies of the sharers.
  mutating func runSite(
    _ site: Strategy.Sites?, _ operation: inout Operation, _ effects: inout Effects
  ) -> StepOutcome {
    if !operation.isTold, let outcome = tell(site, &operation, &effects) { return outcome }
    let outcome = flush(at: site, &operation, &effects)
    // A site that is not over comes again, and has told its subscribers already.
    switch outcome {
    case .again, .blocked: operation.isTold = true
    default: operation.isTold = false
    }
    return outcome
  }

  private mutating func flush(
    at site: Strategy.Sites?, _ operation: inout Operation, _ effects: inout Effects
  ) -> StepOutcome {
    switch operation.flushPhase {
    case 0: return enterSite(site, &operation, &effects)
    case 1:
      operation.flushPhase = 2
      for binding in operation.flushes where bindings.contains(binding) {
        pushInvalidation(
          to: binding, bindings[binding].strategy.reach.takes(operation.flushRange), &operation, &effects)
      }
      return operation.owed > 0 ? .blocked : leaveSite(site, &operation, &effects)
    default:
      precondition(operation.owed == 0, "a flush ends with its last completion")
      return leaveSite(site, &operation, &effects)
    }
  }

  /// Decides who is flushed, and flushes the caches of the IOMMU.
  private mutating func enterSite(
    _ site: Strategy.Sites?, _ operation: inout Operation, _ effects: inout Effects
  ) -> StepOutcome {
    if let site, waitsForRoom(site, operation) { return .blocked }
    switch site {
    case .start?, .end?:
      let whole: [BindingID]
      switch turnEmptyTable(on: site == .start, &operation) {
      case .locked: return .blocked
      case .countedDown: return .again(after: cost(settings.costs.end))
      case .turned(let bindings): whole = bindings
      }
      report(site == .start ? .start : .end, operation, operation.window, &effects)
      let sharers = deferFlushes(of: sharers(operation, site!), operation.window, &operation, &effects)
      operation.flushes = whole.isEmpty ? sharers : whole + sharers
      operation.flushRange = whole.isEmpty ? operation.window : .all
    case nil:
      if waitsForEmptyFlushQueue(operation.space!, operation.id) { return .blocked }
      report(.release, operation, .all, &effects)
      let released = spaces[operation.space!].bindings.filter { bindings[$0].strategy.release }
      for binding in released { bindings[binding].table = .cut }
      operation.flushes = released
      operation.flushRange = .all
    case .flushSite?:
      if let detached = operation.detached {
        operation.flushes = bindings.contains(detached.binding) ? [detached.binding] : []
        operation.flushRange = .all
        report(.flushSite, operation, operation.flushRange, &effects)
      } else if operation.kind == .flushQueue {
        operation.flushes = spaces[operation.space!].bindings.filter { bindings[$0].strategy.deferral != .none }
        operation.flushRange = .all
        report(.flushSite, operation, operation.flushRange, &effects)
      } else {
        guard let range = operation.gatherRange else { return .through }
        operation.flushRange = operation.target == .kernel ? .kernel : operation.flushesWhole ? .all : range
        report(.flushSite, operation, operation.flushRange, &effects)
        operation.flushes = deferFlushes(
          of: sharers(operation, .flushSite), operation.flushRange, &operation, &effects)
      }
    case let hook?:
      guard let range = operation.gatherRange else { return .through }
      let asked = sharers(operation, hook)
      guard !asked.isEmpty else { return .through }
      report(Self.letter(hook), operation, range, &effects)
      operation.flushes = deferFlushes(of: asked, range, &operation, &effects)
      operation.flushRange = range
    }
    guard !operation.flushes.isEmpty else {
      return site == .start || site == .end ? finishSite(site, &operation) : .through
    }
    // Bindings of one address space and PASID share the IOMMU's entries: one of them clears for all, if it reaches as far.
    var cleared: [(owner: UInt64, range: PageRange)] = []
    var commands = 1
    for id in operation.flushes {
      let binding = bindings[id]
      let range = binding.strategy.reach.takes(operation.flushRange)
      commands = max(commands, binding.strategy.reach.commandCount(operation.flushRange))
      caches.invalidate(rid: devices[binding.device].profile.rid, binding.pasid)
      let owner = IOMMUCaches.owner(tag: Self.tag(binding.target), binding.pasid)
      if !cleared.contains(where: { $0.owner == owner && $0.range.contains(range) }) {
        cleared.append((owner, range))
        caches.invalidate(tag: Self.tag(binding.target), binding.pasid, range)
      }
    }
    operation.flushPhase = 1
    return .again(after: cost(settings.costs.iotlbFlush, times: commands))
  }

  private static func letter(_ hook: Strategy.Sites) -> OperationStep.Letter {
    switch hook {
    case .invalidatePage: .invalidatePage
    case .changePTE: .changePTE
    case .upgrade: .upgrade
    default: .young
    }
  }

  private mutating func leaveSite(
    _ site: Strategy.Sites?, _ operation: inout Operation, _ effects: inout Effects
  ) -> StepOutcome {
    operation.flushPhase = 0
    operation.flushes.removeAll(keepingCapacity: true)
    history.flushed(operation.id, at: time)
    report(.flushed, operation, operation.flushRange, &effects)
    return finishSite(site, &operation)
  }

  /// S and E cost time of their own, flushed or not; the counter's lock is given back when its flush is over.
  private mutating func finishSite(_ site: Strategy.Sites?, _ operation: inout Operation) -> StepOutcome {
    releaseEmptyTableLock(operation)
    switch site {
    case .start?:
      history.started(operation.id, at: time)
      return .next(after: cost(settings.costs.start))
    case .end?: return .next(after: cost(settings.costs.end))
    default: return .next(after: 0)
    }
  }

  /// Bindings whose strategy flushes a range at this site. A domain's own unmap flushes all its bindings, strictly.
  @inline(__always)
  private func sharers(_ operation: Operation, _ site: Strategy.Sites) -> [BindingID] {
    switch operation.target! {
    case .addressSpace(let space):
      // Between S and E the empty table's users are flushed whole, by `turnEmptyTable` alone.
      spaces[space].bindings.filter {
        bindings[$0].strategy.sites.contains(site)
          && (bindings[$0].strategy.emptyTable == .none || site != .start && site != .end)
      }
    case .domain(let domain): domains[domain].bindings
    // Every address space has the kernel's half.
    case .kernel:
      bindings.ids.filter {
        if case .addressSpace = bindings[$0].target { bindings[$0].strategy.sites.contains(site) } else { false }
      }
    }
  }

  static func tag(_ target: Binding.Target) -> UInt32 {
    switch target {
    case .addressSpace(let space): space.rawValue
    // Domains and address spaces have tags of their own: the high bit tells them apart within 16-bit slots.
    case .domain(let domain): ~domain.rawValue
    case .kernel: .max
    }
  }

  // MARK: The empty table

  private enum EmptyTableTurn {
    /// The counter's lock is held; the operation waits for it.
    case locked
    /// The last E has counted down, and restores the table in a turn of its own: the race of `.racy`.
    case countedDown
    /// These bindings point elsewhere now, and are flushed whole.
    case turned([BindingID])
  }

  /// Counts an S up or an E down, and points the PASIDs to the empty table or back to the real one.
  private mutating func turnEmptyTable(on: Bool, _ operation: inout Operation) -> EmptyTableTurn {
    guard case .addressSpace(let space)? = operation.target else { return .turned([]) }
    // Every window counts, also one that begins without a user: who attaches inside it finds the empty table. An
    // operation that counted itself in counts itself out.
    guard on || operation.countedInEmptyTable else { return .turned([]) }
    let users = spaces[space].bindings.filter { bindings[$0].strategy.emptyTable != .none }
    if !on && !operation.countedDown {
      operation.countedDown = true
      spaces[space].emptyTable.racyCount -= 1
      operation.restoresRacy = spaces[space].emptyTable.racyCount == 0
      if operation.restoresRacy && users.contains(where: { bindings[$0].strategy.emptyTable == .racy }) {
        return .countedDown
      }
    }
    guard spaces[space].emptyTable.holder == .none else {
      spaces[space].emptyTable.waiting.append(operation.id)
      return .locked
    }
    operation.countedInEmptyTable = on
    if on {
      operation.countedDown = false
      spaces[space].emptyTable.racyCount += 1
    }
    spaces[space].emptyTable.count += on ? 1 : -1
    let isOutermost = spaces[space].emptyTable.count == (on ? 1 : 0)
    let turnsRacy = on ? spaces[space].emptyTable.racyCount == 1 : operation.restoresRacy
    var turned: [BindingID] = []
    for binding in users where bindings[binding].table != .cut {
      switch bindings[binding].strategy.emptyTable {
      case .none: continue
      case .uncounted: break
      case .racy: guard turnsRacy else { continue }
      case .counted:
        guard isOutermost else { continue }
        spaces[space].emptyTable.holder = operation.id
      }
      bindings[binding].table = on ? .empty : .real
      turned.append(binding)
    }
    return .turned(turned)
  }

  private mutating func releaseEmptyTableLock(_ operation: Operation) {
    guard case .addressSpace(let space)? = operation.target, spaces.contains(space),
      spaces[space].emptyTable.holder == operation.id
    else { return }
    spaces[space].emptyTable.holder = .none
    let waiting = spaces[space].emptyTable.waiting
    spaces[space].emptyTable.waiting.removeAll()
    for waiter in waiting { wake(waiter) }
  }
}
