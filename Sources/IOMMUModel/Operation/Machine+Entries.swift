// SPDX-License-Identifier: Apache-2.0

/// How every P goes over a range: table by table, each under its lock, a turn for what was changed in one.
extension Machine {
  /// What became of one entry.
  enum EntryChange {
    case kept, changed
    /// A migration entry that must be waited for.
    case migrating
    case outOfMemory
  }

  /// Moves the cursor over what is absent, and over what others share: it is left before anything of it is changed, or
  /// stays as it is. nil: nothing more stands before `end`.
  mutating func nextEntry(_ operation: inout Operation, before end: PageNumber) -> EntryPosition? {
    let root = root(operation)
    while operation.cursor < end {
      let (position, entry) = locate(root, operation.cursor)
      if position.level == 1 && memory[position.table].references > 1 {
        operation.cursor = position.end(of: operation.cursor)
        continue
      }
      if entry.bits != 0 || position.level == 0 { return position }
      operation.cursor = position.next(after: operation.cursor)
    }
    return nil
  }

  /// Gives each entry before `end` to `change`. `.through`: the end was reached; `.go`: the failure, to the next step.
  @inline(__always)
  mutating func forEachEntry(
    _ operation: inout Operation, before end: PageNumber, _ effects: inout Effects,
    _ change: (inout Machine, EntryPosition, inout Operation) -> EntryChange
  ) -> StepOutcome {
    while let table = nextEntry(&operation, before: end) {
      if tableLocks.isHeld(table.table, byOtherThan: operation.id) {
        tableLocks.wait(operation.id, for: table.table)
        return .blocked
      }
      let first = operation.cursor
      let tableEnd = min(end, table.end(of: operation.cursor))
      var count = 0
      entries: while operation.cursor < tableEnd {
        let index = walker.format.index(operation.cursor, level: table.level)
        // Behind the huge leaves of one table may lie tables of small ones.
        if table.level > 0 && PageTableEntry(bits: memory.load(table.table, index)).isTable { break }
        switch change(&self, EntryPosition(table: table.table, index: index, level: table.level), &operation) {
        case .kept: break
        case .changed: count += 1
        case .migrating:
          // What was changed so far is reported first; a queue is joined only to wait in it.
          if count > 0 { break entries }
          let entry = PageTableEntry(bits: memory.load(table.table, index))
          pageLocks.wait(operation.id, for: entry.leafFrame(level: table.level))
          return .blocked
        case .outOfMemory: return .go(to: operation.step + 1)
        }
        operation.cursor = table.next(after: operation.cursor)
      }
      guard count > 0 else { continue }
      report(.entries, operation, PageRange(first: first, count: operation.cursor - first), &effects)
      return .again(after: cost(settings.costs.entry, times: count))
    }
    return .through
  }
}
