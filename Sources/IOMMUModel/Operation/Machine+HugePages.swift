// SPDX-License-Identifier: Apache-2.0

/// Transparent huge pages of anonymous memory: 512 pages under one entry of level 1, made by a collapse and taken apart by
/// a split. The page table of the small pages is kept beside it (Linux: deposited), so that a split needs no memory.
extension Machine {
  public static let hugePageCount: UInt64 = 512

  /// Where the entry of a huge page, or of the table of its small ones, stands; nil: there is no table above it.
  @inline(__always)
  private func directory(_ root: FrameNumber, _ page: PageNumber) -> EntryPosition? {
    var table = root
    for level in stride(from: walker.format.levelCount - 1, to: 1, by: -1) {
      let entry = PageTableEntry(bits: memory.load(table, walker.format.index(page, level: level)))
      guard entry.isTable else { return nil }
      table = entry.frame
    }
    return EntryPosition(table: table, index: walker.format.index(page, level: 1), level: 1)
  }

  @inline(__always)
  private func blockKey(_ page: PageNumber) -> PageKey { PageKey(owner: 0, page: page / Self.hugePageCount) }

  /// Whether a transparent huge page stands at a page, here or in a device's memory.
  @inline(__always)
  func isHugePage(_ page: PageNumber, _ space: AddressSpaceID) -> Bool {
    spaces[space].deposits.count > 0 && spaces[space].deposits.find(blockKey(page)) != nil
  }

  // MARK: Split

  /// Takes the next huge page that must be split before the operation goes on: those inside which its range begins or
  /// ends (Linux splits with the areas), or all of the range.
  mutating func nextEdge(_ operation: inout Operation) -> StepOutcome {
    guard let page = hugePageToSplit(&operation) else {
      // A migration that had to split a page goes on with its parts.
      if !operation.fault.splits { operation.cursor = operation.range.first }
      operation.fault.splits = false
      operation.window = operation.range
      _ = beginGather(&operation)
      if operation.kind == .splitPages && operation.value == 0 { operation.status = .busy }
      return leave(.nextEdgeAgain, operation)
    }
    operation.window = PageRange(first: page, count: Self.hugePageCount)
    if !splitsAll(operation), let head = lockedHead(operation) {
      pageLocks.wait(operation.id, for: head)
      return .blocked
    }
    operation.fault.oldEntry = 0
    operation.fault.lost = false
    _ = beginGather(&operation)
    return .through
  }

  private mutating func hugePageToSplit(_ operation: inout Operation) -> PageNumber? {
    let space = operation.space!
    guard spaces[space].deposits.count > 0 else { return nil }
    if operation.fault.splits && isHugePage(operation.fault.page, space) { return operation.fault.page }
    guard splitsAll(operation) else {
      for edge in [operation.range.first, operation.range.end] where edge % Self.hugePageCount != 0 {
        if spaces[space].deposits.find(blockKey(edge)) != nil { return edge / Self.hugePageCount * Self.hugePageCount }
      }
      return nil
    }
    while let position = nextEntry(&operation, before: operation.range.end) {
      let page = position.first(of: operation.cursor)
      operation.cursor =
        position.level == 0 ? position.end(of: operation.cursor) : position.next(after: operation.cursor)
      if position.level == 1 && spaces[space].deposits.find(blockKey(page)) != nil { return page }
    }
    return nil
  }

  /// fork splits what it copies (our choice: the kernel shares huge pages, and splits them later); mremap splits what
  /// does not come to lie as it lay.
  @inline(__always)
  private func splitsAll(_ operation: Operation) -> Bool {
    switch operation.kind {
    case .splitPages, .fork: true
    case .mremap:
      operation.destination % Self.hugePageCount != operation.range.first % Self.hugePageCount
        || hasTables(spaces[operation.space!].root, operation)
    default: false
    }
  }

  /// Whether small pages' tables stand where an mremap would put huge ones.
  @inline(__always)
  private func hasTables(_ root: FrameNumber, _ operation: Operation) -> Bool {
    let end = operation.destination + operation.range.count
    var page = operation.destination
    while page < end {
      let (position, entry) = locate(root, page)
      if position.level == 0 || entry.bits != 0 { return true }
      page = position.next(after: page)
    }
    return false
  }

  /// The first frame of the huge page of the window, if a migration has the page locked.
  @inline(__always)
  private func lockedHead(_ operation: Operation) -> FrameNumber? {
    guard let position = hugeEntry(operation) else { return nil }
    let head = PageTableEntry(bits: memory.load(position.table, position.index)).leafFrame(level: 1)
    return pageLocks.isHeld(head, byOtherThan: operation.id) ? head : nil
  }

  /// 2014: the entry stays as it is, and C covers it (`pmdp_splitting_flush`).
  mutating func markSplitting(_ operation: inout Operation) -> StepOutcome {
    operation.gather(operation.window)
    return .through
  }

