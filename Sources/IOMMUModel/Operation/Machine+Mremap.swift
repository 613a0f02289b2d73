// SPDX-License-Identifier: Apache-2.0

/// mremap: entries move to another place of the same page table, and their frames with them.
extension Machine {
  @inline(__always)
  func destination(of page: PageNumber, _ operation: Operation) -> PageNumber {
    page - operation.range.first + operation.destination
  }

  /// Makes the tables that the entries of the range will need at their destination. false: no frame is free; tables
  /// that were made stay, empty and linked.
  mutating func makeDestinationTables(_ operation: Operation) -> Bool {
    let root = spaces[operation.space!].root
    var page = operation.range.first
    while page < operation.range.end {
      let (position, entry) = locate(root, page)
      let next = position.next(after: page)
      if entry.bits == 0 && position.level > 0 {
        page = next
        continue
      }
      // A small table's entries may come to lie in two.
      let end = position.level > 0 ? next : min(operation.range.end, (page / 512 + 1) * 512)
      for edge in [page, end - 1]
      where makeTables(root, destination(of: edge, operation), level: position.level) == nil { return false }
      page = end
    }
    return true
  }

  /// P: moves the entries that lie in one table and go to one table.
  /// - Parameter keepLocks: whether both locks stay until C and I are over.
  mutating func moveEntries(
    _ operation: inout Operation, _ effects: inout Effects, keepLocks: Bool
  ) -> StepOutcome {
    let root = spaces[operation.space!].root
    while let position = nextEntry(&operation, before: operation.range.end) {
      if waitsForMigration(position, operation.cursor, operation.id) { return .blocked }
      let moved = PageRange(first: operation.destination, count: operation.range.count)
      if waitsForKeptPages(operation.space!, moved, operation.id) { return .blocked }
      let table = makeTables(root, destination(of: operation.cursor, operation), level: position.level)!
      guard lockTables(position.table, table, &operation) else { return .blocked }
      let first = operation.cursor
      let count = moveTable(position, to: table, &operation)
      if count == 0 || !keepLocks { _ = unlockTable(&operation) }
      guard count > 0 else { continue }
      report(.entries, operation, PageRange(first: first, count: operation.cursor - first), &effects)
      return .next(after: cost(settings.costs.entry, times: count))
    }
    return leave(.moveAgain, operation)
  }

  private mutating func moveTable(
    _ position: EntryPosition, to table: FrameNumber, _ operation: inout Operation
  ) -> Int {
    let span = position.span
    let room = 512 - UInt64(walker.format.index(destination(of: operation.cursor, operation), level: position.level))
    let start = operation.cursor / span
    let end = min(operation.range.end, (start / 512 + 1) * span * 512, (start + room) * span)
    var count = 0
    while operation.cursor < end {
      let index = walker.format.index(operation.cursor, level: position.level)
      let entry = PageTableEntry(bits: memory.load(position.table, index))
      if position.level > 0 && entry.isTable || entry.isMigrating { break }
      if entry.bits != 0 {
        let page = position.first(of: operation.cursor)
        memory.store(position.table, index, 0)
        if position.level == 1 { moveDeposit(page, to: destination(of: page, operation), operation.space!) }
        if entry.holdsFrame { moveReference(page, position.level, entry, &operation) }
        memory.store(
          table, walker.format.index(destination(of: page, operation), level: position.level), entry.bits)
        if entry.holdsFrame { operation.gather(PageRange(first: page, count: span)) }
        count += 1
      }
      operation.cursor = position.next(after: operation.cursor)
    }
    return count
  }

  /// The oracle's side: the old page is dropped, and stays legal until the operation returns; the new one is held.
  mutating func moveReference(
    _ page: PageNumber, _ level: UInt8, _ entry: PageTableEntry, _ operation: inout Operation
  ) {
    let frame = entry.leafFrame(level: level)
    drop(page, level, frame, &operation)
    spaces[operation.space!].references.hold(
      destination(of: page, operation), level: level,
      Reference(
        frame: frame, generation: memory.generation(frame), rights: entry.rights, held: true, changedTurn: turn))
  }
}
