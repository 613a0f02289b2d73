// SPDX-License-Identifier: Apache-2.0

/// What each step of a step list does.
extension Machine {
  mutating func perform(_ step: Step, _ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    switch step {
    case .lockRead: lock(&operation, .read, &effects)
    case .lockWrite: lock(&operation, .write, &effects)
    case .unlock: unlock(&operation)
    case .checkBlocks: checkBlocks(&operation)
    case .insertArea: insertArea(&operation)
    case .detachAreas: detachAreas(&operation)
    case .changeAreas: changeAreas(&operation)
    case .start: runSite(.start, &operation, &effects)
    case .hold: hold(&operation, &effects)
    case .zap: zap(&operation, &effects)
    case .protect: protect(&operation, &effects)
    case .copyEntries: copyEntries(&operation, &effects)
    case .end: runSite(.end, &operation, &effects)
    case .unlinkTables: unlinkTables(&operation, &effects)
    case .cpuFlush: cpuFlush(&operation, &effects)
    case .flushSite: runSite(.flushSite, &operation, &effects)
    case .free: free(&operation, &effects)
    case .again: .go(to: programs.lists[Int(operation.kind.rawValue)].firstIndex(of: .zap)!)
    case .release: runSite(nil, &operation, &effects)
    case .destroySpace: destroySpace(&operation)
    case .createChild: createChild(&operation)
    case .nextArea: nextArea(&operation)
    case .nextAreaAgain: .go(to: programs.lists[Int(operation.kind.rawValue)].firstIndex(of: .nextArea)!)
    case .access: access(&operation, &effects)
    case .nextMember: nextMember(&operation, &effects)
    case .service: service(&operation)
    case .resolve: resolve(&operation, &effects)
    case .lockTable: lockTable(&operation)
    case .clearEntry: clearEntry(&operation, &effects)
    case .setNew: setNew(&operation, &effects)
    case .unlockTable: unlockTable(&operation)
    case .unlockAgain: unlockAgain(&operation)
    case .respond: respond(&operation, &effects)
    case .cut: cut(&operation, &effects)
    case .drain: drain(&operation, &effects)
    case .forget: forget(&operation)
    case .done: .finished
    }
  }

  // MARK: Locks

  private mutating func lock(
    _ operation: inout Operation, _ mode: MmapLock.Mode, _ effects: inout Effects
  ) -> StepOutcome {
    if operation.heldLock { return .through }
    let granted: Bool
    switch operation.target {
    case .addressSpace(let space)? where spaces.contains(space):
      granted = spaces[space].lock.acquire(operation.id, mode)
    case .domain(let domain)? where domains.contains(domain):
      granted = domains[domain].lock.acquire(operation.id, mode)
    default:
      if let group = operation.group {
        // Members of a group whose address space went while they waited for its lock.
        effects.counters.refusedFaults += UInt64(group.count - operation.fault.index)
      }
      if operation.fault.code == .success { operation.fault.code = .invalidRequest }
      return failure(&operation, .objectGone)
    }
    if granted {
      operation.heldLock = true
      return .through
    }
    report(.lockWait, operation, operation.range, &effects)
    return .blocked
  }

  mutating func unlock(_ operation: inout Operation) -> StepOutcome {
    precondition(operation.heldLock, "the lock is held")
    operation.heldLock = false
    let woken: [OperationID]
    switch operation.target! {
    case .addressSpace(let space): woken = spaces[space].lock.release(operation.id)
    case .domain(let domain): woken = domains[domain].lock.release(operation.id)
    }
    for waiter in woken {
      operations[waiter.slot]!.heldLock = true
      wake(waiter)
    }
    return .through
  }

  mutating func unlockTable(_ operation: inout Operation) -> StepOutcome {
    if operation.lockedTable != 0 {
      for waiter in tableLocks.release(operation.lockedTable) { wake(waiter) }
      operation.lockedTable = 0
    }
    return .through
  }

  // MARK: Areas

  /// The areas may have changed while the operation waited for the lock: a huge page is not split now either.
  @inline(__always)
  private func checkBlocks(_ operation: inout Operation) -> StepOutcome {
    if splitsBlock(operation.space!, operation.range) == nil { return .through }
    operation.status = .areasChanged
    return .go(to: programs.lists[Int(operation.kind.rawValue)].lastIndex(of: .unlock)!)
  }

