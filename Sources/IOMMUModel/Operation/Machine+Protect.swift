// SPDX-License-Identifier: Apache-2.0

/// P of whatever takes rights away and keeps the page.
extension Machine {
  mutating func protect(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
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
        // What was changed so far is reported first; a queue is joined only to wait in it.
        if count > 0 && isMigrating(position, operation.cursor) { break }
        if waitsForMigration(position, operation.cursor, operation.id) { return .blocked }
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
  func isTable(_ table: FrameNumber, _ page: PageNumber, _ level: UInt8) -> Bool {
    PageTableEntry(bits: memory.load(table, walker.format.index(page, level: level))).isTable
  }

  /// Gives one entry the rights of the operation.
  private mutating func restrict(_ position: EntryPosition, _ operation: inout Operation) -> Bool {
    let index = walker.format.index(operation.cursor, level: position.level)
    let old = PageTableEntry(bits: memory.load(position.table, index))
    if old.bits == 0 || position.level > 0 && old.isTable { return false }
    let new = Self.restricted(old, operation)
    guard new.bits != old.bits else { return false }
    memory.store(position.table, index, new.bits)
    let span = UInt64(1) << (9 * UInt64(position.level))
    reduce(
      operation.cursor / span * span, position.level, old.leafFrame(level: position.level), from: old.rights,
      to: new.rights, &operation)
    return true
  }

  private static func restricted(_ entry: PageTableEntry, _ operation: Operation) -> PageTableEntry {
    switch operation.kind {
    case .numaHint:
      // The write right stays in the entry, for the fault that brings it back.
      entry.isPresent
        ? PageTableEntry(bits: entry.bits & ~PageTableEntry.present | PageTableEntry.heldWithoutRights) : entry
    case .clearSoftDirty:
      entry.isPresent ? PageTableEntry(bits: entry.bits & ~PageTableEntry.writable) : entry
    default: entry.with(operation.rights)
    }
  }

  /// The oracle's side of other rights. Where none was lost, nothing needs a flush.
  mutating func reduce(
    _ page: PageNumber, _ level: UInt8, _ frame: FrameNumber, from old: Rights, to new: Rights,
    _ operation: inout Operation
  ) {
    let isLoss = !new.isSuperset(of: old)
    let stamp = stamp(operation)
    if isLoss {
      operation.dropped.append(Dropped(page: page, level: level, frame: frame, generation: memory.generation(frame)))
      operation.gather(PageRange(first: page, count: 1 << (9 * UInt64(level))))
    }
    let turn = turn
    spaces[operation.space!].references.change(page, level: level) {
      $0.rights = new
      if isLoss { $0.by = stamp }
      $0.changedTurn = turn
    }
  }

  /// Clears Accessed, table by table; the operation's value counts the pages that had it.
  mutating func clearYoung(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
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
        if position.level > 0 && isTable(position.table, operation.cursor, position.level) { break }
        let index = walker.format.index(operation.cursor, level: position.level)
        let bits = memory.load(position.table, index)
        if bits & PageTableEntry.present != 0 && bits & PageTableEntry.accessed != 0 {
          memory.store(position.table, index, bits & ~PageTableEntry.accessed)
          operation.gather(PageRange(first: operation.cursor / span * span, count: span))
          count += 1
        }
        operation.cursor = (operation.cursor / span + 1) * span
      }
      guard count > 0 else { continue }
      operation.value += UInt64(count)
      report(.entries, operation, PageRange(first: first, count: operation.cursor - first), &effects)
      return .again(after: cost(settings.costs.entry, times: count))
    }
    return .through
  }
}
