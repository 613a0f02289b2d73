// SPDX-License-Identifier: Apache-2.0

/// I that waits: what goes into an address space's flush queue, who waits for it, and the operation that flushes it.
extension Machine {
  // MARK: Into the queue

  /// Whether a site must wait before it may put anything into the queue: as many entries as it holds are not yet covered
  /// by a flush. Bounds what a queue keeps.
  mutating func waitsForRoom(_ site: Strategy.Sites, _ operation: Operation) -> Bool {
    // A detach flushes its own binding at once, and its address space may be gone.
    guard case .addressSpace(let space)? = operation.target, operation.kind != .flushQueue, operation.kind != .detach,
      spaces[space].flushQueue.waitingCount >= Int(settings.flushQueueEntries),
      spaces[space].bindings.contains(where: {
        bindings[$0].strategy.deferral != .none && bindings[$0].strategy.sites.contains(site)
      })
    else { return false }
    waitForFlush(space, operation.id)
    return true
  }

  /// Of those whose strategy flushes at a site: who is flushed now. I of the others goes into the flush queue.
  mutating func deferFlushes(
    of asked: [BindingID], _ range: PageRange, _ operation: inout Operation, _ effects: inout Effects
  ) -> [BindingID] {
    guard case .addressSpace(let space)? = operation.target,
      asked.contains(where: { bindings[$0].strategy.deferral != .none })
    else { return asked }
    let holdsBack = canHoldBack(operation)
    let deferred = asked.filter {
      let deferral = bindings[$0].strategy.deferral
      return deferral == .lazy || deferral == .held && holdsBack
    }
    operation.queued = 0
    guard !deferred.isEmpty else { return asked }
    operation.queued = spaces[space].flushQueue.append(
      range, of: operation.id, keepsTables: true,
      keepsFrames: deferred.contains { bindings[$0].strategy.deferral == .held })
    effects.counters.deferredFlushes += UInt64(deferred.count)
    report(.flushQueued, operation, range, &effects)
    if spaces[space].flushQueue.waitingCount >= Int(settings.flushQueueEntries) {
      startFlush(space)
    } else {
      armFlushTimer(space)
    }
    return asked.filter { !deferred.contains($0) }
  }

  /// Whether all that devices might still use of what the operation changed is gathered, so that a queue can keep it: a
  /// zap of pages that nobody else uses, none of which has come back at its place since.
  @inline(__always)
  private func canHoldBack(_ operation: Operation) -> Bool {
    guard let space = operation.space, lists[operation.kind].gathers(before: operation.step),
      operation.gathered.allSatisfy({ memory[$0].references == 1 })
    else { return false }
    return !operation.dropped.contains { spaces[space].references.find($0.page, level: $0.level)?.held == true }
  }

  /// F and T of what a queue keeps: it goes into the operation's entry.
  mutating func keepGathered(_ operation: inout Operation, _ effects: inout Effects) {
    guard operation.queued != 0, let space = operation.space,
      let position = spaces[space].flushQueue.position(of: operation.queued)
    else { return }
    operation.queued = 0
    let entry = spaces[space].flushQueue.entries[position]
    if entry.keepsTables && !operation.tables.isEmpty {
      spaces[space].flushQueue.keep(operation.tables, at: position)
      effects.counters.keptFrames += UInt64(operation.tables.count)
      operation.tables.removeAll(keepingCapacity: true)
    }
    if entry.keepsFrames && !operation.gathered.isEmpty {
      // A zap drops one reference for each frame that it gathers, in this order.
      spaces[space].flushQueue.keep(
        operation.gathered, for: operation.dropped.suffix(operation.gathered.count), at: position)
      effects.counters.keptFrames += UInt64(operation.gathered.count)
      operation.gathered.removeAll(keepingCapacity: true)
    }
  }

  /// Linux's `fq_timer`: it runs from the first entry on, and takes all that is there when it ends.
  private mutating func armFlushTimer(_ space: AddressSpaceID) {
    let queue = spaces[space].flushQueue
    guard queue.timer == 0, !queue.isOverdue, queue.waitingCount > 0 else { return }
    spaces[space].flushQueue.timer = pending.schedule(
      .flushTimer(space), at: time + dilated(settings.flushQueueTimeout))
  }