  private mutating func insertArea(_ operation: inout Operation) -> StepOutcome {
    let space = operation.space!
    if spaces[space].areas.overlaps(operation.range) {
      operation.status = .areasChanged
    } else if !hasRoom(space, 1) {
      operation.status = .outOfMemory
    } else {
      spaces[space].areas.insert(
        Area(
          range: operation.range, rights: operation.rights, level: operation.level, sinceTurn: turn,
          writableSinceTurn: operation.rights.contains(.write) ? turn : .max))
    }
    return .through
  }

  private mutating func detachAreas(_ operation: inout Operation) -> StepOutcome {
    let space = operation.space!
    guard hasRoom(space, spaces[space].areas.growth(operation.range, keepsRange: false)) else {
      return tooManyAreas(&operation)
    }
    spaces[space].areas.remove(operation.range)
    return .through
  }

  private mutating func changeAreas(_ operation: inout Operation) -> StepOutcome {
    let space = operation.space!
    guard spaces[space].areas.covers(operation.range) else {
      operation.status = .areasChanged
      return .go(to: programs.lists[Int(operation.kind.rawValue)].firstIndex(of: .unlock)!)
    }
    guard hasRoom(space, spaces[space].areas.growth(operation.range, keepsRange: true)) else {
      return tooManyAreas(&operation)
    }
    spaces[space].areas.protect(operation.range, operation.rights, turn: turn)
    return .through
  }

  /// Others have filled the list of areas while the operation waited for the lock (Linux: ENOMEM).
  private func tooManyAreas(_ operation: inout Operation) -> StepOutcome {
    operation.status = .outOfMemory
    return .go(to: programs.lists[Int(operation.kind.rawValue)].lastIndex(of: .unlock)!)
  }

  // MARK: Letters

  @inline(__always)
  private func hold(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    guard settings.hold > 0 else { return .through }
    report(.hold, operation, operation.window, &effects)
    return .next(after: dilated(settings.hold))
  }

  @inline(__always)
  private func root(_ operation: Operation) -> FrameNumber {
    switch operation.target! {
    case .addressSpace(let space): spaces[space].root
    case .domain(let domain): domains[domain].root
    }
  }

  private mutating func zap(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let root = root(operation)
    while operation.cursor < operation.range.end {
      let (position, entry) = locate(root, operation.cursor)
      let span = UInt64(1) << (9 * UInt64(position.level))
      if entry.bits == 0 && position.level > 0 {
        operation.cursor = (operation.cursor / span + 1) * span
        continue
      }
      if tableLocks.isHeld(position.table, byOtherThan: operation.id) {
        tableLocks.wait(operation.id, for: position.table)
        return .blocked
      }
      let first = operation.cursor
      let count = zapTable(position, &operation)
      guard count > 0 else { continue }
      report(.entries, operation, PageRange(first: first, count: operation.cursor - first), &effects)
      if operation.gathered.count >= Int(settings.gatherBatch) && operation.space != nil {
        tableLocks.acquire(position.table, operation.id)
        operation.lockedTable = position.table
        effects.counters.fullBatches += 1
        return .next(after: cost(settings.costs.entry, times: count))
      }
      return .again(after: cost(settings.costs.entry, times: count))
    }
    let list = programs.lists[Int(operation.kind.rawValue)]
    return .go(to: list.firstIndex(of: .again)! + 1)
  }

  /// Clears entries of one table from the cursor on, until the table, the range or the gather batch ends.
  private mutating func zapTable(_ position: EntryPosition, _ operation: inout Operation) -> Int {
    let span = UInt64(1) << (9 * UInt64(position.level))
    let end = min(operation.range.end, (operation.cursor / (span * 512) + 1) * span * 512)
    var count = 0
    while operation.cursor < end {
      let index = walker.format.index(operation.cursor, level: position.level)
      let entry = PageTableEntry(bits: memory.load(position.table, index))
      if position.level > 0 && entry.isTable { break }
      if entry.bits != 0 {
        memory.store(position.table, index, 0)
        let page = operation.cursor / span * span
        drop(page, position.level, entry.leafFrame(level: position.level), &operation)
        operation.gathered.append(entry.leafFrame(level: position.level))
        operation.gather(PageRange(first: page, count: span))
        count += 1
      }
      operation.cursor = (operation.cursor / span + 1) * span
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
    }
  }

