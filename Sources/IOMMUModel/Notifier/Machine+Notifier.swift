// SPDX-License-Identifier: Apache-2.0

/// Telling subscribers: at S, at the flush site, at E, and at the other hooks. All that are concerned are told at once,
/// and the operation goes on when the last of them has answered.
extension Machine {
  /// Tells the subscribers what a site has for them.
  /// - Returns: nil when all have answered, and the site's own work may begin.
  mutating func tell(
    _ site: Strategy.Sites?, _ operation: inout Operation, _ effects: inout Effects
  ) -> StepOutcome? {
    guard let space = operation.space, operation.detached == nil else { return nil }
    if operation.telling == .nothing {
      if site == .start { openWindow(&operation) }
      if site == .end { closeWindow(&operation) }
      if spaces[space].notifier.subscribers.isEmpty {
        if site == .end { operation.awaitEnd.removeAll() }
        return nil
      }
      if site == nil { openWindow(&operation) }
      tellFirst(site, &operation, &effects)
    }
    while operation.owed == 0 {
      switch operation.telling {
      case .nothing: return nil
      case .first:
        if operation.isRefused {
          endRefused(&operation, &effects)
        } else {
          tellSecond(site, &operation, &effects)
        }
      case .second:
        operation.telling = .nothing
        if site == nil { closeWindow(&operation) }
        return nil
      case .refused:
        operation.telling = .nothing
        operation.isRefused = false
        operation.status = .busy
        return .go(to: lists[operation.kind].lastIndex(of: .unlock)!)
      }
    }
    return .blocked
  }

  // MARK: Windows

  /// `mn_itree_inv_start_range`, but for the calls.
  private mutating func openWindow(_ operation: inout Operation) {
    let space = operation.space!
    operation.isWindowOpen = true
    spaces[space].notifier.openWindows += 1
    for id in spaces[space].notifier.subscribers
    where subscribers[id].profile.kind.isInterval && subscribers[id].profile.range.overlaps(operation.window) {
      spaces[space].notifier.sequence |= 1
    }
  }

  /// `mn_itree_inv_end`: the last one out lets the readers go on.
  private mutating func closeWindow(_ operation: inout Operation) {
    guard operation.isWindowOpen else { return }
    let space = operation.space!
    operation.isWindowOpen = false
    spaces[space].notifier.openWindows -= 1
    for id in spaces[space].notifier.subscribers {
      subscribers[id].windows.removeAll { $0.operation == operation.id }
    }
    guard spaces[space].notifier.openWindows == 0, spaces[space].notifier.isInvalidating else { return }
    spaces[space].notifier.sequence += 1
    let readers = spaces[space].notifier.readers
    spaces[space].notifier.readers.removeAll()
    for reader in readers { wake(reader) }
  }

  // MARK: Events

  private mutating func tellFirst(
    _ site: Strategy.Sites?, _ operation: inout Operation, _ effects: inout Effects
  ) {
    operation.telling = .first
    guard let range = told(site, operation) else { return }
    let all = spaces[operation.space!].notifier.subscribers
    for isInterval in [true, false] {
      for id in all where subscribers[id].profile.kind.isInterval == isInterval && !subscribers[id].isSilent {
        guard let hook = hook(id, site, range, operation) else { continue }
        if site == .start && hook == .start { operation.awaitEnd.append(id) }
        if hook == .invalidate && subscribers[id].profile.takesTwoPasses { operation.awaitFinish.append(id) }
        send(hook, to: id, range, opensWindow: site == .start, &operation, &effects)
      }
    }
    if site == .end { operation.awaitEnd.removeAll(keepingCapacity: true) }
  }

  /// Interval notifiers with two passes finish what they all began; who came since has begun nothing.
  private mutating func tellSecond(
    _ site: Strategy.Sites?, _ operation: inout Operation, _ effects: inout Effects
  ) {
    operation.telling = .second
    guard let range = told(site, operation) else { return }
    for id in operation.awaitFinish where subscribers.contains(id) && !subscribers[id].isSilent {
      send(.finish, to: id, range, opensWindow: false, &operation, &effects)
    }
    operation.awaitFinish.removeAll(keepingCapacity: true)
  }

