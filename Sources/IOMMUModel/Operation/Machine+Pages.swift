// SPDX-License-Identifier: Apache-2.0

/// Operations that take one page after the other: KSM, migration, UFFDIO_MOVE. Each clears the entry of a page and puts
/// something else in its place; in between the operation itself holds the frame.
extension Machine {
  // MARK: The next page

  /// Takes the next page of the range that the operation can work on; pages that others use too, or that are absent,
  /// are passed over (our choice: the kernel would wait for some of them).
  mutating func nextPage(_ operation: inout Operation) -> StepOutcome {
    let space = operation.space!
    // A batch of reclaim is flushed and freed as one.
    if operation.pagesOut.isEmpty { _ = beginGather(&operation) }
    while operation.pagesOut.count < Self.reclaimBatch, operation.cursor < operation.range.end {
      let (position, entry) = locate(spaces[space].root, operation.cursor)
      if operation.kind == .migrateToDevice && entry.bits == 0 {
        if takeEmptySlot(position, &operation) { return .through }
        continue
      }
      let page = position.first(of: operation.cursor)
      let frame = entry.leafFrame(level: position.level)
      operation.cursor = page + position.span
      guard position.level == 0 || migratesWhole(page, position, operation), entry.isPresent,
        isEligible(page, entry, operation)
      else { continue }
      if operation.kind == .reclaim && !isolate(page, entry, &operation) { continue }
      if operation.kind == .writeback { lockForWriting(page, entry, &operation) }
      if operation.kind == .migratePages || operation.kind == .migrateToDevice {
        guard let copy = memory.allocateBlock(log2: 9 * position.level) else {
          if position.level > 0 {
            operation.cursor = page
            operation.fault.page = page
            operation.fault.splits = true
            return .go(to: lists[operation.kind].firstIndex(of: .nextEdge)!)
          }
          if operation.value == 0 { operation.status = .outOfMemory }
          return leave(.nextPageAgain, operation)
        }
        operation.fault.newFrame = copy
        operation.fault.ownsNewFrame = true
        // The page is isolated: a hold of its own keeps the frame until the copy is done.
        memory.retain(frame)
        operation.gathered.append(frame)
        pageLocks.acquire(frame, operation.id)
        operation.lockedPage = frame
      }
      operation.fault.page = page
      operation.fault.level = position.level
      operation.fault.oldFrame = frame
      operation.fault.oldEntry = Self.withoutHistory(entry.bits)
      operation.fault.lost = false
      operation.window = PageRange(first: page, count: position.span)
      return .through
    }
    if operation.value == 0 && operation.status == .success && operation.pagesOut.isEmpty { operation.status = .busy }
    return leave(.nextPageAgain, operation)
  }

  /// A huge page goes into a device's memory as one (`migrate_vma_collect_huge_pmd`); those that the range cuts were split.
  @inline(__always)
  private func migratesWhole(_ page: PageNumber, _ position: EntryPosition, _ operation: Operation) -> Bool {
    operation.kind == .migrateToDevice && isHugePage(page, operation.space!)
      && operation.range.contains(PageRange(first: page, count: position.span))
  }

  @inline(__always)
  private func isEligible(_ page: PageNumber, _ entry: PageTableEntry, _ operation: Operation) -> Bool {
    let isAlone =
      memory[entry.frame].references == 1 && memory[entry.frame].use == .data
      && memory[entry.frame].filePage == .none
    switch operation.kind {
    case .ksmWriteProtect: return isAlone && entry.isWritable
    case .ksmReplacePage:
      guard !entry.isWritable, !entry.isUserfaultWriteProtected, let kept = keptFrame(page, operation),
        kept != entry.frame
      else { return false }
      return memory.equal(entry.frame, kept)
    case .reclaim: return memory[entry.frame].use == .data
    case .writeback:
      return memory[entry.frame].filePage != .none && entry.isWritable
        && !pageLocks.isHeld(entry.frame, byOtherThan: operation.id)
    case .makeDeviceExclusive: return isAlone
    case .migratePages, .migrateToDevice: return isAlone && !pageLocks.isHeld(entry.frame, byOtherThan: operation.id)
    default: return isAlone && canTake(destination(of: page, operation), operation)
    }
  }