  private mutating func protect(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let space = operation.space!
    while operation.cursor < operation.range.end {
      let (position, entry) = locate(spaces[space].root, operation.cursor)
      let span = UInt64(1) << (9 * UInt64(position.level))
      if entry.bits == 0 && position.level > 0 {
        operation.cursor = (operation.cursor / span + 1) * span
        continue
      }
      if tableLocks.isHeld(position.table, byOtherThan: operation.id) {
        tableLocks.wait(operation.id, for: position.table)
        return .blocked
      }
      let first = operation.cursor
      let end = min(operation.range.end, (operation.cursor / (span * 512) + 1) * span * 512)
      var count = 0
      while operation.cursor < end {
        // Behind the huge leaves of one table may lie tables of small ones.
        if position.level > 0 && isTable(position.table, operation.cursor, position.level) { break }
        if restrict(position, &operation) { count += 1 }
        operation.cursor = (operation.cursor / span + 1) * span
      }
      guard count > 0 else { continue }
      report(.entries, operation, PageRange(first: first, count: operation.cursor - first), &effects)
      return .again(after: cost(settings.costs.entry, times: count))
    }
    return .through
  }

  @inline(__always)
  private func isTable(_ table: FrameNumber, _ page: PageNumber, _ level: UInt8) -> Bool {
    PageTableEntry(bits: memory.load(table, walker.format.index(page, level: level))).isTable
  }

  /// Gives one entry the rights of the mprotect; a write right comes back with the next write fault only.
  private mutating func restrict(_ position: EntryPosition, _ operation: inout Operation) -> Bool {
    let index = walker.format.index(operation.cursor, level: position.level)
    let old = PageTableEntry(bits: memory.load(position.table, index))
    if old.bits == 0 || position.level > 0 && old.isTable { return false }
    var bits = old.bits
    if operation.rights.isEmpty {
      bits = bits & ~PageTableEntry.present | PageTableEntry.heldWithoutRights
    } else {
      bits = bits & ~PageTableEntry.heldWithoutRights | PageTableEntry.present
    }
    if !operation.rights.contains(.write) { bits &= ~PageTableEntry.writable }
    guard bits != old.bits else { return false }
    memory.store(position.table, index, bits)
    let span = UInt64(1) << (9 * UInt64(position.level))
    let page = operation.cursor / span * span
    let frame = old.leafFrame(level: position.level)
    let rights: Rights =
      bits & PageTableEntry.present == 0 ? [] : bits & PageTableEntry.writable == 0 ? .read : .readWrite
    reduce(page, position.level, frame, rights, &operation)
    return true
  }

  /// The oracle's side of reduced rights.
  private mutating func reduce(
    _ page: PageNumber, _ level: UInt8, _ frame: FrameNumber, _ rights: Rights, _ operation: inout Operation
  ) {
    let stamp = stamp(operation)
    operation.dropped.append(Dropped(page: page, level: level, frame: frame, generation: memory.generation(frame)))
    operation.gather(PageRange(first: page, count: 1 << (9 * UInt64(level))))
    let turn = turn
    spaces[operation.space!].references.change(page, level: level) {
      $0.rights = rights
      $0.by = stamp
      $0.changedTurn = turn
    }
  }

  private mutating func unlinkTables(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    var found: [FrameNumber] = []
    let top = walker.format.levelCount - 1
    switch operation.target! {
    case .addressSpace(let space):
      unlinkTables(spaces[space].root, level: top, base: 0, operation.range, &found) { machine, span, _ in
        !machine.spaces[space].areas.overlaps(span)
      }
    case .domain(let domain):
      unlinkTables(domains[domain].root, level: top, base: 0, operation.range, &found) { machine, _, table in
        (0..<Page.wordCount).allSatisfy { machine.memory.load(table, $0) == 0 }
      }
    }
    guard !found.isEmpty else { return .through }
    operation.tables.append(contentsOf: found)
    operation.gather(operation.range)
    report(.tablesUnlinked, operation, operation.range, &effects)
    return .next(after: cost(settings.costs.entry, times: found.count))
  }

  private mutating func cpuFlush(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    guard let range = operation.gatherRange else { return .through }
    cpuTLB.flush(operation.space!, range)
    report(.cpuFlush, operation, range, &effects)
    return .next(after: cost(settings.costs.cpuFlush))
  }

