// SPDX-License-Identifier: Apache-2.0

/// Taking pages and tables away: P of a zap, C, T and F.
extension Machine {
  @inline(__always)
  func hold(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    guard settings.hold > 0 else { return .through }
    report(.hold, operation, operation.window, &effects)
    return .next(after: dilated(settings.hold))
  }

  @inline(__always)
  func root(_ operation: Operation) -> FrameNumber {
    switch operation.target! {
    case .addressSpace(let space): spaces[space].root
    case .domain(let domain): domains[domain].root
    case .kernel: kernel.root
    }
  }

  mutating func zap(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    while let position = nextEntry(&operation, before: operation.range.end) {
      if tableLocks.isHeld(position.table, byOtherThan: operation.id) {
        tableLocks.wait(operation.id, for: position.table)
        return .blocked
      }
      let first = operation.cursor
      let count = zapTable(position, &operation)
      guard count > 0 else { continue }
      report(.entries, operation, PageRange(first: first, count: operation.cursor - first), &effects)
      let isFull = operation.gathered.count >= Int(settings.gatherBatch)
      if (isFull || operation.forcesFlush) && operation.space != nil {
        operation.forcesFlush = false
        tableLocks.acquire(position.table, operation.id)
        operation.lockedTable = position.table
        if isFull { effects.counters.fullBatches += 1 }
        return .next(after: cost(settings.costs.entry, times: count))
      }
      return .again(after: cost(settings.costs.entry, times: count))
    }
    return leave(.again, operation)
  }

  /// Clears entries of one table from the cursor on, until the table, the range or the gather batch ends.
  mutating func zapTable(_ position: EntryPosition, _ operation: inout Operation) -> Int {
    let end = min(operation.range.end, position.end(of: operation.cursor))
    var count = 0
    while operation.cursor < end {
      let index = walker.format.index(operation.cursor, level: position.level)
      let entry = PageTableEntry(bits: memory.load(position.table, index))
      if position.level > 0 && entry.isTable { break }
      if entry.isSwapped {
        memory.store(position.table, index, 0)
        swap.release(entry.slot)
        count += 1
      } else if entry.bits != 0 {
        memory.store(position.table, index, 0)
        let page = position.first(of: operation.cursor)
        if keepDirty(entry, entry.leafFrame(level: position.level)) { operation.forcesFlush = true }
        drop(page, position.level, entry.leafFrame(level: position.level), &operation)
        operation.gathered.append(entry.leafFrame(level: position.level))
        if position.level == 1 { releaseDeposit(page, operation) }
        operation.gather(PageRange(first: page, count: position.span))
        count += 1
      }
      operation.cursor = position.next(after: operation.cursor)
      if operation.space != nil && operation.gathered.count >= Int(settings.gatherBatch) { break }
    }
    return count
  }

  /// The oracle's side of a cleared entry: the reference goes, and stays legal until the operation returns.
  mutating func drop(_ page: PageNumber, _ level: UInt8, _ frame: FrameNumber, _ operation: inout Operation) {
    let stamp = stamp(operation)
    operation.dropped.append(
      Dropped(page: page, level: level, frame: frame, generation: memory.generation(frame)))
    switch operation.target! {
    case .addressSpace(let space): spaces[space].references.drop(page, level: level, by: stamp, turn: turn)
    case .domain(let domain): domains[domain].references.drop(page, level: level, by: stamp, turn: turn)
    case .kernel: kernel.references.drop(page, level: level, by: stamp, turn: turn)
    }
  }

  @inline(__always)
  func beginGather(_ operation: inout Operation) -> StepOutcome {
    precondition(operation.gathered.isEmpty && operation.tables.isEmpty, "what was gathered has been freed")
    operation.gatherFirst = .max
    operation.gatherEnd = 0
    return .through
  }

  @inline(__always)
  func gatherRange(_ operation: inout Operation) -> StepOutcome {
    operation.gather(operation.window)
    return .through
  }

  mutating func unlinkTables(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    var found: [FrameNumber] = []
    let top = walker.format.levelCount - 1
    switch operation.target! {
    case .addressSpace(let space):
      unlinkTables(spaces[space].root, level: top, base: 0, operation.range, &found) { machine, span, _ in
        !machine.spaces[space].areas.overlaps(span)
      }
    case .domain(let domain):
      unlinkTables(domains[domain].root, level: top, base: 0, operation.range, &found) { machine, _, table in
        machine.isEmpty(table)
      }
    case .kernel:
      unlinkTables(kernel.root, level: top, base: KernelHalf.rootBase, operation.range, &found) {
        machine, span, table in
        // What a root entry points to stays.
        span.count < EntryPosition(table: 0, index: 0, level: top).span && machine.isEmpty(table)
      }
    }
    guard !found.isEmpty else { return .through }
    operation.tables.append(contentsOf: found)
    operation.gather(operation.range)
    report(.tablesUnlinked, operation, operation.range, &effects)
    return .next(after: cost(settings.costs.entry, times: found.count))
  }

  mutating func cpuFlush(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    guard let range = operation.gatherRange else { return .through }
    // No CPU here runs in the kernel: no TLB holds a page of its half.
    if let space = operation.space { cpuTLB.flush(space, range) }
    report(.cpuFlush, operation, range, &effects)
    return .next(after: cost(settings.costs.cpuFlush))
  }

  mutating func free(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    guard let range = operation.gatherRange else {
      if !operation.gathered.isEmpty {
        // A copy that lost its race was never mapped.
        for frame in operation.gathered { memory.release(frame, by: stamp(operation)) }
        operation.gathered.removeAll(keepingCapacity: true)
      }
      return .through
    }
    keepGathered(&operation, &effects)
    let stamp = stamp(operation)
    let count = operation.gathered.count + operation.tables.count
    var freed = 0
    // tlb_finish_mmu: the tables go with the flush, the pages of the batch after them.
    for table in operation.tables { memory.release(table, by: stamp) }
    for frame in operation.gathered where memory.release(frame, by: stamp) { freed += 1 }
    effects.counters.framesFreed += UInt64(freed)
    effects.counters.tablesFreed += UInt64(operation.tables.count)
    if !operation.tables.isEmpty { report(.tablesFreed, operation, range, &effects) }
    if !operation.gathered.isEmpty { report(.framesFreed, operation, range, &effects) }
    operation.gathered.removeAll(keepingCapacity: true)
    operation.tables.removeAll(keepingCapacity: true)
    operation.gatherFirst = .max
    operation.gatherEnd = 0
    return count == 0 ? .through : .next(after: cost(settings.costs.frameFree, times: count))
  }

  mutating func destroySpace(_ operation: inout Operation) -> StepOutcome {
    let space = operation.space!
    // Those without the lock may have deferred flushes after `release` had emptied the queue.
    if waitsForEmptyFlushQueue(space, operation.id) { return .blocked }
    // Who works on the page table without the mmap lock has it still (mmget); its end wakes this one.
    if spaces[space].operations.contains(where: { $0 != operation.id && worksWithoutLock($0) }) { return .blocked }
    precondition(spaces[space].references.heldCount == 0, "an exit has dropped every reference")
    memory.release(spaces[space].root, by: stamp(operation))
    // Who still waits for the lock finds the address space gone.
    for waiter in spaces[space].lock.waiting { wake(waiter.operation) }
    spaces.remove(space)
    return .through
  }
}