  /// The oldest entry has waited its time.
  mutating func endFlushTimer(_ space: AddressSpaceID) {
    spaces[space].flushQueue.timer = 0
    spaces[space].flushQueue.isOverdue = spaces[space].flushQueue.flush != .none
    startFlush(space)
  }

  // MARK: Who waits for a flush

  /// Flushes the queue at once; the operation is woken at the end.
  private mutating func waitForFlush(_ space: AddressSpaceID, _ operation: OperationID) {
    spaces[space].flushQueue.waiting.append(operation)
    startFlush(space)
  }

  /// Whether an operation must wait until the queue is empty: exit, detach.
  mutating func waitsForEmptyFlushQueue(_ space: AddressSpaceID, _ operation: OperationID) -> Bool {
    guard spaces.contains(space), !spaces[space].flushQueue.isIdle else { return false }
    waitForFlush(space, operation)
    return true
  }

  /// Whether who sets a new entry must wait, because a device may still use the page that stood there (as Linux's
  /// `flush_tlb_batched_pending`, and as an IOVA that is not given out again before its flush).
  mutating func waitsForKeptPages(_ space: AddressSpaceID, _ range: PageRange, _ operation: OperationID) -> Bool {
    guard !spaces[space].flushQueue.entries.isEmpty, spaces[space].flushQueue.keepsPages(in: range) else {
      return false
    }
    waitForFlush(space, operation)
    return true
  }

  /// Whether who finds no free frame may hope for those that the queue keeps.
  mutating func waitsForKeptFrames(_ space: AddressSpaceID, _ operation: OperationID) -> Bool {
    guard spaces[space].flushQueue.keptFrameCount > 0 else { return false }
    waitForFlush(space, operation)
    return true
  }

  // MARK: The flush

  /// Starts the operation that flushes a queue, in a turn of its own, unless it runs.
  mutating func startFlush(_ space: AddressSpaceID) {
    guard spaces[space].flushQueue.flush == .none, !spaces[space].flushQueue.entries.isEmpty else { return }
    guard operationCount < Self.operationSlots else {
      // The end of another operation starts it.
      if !flushesWanted.contains(space) { flushesWanted.append(space) }
      return
    }
    let id = insert(.flushQueue, .addressSpace(space), .all)
    spaces[space].flushQueue.flush = id
    wake(id)
  }

  /// A slot for an operation is free.
  mutating func startWantedFlushes() {
    guard !flushesWanted.isEmpty else { return }
    let wanted = flushesWanted
    flushesWanted.removeAll()
    for space in wanted where spaces.contains(space) { startFlush(space) }
  }

  mutating func takeQueue(_ operation: inout Operation) -> StepOutcome {
    spaces[operation.space!].flushQueue.begin()
    return .through
  }

  /// T and F of all that the queue kept for the flush that is complete now.
  mutating func freeQueue(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let space = operation.space!
    let flushed = spaces[space].flushQueue.end()
    let stamp = stamp(operation)
    var tables = 0
    var frames = 0
    for entry in flushed {
      for table in entry.tables { memory.release(table, by: stamp) }
      for frame in entry.frames where memory.release(frame, by: stamp) { frames += 1 }
      tables += entry.tables.count
    }
    effects.counters.queueFlushes += 1
    effects.counters.tablesFreed += UInt64(tables)
    effects.counters.framesFreed += UInt64(frames)
    if tables > 0 { report(.tablesFreed, operation, .all, &effects) }
    if frames > 0 { report(.framesFreed, operation, .all, &effects) }
    let queue = spaces[space].flushQueue
    if queue.waitingCount >= Int(settings.flushQueueEntries) || queue.isOverdue {
      startFlush(space)
    } else {
      armFlushTimer(space)
    }
    let waiting = spaces[space].flushQueue.waiting
    spaces[space].flushQueue.waiting.removeAll()
    for waiter in waiting { wake(waiter) }
    return tables + frames == 0 ? .through : .next(after: cost(settings.costs.frameFree, times: tables + frames))
  }
}
