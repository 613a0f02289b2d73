// SPDX-License-Identifier: Apache-2.0

/// Page tables that address spaces share: where each maps the same 1 GiB of a hugetlbfs file as shared memory, their
/// entries of level 2 point to one table of huge pages (Linux `huge_pmd_share`, `huge_pmd_unshare`).
///
/// A fault makes the second of them point there. Whoever changes what a shared table maps leaves it first: the entry that
/// points to it goes, and with it all that it maps, also outside the range. From then on the table is the others', and the
/// last of them frees it: a walk cache that still has it is flushed before that, or walks through a freed table. So I must
/// come before the lock under which the entry went is given back (Linux: i_mmap; here the table's own, our choice).
extension Machine {
  /// How an operation goes on when it has left a shared table.
  enum Unsharing {
    /// The table's lock stays until C and I of all that the table maps are over.
    case locked
    /// The same, but C and I take no more than the range (`adjust_range_if_pmd_sharing_possible` is of 2018).
    case lockedNarrow
    /// Nothing is gathered, so that neither C nor I need come (until 2021, CVE-2021-4002).
    case silent
  }

  // MARK: Sharing

  enum Sharing {
    case linked, blocked, outOfMemory
    /// There is nobody whose table can be shared.
    case alone
  }

  /// A fault finds no table of huge pages: it takes that of another address space that maps the same file there.
  /// Our choice: at the same address, with the same rights in every entry, and where nobody works on it.
  mutating func shareTable(_ page: PageNumber, _ area: Area, _ operation: Operation) -> Sharing {
    guard area.level == 1, area.isShared else { return .alone }
    let space = operation.space!
    let block = Self.block(page)
    guard area.range.contains(block), let table = tableToShare(block, area, space) else { return .alone }
    if tableLocks.isHeld(table, byOtherThan: operation.id) {
      tableLocks.wait(operation.id, for: table)
      return .blocked
    }
    if waitsForKeptPages(space, block, operation.id) { return .blocked }
    guard let directory = makeTables(spaces[space].root, page, level: 2) else { return .outOfMemory }
    memory.retain(table)
    memory.store(directory, walker.format.index(page, level: 2), PageTableEntry.table(table).bits)
    for index in 0..<Page.wordCount {
      let entry = PageTableEntry(bits: memory.load(table, index))
      if entry.bits != 0 { hold(block.first + UInt64(index) << 9, entry, in: space) }
    }
    return .linked
  }

  @inline(__always)
  private func tableToShare(_ block: PageRange, _ area: Area, _ space: AddressSpaceID) -> FrameNumber? {
    for id in spaces.ids where id != space {
      guard let other = spaces[id].areas.find(block.first), other.file == area.file, other.level == 1,
        other.rights == area.rights, other.range.contains(block), !spaces[id].reaped, !spaces[id].exiting,
        !spaces[id].flushQueue.keepsPages(in: block),
        spaces[id].operations.allSatisfy({ operations[$0.slot].map(\.isFault) ?? true }),
        let table = leafTable(id, block.first)
      else { continue }
      let isAlike = (0..<Page.wordCount).allSatisfy {
        let entry = PageTableEntry(bits: memory.load(table, $0))
        return entry.bits == 0
          || entry.isPresent && !entry.isTable && entry.rights == area.rights && !entry.isUserfaultWriteProtected
      }
      if isAlike { return table }
    }
    return nil
  }

  /// A fault has set an entry: whoever shares its table has the page too.
  mutating func holdForSharers(_ position: EntryPosition, _ page: PageNumber, _ space: AddressSpaceID) {
    guard position.level == 1, memory[position.table].references > 1 else { return }
    let entry = PageTableEntry(bits: memory.load(position.table, position.index))
    for id in spaces.ids where id != space && leafTable(id, page) == position.table { hold(page, entry, in: id) }
  }

  private mutating func hold(_ page: PageNumber, _ entry: PageTableEntry, in space: AddressSpaceID) {
    let frame = entry.leafFrame(level: 1)
    spaces[space].references.hold(
      page, level: 1,
      Reference(
        frame: frame, generation: memory.generation(frame), rights: entry.rights, held: true, changedTurn: turn))
  }

  /// The table of level 1 on the way to a page; nil: there is none.
  @inline(__always)
  private func leafTable(_ space: AddressSpaceID, _ page: PageNumber) -> FrameNumber? {
    var table = spaces[space].root
    for level in [UInt8(3), 2] {
      let entry = PageTableEntry(bits: memory.load(table, walker.format.index(page, level: level)))
      guard entry.isTable else { return nil }
      table = entry.frame
    }
    return table
  }

  private static func block(_ page: PageNumber) -> PageRange {
    PageRange(first: page & ~(1 << 18 - 1), count: 1 << 18)
  }

  // MARK: Unsharing