  private mutating func free(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    guard let range = operation.gatherRange else {
      if !operation.gathered.isEmpty {
        // A copy that lost its race was never mapped.
        for frame in operation.gathered { memory.release(frame, by: stamp(operation)) }
        operation.gathered.removeAll(keepingCapacity: true)
      }
      return .through
    }
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

  // MARK: Exit

  private mutating func destroySpace(_ operation: inout Operation) -> StepOutcome {
    let space = operation.space!
    precondition(spaces[space].references.heldCount == 0, "an exit has dropped every reference")
    memory.release(spaces[space].root, by: stamp(operation))
    // Who still waits for the lock finds the address space gone.
    for waiter in spaces[space].lock.waiting { wake(waiter.operation) }
    spaces.remove(space)
    return .through
  }

  // MARK: Fork

  private mutating func createChild(_ operation: inout Operation) -> StepOutcome {
    guard spaces.count < Int(settings.limits.addressSpaces), let root = memory.allocate(.table) else {
      operation.status = .outOfMemory
      return .go(to: programs.lists[Int(operation.kind.rawValue)].firstIndex(of: .unlock)!)
    }
    let child = spaces.insert { AddressSpace(id: $0, root: root) }
    spaces[child].beingForked = true
    for area in spaces[operation.space!].areas.list {
      var copy = area
      copy.sinceTurn = turn
      if area.rights.contains(.write) { copy.writableSinceTurn = turn }
      spaces[child].areas.insert(copy)
    }
    operation.child = child
    operation.value = UInt64(child.rawValue)
    operation.cursor = 0
    return .through
  }

  /// copy_page_range runs S … E for each area in turn.
  private mutating func nextArea(_ operation: inout Operation) -> StepOutcome {
    let areas = spaces[operation.space!].areas.list
    guard let area = areas.first(where: { $0.range.end > operation.cursor }), operation.status == .success else {
      if let child = operation.child { spaces[child].beingForked = false }
      return .go(to: programs.lists[Int(operation.kind.rawValue)].firstIndex(of: .nextAreaAgain)! + 1)
    }
    operation.window = area.range
    operation.cursor = area.range.first
    return .through
  }

  private mutating func copyEntries(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let parent = operation.space!
    while operation.cursor < operation.window.end {
      let (position, entry) = locate(spaces[parent].root, operation.cursor)
      let span = UInt64(1) << (9 * UInt64(position.level))
      if entry.bits == 0 && position.level > 0 {
        operation.cursor = (operation.cursor / span + 1) * span
        continue
      }
      if tableLocks.isHeld(position.table, byOtherThan: operation.id) {
        tableLocks.wait(operation.id, for: position.table)
        return .blocked
      }
      let first = operation.cursor
      let end = min(operation.window.end, (operation.cursor / (span * 512) + 1) * span * 512)
      var count = 0
      while operation.cursor < end {
        guard let copied = copyEntry(position, &operation) else {
          abandonChild(&operation)
          return .go(to: operation.step + 1)
        }
        if copied { count += 1 }
        operation.cursor = (operation.cursor / span + 1) * span
      }
      guard count > 0 else { continue }
      report(.entries, operation, PageRange(first: first, count: operation.cursor - first), &effects)
      return .again(after: cost(settings.costs.entry, times: count))
    }
    operation.cursor = operation.window.end
    return .through
  }

  /// Write-protects the parent's entry and gives the child the same. nil: no frame for the child's tables.
  private mutating func copyEntry(_ position: EntryPosition, _ operation: inout Operation) -> Bool? {
    let child = operation.child!
    let index = walker.format.index(operation.cursor, level: position.level)
    let entry = PageTableEntry(bits: memory.load(position.table, index))
    if entry.bits == 0 || position.level > 0 && entry.isTable { return false }
    guard let table = makeTables(spaces[child].root, operation.cursor, level: position.level) else { return nil }
    let span = UInt64(1) << (9 * UInt64(position.level))
    let page = operation.cursor / span * span
    let frame = entry.leafFrame(level: position.level)
    let shared = entry.bits & ~PageTableEntry.writable
    if entry.isWritable {
      memory.store(position.table, index, shared)
      reduce(page, position.level, frame, shared & PageTableEntry.present == 0 ? [] : .read, &operation)
    }
    memory.retain(frame)
    memory.store(table, index, shared & ~(PageTableEntry.accessed | PageTableEntry.dirty))
    spaces[child].references.hold(
      page, level: position.level,
      Reference(
        frame: frame, generation: memory.generation(frame),
        rights: shared & PageTableEntry.present == 0 ? [] : .read, held: true, changedTurn: turn))
    return true
  }

  /// No device and no CPU knows the child of a fork that failed: it goes at once.
  private mutating func abandonChild(_ operation: inout Operation) {
    let child = operation.child!
    freeTree(spaces[child].root, stamp(operation))
    spaces.remove(child)
    operation.child = nil
    operation.value = 0
    operation.status = .outOfMemory
  }
}