  /// The frame that KSM keeps for a page: the keeper's, write-protected too.
  @inline(__always)
  private func keptFrame(_ page: PageNumber, _ operation: Operation) -> FrameNumber? {
    guard let keeper = operation.keeper, spaces.contains(keeper) else { return nil }
    let (position, entry) = locate(spaces[keeper].root, destination(of: page, operation))
    guard position.level == 0, entry.isPresent, !entry.isWritable, memory[entry.frame].use == .data else { return nil }
    return entry.frame
  }

  /// Whether an absent page of an area with rights stands there.
  @inline(__always)
  private func canTake(_ page: PageNumber, _ operation: Operation) -> Bool {
    guard let area = spaces[operation.space!].areas.find(page), area.level == 0, area.file == nil,
      !area.rights.isEmpty
    else {
      return false
    }
    return locate(spaces[operation.space!].root, page).entry.bits == 0
  }

  // MARK: P

  /// The locks of the page's table and of the destination's.
  mutating func lockTables(_ operation: inout Operation) -> StepOutcome {
    let root = spaces[operation.space!].root
    let moved = PageRange(first: destination(of: operation.fault.page, operation), count: 1)
    if waitsForKeptPages(operation.space!, moved, operation.id) { return .blocked }
    guard let table = makeTables(root, destination(of: operation.fault.page, operation), level: 0) else {
      operation.fault.lost = true
      return .through
    }
    return lockTables(locate(root, operation.fault.page).position.table, table, &operation) ? .through : .blocked
  }

  mutating func clearPage(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let page = operation.fault.page
    let position = locate(spaces[operation.space!].root, page).position
    let bits = memory.load(position.table, position.index)
    guard position.level == operation.fault.level, Self.withoutHistory(bits) == operation.fault.oldEntry,
      !operation.fault.lost
    else {
      operation.fault.lost = true
      return .through
    }
    if operation.fault.oldFrame == 0 { return .through }
    if position.level > 0 { return hide(position, &operation, &effects) }
    memory.store(position.table, position.index, 0)
    keepDirty(PageTableEntry(bits: bits), operation.fault.oldFrame)
    drop(page, 0, operation.fault.oldFrame, &operation)
    operation.fault.ownsOldFrame = true
    operation.gather(operation.window)
    report(.entries, operation, operation.window, &effects)
    return .next(after: cost(settings.costs.entry))
  }

  mutating func setReadOnly(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    if operation.fault.lost { return .through }
    // check-refs: who came to hold the page since, a pin perhaps, keeps it writable.
    let isAlone = memory[operation.fault.oldFrame].references == 1
    let entry = PageTableEntry(bits: operation.fault.oldEntry)
    install(isAlone ? entry.with(.read) : entry, at: operation.fault.page, &operation)
    if isAlone { operation.value += 1 }
    return set(&operation, &effects)
  }

  /// page_mkclean: the entry comes back without the write right, and the next write is seen.
  mutating func setClean(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    if operation.fault.lost { return .through }
    operation.pagesOut[operation.pagesOut.count - 1].isUnmapped = true
    install(PageTableEntry(bits: operation.fault.oldEntry).with(.read), at: operation.fault.page, &operation)
    return set(&operation, &effects)
  }

  mutating func setShared(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    if operation.fault.lost { return .through }
    let old = operation.fault.oldFrame
    let entry = PageTableEntry(bits: operation.fault.oldEntry)
    guard let kept = keptFrame(operation.fault.page, operation), kept != old, memory.equal(old, kept) else {
      install(entry, at: operation.fault.page, &operation)
      return set(&operation, &effects)
    }
    memory.retain(kept)
    install(PageTableEntry.leaf(kept, .read, level: 0), at: operation.fault.page, &operation)
    operation.gathered.append(old)
    operation.value += 1
    return set(&operation, &effects)
  }

  mutating func setMoved(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    if operation.fault.lost { return .through }
    let target = destination(of: operation.fault.page, operation)
    let isFree = canTake(target, operation)
    let rights = spaces[operation.space!].areas.find(target)?.rights ?? []
    let entry = PageTableEntry(bits: operation.fault.oldEntry)
    install(isFree ? entry.with(rights) : entry, at: isFree ? target : operation.fault.page, &operation)
    if isFree { operation.value += 1 }
    return set(&operation, &effects)
  }

  mutating func nextBatch(_ operation: inout Operation) -> StepOutcome {
    operation.cursor < operation.range.end ? .go(to: lists[operation.kind].firstIndex(of: .nextPage)!) : .through
  }