  /// S of today covers all that may have to go: where the range ends inside a table that is shared, or may be, the whole
  /// of it (`adjust_range_if_pmd_sharing_possible`).
  mutating func widenWindow(_ operation: inout Operation) {
    guard settings.kernel == .now, operation.space != nil, Self.unsharing.contains(operation.kind),
      operation.window == operation.range
    else { return }
    let first = operation.range.first
    let last = operation.range.end - 1
    let start = first == Self.block(first).first || !mayShare(first, operation) ? first : Self.block(first).first
    let end = last + 1 == Self.block(last).end || !mayShare(last, operation) ? last + 1 : Self.block(last).end
    operation.window = PageRange(first: start, count: end - start)
  }
  private static let unsharing: [OperationKind] = [.munmap, .dontNeed, .mprotect, .mremap]

  @inline(__always)
  private func mayShare(_ page: PageNumber, _ operation: Operation) -> Bool {
    let space = operation.space!
    if let table = leafTable(space, page), memory[table].references > 1 { return true }
    guard let area = spaces[space].areas.find(page) else { return false }
    return area.level == 1 && area.isShared && area.range.contains(Self.block(page))
  }

  /// P: leaves the next table that others share.
  mutating func unshareTable(
    _ operation: inout Operation, _ effects: inout Effects, _ way: Unsharing, protects: Bool = false
  ) -> StepOutcome {
    // Who waited for the lock of the last one comes before anything else happens.
    let isNext = way != .silent && operation.gatherRange != nil
    _ = beginGather(&operation)
    if isNext { return .again(after: 0) }
    while let position = nextLeafTable(&operation) {
      let table = PageTableEntry(bits: memory.load(position.table, position.index)).frame
      // Also where nobody else shares it any more: who has just left it may not have flushed it yet.
      if tableLocks.isHeld(table, byOtherThan: operation.id) {
        tableLocks.wait(operation.id, for: table)
        return .blocked
      }
      let block = Self.block(operation.cursor)
      let changed: Int
      if memory[table].references > 1 {
        changed = leave(table, at: position, block, &operation)
        effects.counters.tablesUnshared += 1
        switch way {
        case .locked: operation.gather(block)
        case .lockedNarrow: operation.gather(block.intersection(operation.range))
        case .silent: break
        }
      } else {
        changed = protects ? restrictHuge(table, block, &operation) : 0
      }
      operation.cursor = block.end
      guard changed > 0 else { continue }
      report(.entries, operation, block, &effects)
      let cost = cost(settings.costs.entry, times: changed)
      guard way != .silent else { return .again(after: cost) }
      tableLocks.acquire(table, operation.id)
      operation.lockedTable = table
      return .next(after: cost)
    }
    operation.cursor = operation.range.first
    guard way != .silent else { return .through }
    return leave(.unshareAgain, operation)
  }

  /// Moves the cursor to the next table of level 1 of the range; nil: there is none.
  @inline(__always)
  private func nextLeafTable(_ operation: inout Operation) -> EntryPosition? {
    let root = spaces[operation.space!].root
    while operation.cursor < operation.range.end {
      let top = PageTableEntry(bits: memory.load(root, walker.format.index(operation.cursor, level: 3)))
      guard top.isTable else {
        operation.cursor = (operation.cursor >> 27 + 1) << 27
        continue
      }
      let index = walker.format.index(operation.cursor, level: 2)
      if PageTableEntry(bits: memory.load(top.frame, index)).isTable {
        return EntryPosition(table: top.frame, index: index, level: 2)
      }
      operation.cursor = Self.block(operation.cursor).end
    }
    return nil
  }

  /// - Returns: 1, for the entry that went.
  private mutating func leave(
    _ table: FrameNumber, at position: EntryPosition, _ block: PageRange, _ operation: inout Operation
  ) -> Int {
    memory.store(position.table, position.index, 0)
    for index in 0..<Page.wordCount {
      let entry = PageTableEntry(bits: memory.load(table, index))
      if entry.bits != 0 { drop(block.first + UInt64(index) << 9, 1, entry.leafFrame(level: 1), &operation) }
    }
    memory.release(table, by: stamp(operation))
    return 1
  }

  /// hugetlb_change_protection of what nobody shares: huge pages of hugetlb areas, which have C and I under the lock.
  private mutating func restrictHuge(
    _ table: FrameNumber, _ block: PageRange, _ operation: inout Operation
  ) -> Int {
    var changed = 0
    let range = block.intersection(operation.range)
    for index in walker.format.index(range.first, level: 1)...walker.format.index(range.end - 1, level: 1) {
      let page = block.first + UInt64(index) << 9
      let old = PageTableEntry(bits: memory.load(table, index))
      guard old.bits != 0, !old.isTable,
        spaces[operation.space!].areas.find(page)?.level == 1
      else { continue }
      let new = old.with(operation.rights)
      guard new.bits != old.bits else { continue }
      memory.store(table, index, new.bits)
      reduce(page, 1, old.leafFrame(level: 1), from: old.rights, to: new.rights, &operation)
      changed += 1
    }
    return changed
  }
}

extension Operation {
  /// A fault changes a table only under the locks of a fault.
  fileprivate var isFault: Bool { kind == .cpuAccess || kind == .pageRequestGroup || kind == .rangeFault }
}