  /// P: the entry is not present until the table takes its place (`pmdp_invalidate`).
  mutating func invalidateHuge(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    // What a migration has locked is split when it has its new place, or not at all.
    guard let position = hugeEntry(operation), lockedHead(operation) == nil else {
      operation.fault.lost = true
      return .through
    }
    operation.fault.oldEntry = memory.load(position.table, position.index)
    return hide(position, &operation, &effects)
  }

  /// P: the entry of a huge page is not present until something takes its place. It stays, for nobody may put a table
  /// there, and it holds its frames.
  mutating func hide(_ position: EntryPosition, _ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let old = PageTableEntry(bits: memory.load(position.table, position.index))
    let hidden = old.bits & ~PageTableEntry.present | PageTableEntry.heldWithoutRights
    memory.store(position.table, position.index, hidden)
    reduce(operation.window.first, 1, old.leafFrame(level: 1), from: old.rights, to: [], &operation)
    report(.entries, operation, operation.window, &effects)
    return .next(after: cost(settings.costs.entry))
  }

  @inline(__always)
  private func hugeEntry(_ operation: Operation) -> EntryPosition? {
    let space = operation.space!
    guard spaces[space].deposits.find(blockKey(operation.window.first)) != nil else { return nil }
    return directory(spaces[space].root, operation.window.first)
  }

  /// P: the table of the small pages, each with its part of the huge one.
  mutating func fillTable(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let space = operation.space!
    let page = operation.window.first
    guard !operation.fault.lost, let position = hugeEntry(operation) else { return .through }
    let current = PageTableEntry(bits: memory.load(position.table, position.index))
    let old = operation.fault.oldEntry == 0 ? current : PageTableEntry(bits: operation.fault.oldEntry)
    let head = old.leafFrame(level: 1)
    let deposit = spaces[space].deposits[blockKey(page)]!
    spaces[space].deposits.remove(blockKey(page))
    memory.splitBlock(head)
    drop(page, 1, head, &operation)
    let flags = old.bits & ~(PageTableEntry.addressMask | PageTableEntry.pageSize)
    for offset in 0..<Self.hugePageCount {
      let frame = head + FrameNumber(offset)
      let entry = PageTableEntry(bits: UInt64(frame) << 12 | flags)
      memory.store(deposit, Int(offset), entry.bits)
      spaces[space].references.hold(
        page + offset, level: 0,
        Reference(
          frame: frame, generation: memory.generation(frame), rights: entry.rights, held: true, changedTurn: turn))
    }
    memory.store(position.table, position.index, PageTableEntry.table(deposit).bits)
    operation.value += operation.kind == .splitPages ? Self.hugePageCount : 0
    report(.entries, operation, operation.window, &effects)
    return .next(after: cost(settings.costs.entry))
  }

  // MARK: Collapse

  /// Takes the next block of the range that can become a huge page, or whose table can be retracted.
  mutating func nextBlock(_ operation: inout Operation) -> StepOutcome {
    _ = beginGather(&operation)
    let size = Self.hugePageCount
    // Where there is no table of small pages there is nothing to take: absent parts are passed over as a whole.
    while let position = nextEntry(&operation, before: operation.range.end) {
      guard position.level == 0 else {
        operation.cursor = position.next(after: operation.cursor)
        continue
      }
      let page = operation.cursor / size * size
      operation.cursor = page + size
      guard page >= operation.range.first, page + size <= operation.range.end, isEligible(block: page, operation)
      else { continue }
      if operation.kind == .collapse {
        guard let head = memory.allocateBlock(log2: 9) else {
          if operation.value == 0 { operation.status = .outOfMemory }
          return leave(.nextBlockAgain, operation)
        }
        operation.fault.newFrame = head
        operation.fault.ownsNewFrame = true
      }
      operation.fault.lost = false
      operation.window = PageRange(first: page, count: size)
      return .through
    }
    if operation.value == 0 && operation.status == .success { operation.status = .busy }
    return leave(.nextBlockAgain, operation)
  }

  /// A collapse takes blocks of one anonymous area whose pages are the process's own, at least one of them there (our
  /// choice: khugepaged also takes some that are swapped or shared). A retraction takes tables of shared files.
  @inline(__always)
  private func isEligible(block page: PageNumber, _ operation: Operation) -> Bool {
    let space = operation.space!
    let block = PageRange(first: page, count: Self.hugePageCount)
    guard let area = spaces[space].areas.find(page), area.level == 0, area.range.contains(block),
      let position = directory(spaces[space].root, page),
      case let entry = PageTableEntry(bits: memory.load(position.table, position.index)), entry.isTable
    else { return false }
    if operation.kind == .retractTables { return area.isShared }
    guard area.file == nil, !area.rights.isEmpty else { return false }
    var count = 0
    for index in 0..<Page.wordCount {
      let small = PageTableEntry(bits: memory.load(entry.frame, index))
      if small.bits == 0 { continue }
      guard small.isPresent, !small.isUserfaultWriteProtected, memory[small.frame].references == 1,
        memory[small.frame].use == .data, !pageLocks.isHeld(small.frame, byOtherThan: operation.id)
      else { return false }
      count += 1
    }
    return count > 0
  }