  /// A start that may not block was refused: the interval part ends at once, and who has begun is told of the end.
  private mutating func endRefused(_ operation: inout Operation, _ effects: inout Effects) {
    operation.telling = .refused
    operation.awaitFinish.removeAll(keepingCapacity: true)
    closeWindow(&operation)
    for id in operation.awaitEnd where subscribers.contains(id) && !subscribers[id].isSilent {
      send(.end, to: id, operation.window, opensWindow: false, &operation, &effects)
    }
    operation.awaitEnd.removeAll(keepingCapacity: true)
  }

  /// The pages that a site is about; nil: nothing has changed that anybody must be told of.
  @inline(__always)
  private func told(_ site: Strategy.Sites?, _ operation: Operation) -> PageRange? {
    switch site {
    case .start?, .end?: operation.window
    case .young?: operation.range
    case nil: .all
    default: operation.flushesWhole && operation.gatherRange != nil ? .all : operation.gatherRange
    }
  }

  /// Which hook of a subscriber a site calls; nil: none.
  @inline(__always)
  private func hook(
    _ id: SubscriberID, _ site: Strategy.Sites?, _ range: PageRange, _ operation: Operation
  ) -> NotifierEvent.Hook? {
    let profile = subscribers[id].profile
    let isOld = settings.kernel == .linux2014
    switch site {
    case .start?:
      if profile.kind.isInterval { return profile.range.overlaps(range) ? .invalidate : nil }
      return profile.kind.hasStartAndEnd ? .start : nil
    case .end?:
      if profile.kind.hasStartAndEnd { return operation.awaitEnd.contains(id) ? .end : nil }
      // E* of 2014 runs `invalidate_range` once more.
      return profile.kind == .secondaryTLB && isOld ? .invalidate : nil
    case .flushSite?: return profile.kind == .secondaryTLB ? .invalidate : nil
    case .invalidatePage?: return profile.kind.isInterval ? nil : .invalidate
    case .young?: return profile.kind == .kvmLike ? .young : nil
    case nil: return profile.kind.isInterval ? .invalidate : .release
    default: return nil
    }
  }

  private mutating func send(
    _ hook: NotifierEvent.Hook, to id: SubscriberID, _ range: PageRange, opensWindow: Bool,
    _ operation: inout Operation, _ effects: inout Effects
  ) {
    subscribers[id].lastEvent += 1
    let isRelease = operation.kind == .exit
    let isSplit = operation.step < lists[operation.kind].firstIndex(of: .nextEdgeAgain) ?? 0
    let event = NotifierEvent(
      subscriber: id, number: subscribers[id].lastEvent, hook: hook,
      reason: isRelease ? .release : isSplit ? .clear : operation.kind.reason,
      range: range, operation: operation.id,
      sequence: subscribers[id].profile.kind.isInterval ? spaces[operation.space!].notifier.sequence : 0,
      mayBlock: operation.kind != .oomReap || !opensWindow,
      owner: isSplit ? 0 : operation.owner)
    let timeout = pending.schedule(
      .answer(id, event: event.number), at: time + dilated(settings.notifierTimeout))
    subscribers[id].owed.append(Subscriber.Owed(event: event, opensWindow: opensWindow, timeoutTurn: timeout))
    operation.owed += 1
    effects.counters.notifierEvents += 1
    effects.append(event)
  }
}

extension OperationKind {
  /// Why an operation invalidates (`reference/linux-mm.md` §2, the event table).
  var reason: NotifierEvent.Reason {
    switch self {
    case .munmap, .exit, .mremap: .unmap
    case .mprotect, .numaHint, .uffdWriteProtect: .protectionVMA
    case .fork, .writeback: .protectionPage
    case .migrateToDevice: .migrate
    case .makeDeviceExclusive: .exclusive
    case .clearSoftDirty: .softDirty
    default: .clear
    }
  }
}
