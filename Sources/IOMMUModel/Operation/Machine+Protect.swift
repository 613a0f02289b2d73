// SPDX-License-Identifier: Apache-2.0

/// P of whatever takes rights away and keeps the page.
extension Machine {
  mutating func protect(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    forEachEntry(&operation, before: operation.range.end, &effects) { machine, position, operation in
      machine.restrict(position, &operation)
    }
  }

  /// Gives one entry the rights of the operation.
  private mutating func restrict(_ position: EntryPosition, _ operation: inout Operation) -> EntryChange {
    let old = PageTableEntry(bits: memory.load(position.table, position.index))
    if old.bits == 0 { return .kept }
    if old.isMigrating { return .migrating }
    let new = Self.restricted(old, operation)
    guard new.bits != old.bits else { return .kept }
    memory.store(position.table, position.index, new.bits)
    if old.isSpecial { return .kept }
    reduce(
      position.first(of: operation.cursor), position.level, old.leafFrame(level: position.level), from: old.rights,
      to: new.rights, &operation)
    return .changed
  }

  private static func restricted(_ entry: PageTableEntry, _ operation: Operation) -> PageTableEntry {
    switch operation.kind {
    case .numaHint:
      // The write right stays in the entry, for the fault that brings it back.
      entry.isPresent
        ? PageTableEntry(bits: entry.bits & ~PageTableEntry.present | PageTableEntry.heldWithoutRights) : entry
    case .clearSoftDirty:
      entry.isPresent ? PageTableEntry(bits: entry.bits & ~PageTableEntry.writable) : entry
    case .uffdWriteProtect:
      // Taken back, the write right returns with the next write.
      operation.rights.contains(.write)
        ? PageTableEntry(bits: entry.bits & ~PageTableEntry.userfaultWriteProtected)
        : PageTableEntry(bits: entry.bits & ~PageTableEntry.writable | PageTableEntry.userfaultWriteProtected)
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
    forEachEntry(&operation, before: operation.range.end, &effects) { machine, position, operation in
      let bits = machine.memory.load(position.table, position.index)
      guard bits & PageTableEntry.present != 0, bits & PageTableEntry.accessed != 0 else { return .kept }
      machine.memory.store(position.table, position.index, bits & ~PageTableEntry.accessed)
      operation.gather(PageRange(first: position.first(of: operation.cursor), count: position.span))
      operation.value += 1
      return .changed
    }
  }
}