  /// The locks of the block's table and of the one above it, both or none.
  mutating func lockBlock(_ operation: inout Operation) -> StepOutcome {
    if operation.kind == .collapse, waitsForKeptPages(operation.space!, operation.window, operation.id) {
      return .blocked
    }
    let root = spaces[operation.space!].root
    guard let position = directory(root, operation.window.first),
      case let entry = PageTableEntry(bits: memory.load(position.table, position.index)), entry.isTable
    else {
      operation.fault.lost = true
      return .through
    }
    return lockTables(entry.frame, position.table, &operation) ? .through : .blocked
  }

  /// P: the way to the small pages' table goes; it is kept for a split.
  mutating func clearTable(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let space = operation.space!
    let page = operation.window.first
    guard !operation.fault.lost, isEligible(block: page, operation) else {
      operation.fault.lost = true
      operation.fault.ownsNewFrame = false
      operation.gathered.append(operation.fault.newFrame)
      return .through
    }
    let position = directory(spaces[space].root, page)!
    let table = PageTableEntry(bits: memory.load(position.table, position.index)).frame
    memory.store(position.table, position.index, 0)
    spaces[space].deposits.set(blockKey(page), table)
    dropPages(of: table, &operation)
    operation.gather(operation.window)
    report(.entries, operation, operation.window, &effects)
    return .next(after: cost(settings.costs.entry))
  }

  /// The way to a table has gone: the references of its pages go, and their holds are the operation's.
  private mutating func dropPages(of table: FrameNumber, _ operation: inout Operation) {
    for index in 0..<Page.wordCount {
      let small = PageTableEntry(bits: memory.load(table, index))
      guard small.bits != 0 else { continue }
      keepDirty(small, small.frame)
      drop(operation.window.first + UInt64(index), 0, small.frame, &operation)
      operation.gathered.append(small.frame)
    }
  }

  mutating func copyBlock(_ operation: inout Operation) -> StepOutcome {
    if operation.fault.lost { return .through }
    let table = spaces[operation.space!].deposits[blockKey(operation.window.first)]!
    var count = 0
    for index in 0..<Page.wordCount {
      let small = PageTableEntry(bits: memory.load(table, index))
      guard small.bits != 0 else { continue }
      memory.copy(from: small.frame, to: operation.fault.newFrame + FrameNumber(index), blockLog2: 0)
      memory.store(table, index, 0)
      count += 1
    }
    return .next(after: cost(settings.costs.frameFree, times: count))
  }

  /// P: the huge page.
  mutating func setHuge(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    if operation.fault.lost { return .through }
    let space = operation.space!
    let page = operation.window.first
    let head = operation.fault.newFrame
    let rights = spaces[space].areas.find(page)!.rights
    let position = directory(spaces[space].root, page)!
    operation.fault.ownsNewFrame = false
    memory.store(position.table, position.index, PageTableEntry.leaf(head, rights, level: 1).bits)
    spaces[space].references.hold(
      page, level: 1,
      Reference(frame: head, generation: memory.generation(head), rights: rights, held: true, changedTurn: turn))
    operation.value += Self.hugePageCount
    report(.entries, operation, operation.window, &effects)
    return .next(after: cost(settings.costs.entry))
  }

  /// P: the table of a shared file's pages goes with all of its entries; faults find the pages in the page cache.
  mutating func retractTable(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let space = operation.space!
    let page = operation.window.first
    guard !operation.fault.lost, isEligible(block: page, operation) else { return .through }
    let position = directory(spaces[space].root, page)!
    let table = PageTableEntry(bits: memory.load(position.table, position.index)).frame
    memory.store(position.table, position.index, 0)
    dropPages(of: table, &operation)
    operation.tables.append(table)
    operation.gather(operation.window)
    operation.value += Self.hugePageCount
    report(.entries, operation, operation.window, &effects)
    return .next(after: cost(settings.costs.entry))
  }

  // MARK: Other operations

  /// A huge page is unmapped: the table that was kept for it goes too. No hardware reaches it.
  mutating func releaseDeposit(_ page: PageNumber, _ operation: Operation) {
    guard let space = operation.space, let table = spaces[space].deposits[blockKey(page)] else { return }
    spaces[space].deposits.remove(blockKey(page))
    memory.release(table, by: stamp(operation))
  }

  /// Keeps a table for a huge page that no collapse has made; false: no frame is free.
  mutating func keepDeposit(_ page: PageNumber, _ space: AddressSpaceID) -> Bool {
    guard let table = memory.allocate(.table) else { return false }
    spaces[space].deposits.set(blockKey(page), table)
    return true
  }

  mutating func moveDeposit(_ page: PageNumber, to destination: PageNumber, _ space: AddressSpaceID) {
    guard let table = spaces[space].deposits[blockKey(page)] else { return }
    spaces[space].deposits.remove(blockKey(page))
    spaces[space].deposits.set(blockKey(destination), table)
  }
}