  mutating func setMigration(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    if operation.fault.lost { return .through }
    if operation.fault.oldFrame == 0 { return fillEmptySlot(&operation, &effects) }
    let marked = operation.fault.oldEntry & ~PageTableEntry.present | PageTableEntry.migrating
    install(PageTableEntry(bits: marked), at: operation.fault.page, &operation)
    return set(&operation, &effects)
  }

  /// P: the page stays where it is, and is one device's own until somebody else touches it.
  mutating func setExclusive(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    if operation.fault.lost { return .through }
    let special = operation.fault.oldEntry & ~(PageTableEntry.present | PageTableEntry.writable)
    install(PageTableEntry(bits: special | PageTableEntry.deviceExclusive), at: operation.fault.page, &operation)
    operation.value += 1
    return set(&operation, &effects)
  }

  mutating func copyPage(_ operation: inout Operation) -> StepOutcome {
    if operation.fault.lost || operation.fault.oldFrame == 0 { return .through }
    let blockLog2 = 9 * operation.fault.level
    memory.copy(from: operation.fault.oldFrame, to: operation.fault.newFrame, blockLog2: blockLog2)
    return .next(after: cost(settings.costs.frameFree, times: 1 << Int(blockLog2)))
  }

  /// Puts the new page in the migration entry's place, unless a zap has taken it; faults go on.
  mutating func remap(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let page = operation.fault.page
    let old = operation.fault.oldFrame
    if old == 0 {
      // The empty page is in its slot, or somebody else was first.
      if operation.fault.ownsNewFrame { operation.gathered.append(operation.fault.newFrame) }
      operation.fault.ownsNewFrame = false
      return .through
    }
    let position = locate(spaces[operation.space!].root, page).position
    if tableLocks.isHeld(position.table, byOtherThan: operation.id) {
      tableLocks.wait(operation.id, for: position.table)
      return .blocked
    }
    for waiter in pageLocks.release(old) { wake(waiter) }
    operation.lockedPage = 0
    operation.fault.ownsNewFrame = false
    guard position.level == operation.fault.level, !operation.fault.lost,
      case let entry = PageTableEntry(bits: memory.load(position.table, position.index)), entry.isMigrating,
      entry.leafFrame(level: position.level) == old
    else {
      operation.gathered.append(operation.fault.newFrame)
      return .through
    }
    memory.setDeviceOwner(operation.fault.newFrame, operation.owner)
    let moved =
      operation.kind == .migrateToDevice
      ? PageTableEntry(
        bits: UInt64(operation.fault.newFrame) << 12 | PageTableEntry.devicePrivate
          | operation.fault.oldEntry & PageTableEntry.userfaultWriteProtected)
      : PageTableEntry(
        bits: PageTableEntry.leaf(
          operation.fault.newFrame, PageTableEntry(bits: operation.fault.oldEntry).rights, level: 0
        ).bits | operation.fault.oldEntry & PageTableEntry.userfaultWriteProtected)
    install(moved, at: page, &operation)
    // The entry's own hold goes too.
    operation.gathered.append(old)
    operation.value += position.span
    return set(&operation, &effects)
  }

  /// Sets an entry, with the oracle's account of it. The frame that it replaces is remembered, for `SPLIT_VIEW`.
  mutating func install(_ entry: PageTableEntry, at page: PageNumber, _ operation: inout Operation) {
    let position = locate(spaces[operation.space!].root, page).position
    memory.store(position.table, position.index, entry.bits)
    operation.fault.ownsOldFrame = false
    let old = operation.fault.oldFrame
    let frame = entry.leafFrame(level: position.level)
    let isReplaced = frame != old
    spaces[operation.space!].references.hold(
      page, level: position.level,
      Reference(
        frame: frame, generation: memory.generation(frame), rights: entry.rights, held: true,
        changedTurn: turn, by: stamp(operation), replacedFrame: isReplaced ? old : 0,
        replacedGeneration: isReplaced ? memory.generation(old) : 0))
    if entry.isDevicePrivate { retireMoved(operation) }
  }

  mutating func set(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    report(.entries, operation, operation.window, &effects)
    return .next(after: cost(settings.costs.entry))
  }

  mutating func flushWhole(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    operation.flushesWhole = true
    return runSite(.flushSite, &operation, &effects)
  }
}
