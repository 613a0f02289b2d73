// SPDX-License-Identifier: Apache-2.0

/// A page that reclaim works on: isolated, locked, and held by the operation (Linux `shrink_folio_list`).
struct ReclaimedPage {
  var page: PageNumber
  var frame: FrameNumber
  /// Where an anonymous page will go; 0: it is dropped, for MADV_FREE said so.
  var slot: SwapDevice.Slot
  /// Its entry has been taken away; otherwise somebody changed it first, and the page stays.
  var isUnmapped = false
}

/// Reclaim: pages that one process uses leave memory, those of anonymous memory for the swap device.
extension Machine {
  /// Pages that are unmapped before they are flushed and written together (Linux `SWAP_CLUSTER_MAX`).
  static let reclaimBatch = 32

  /// Takes a page for reclaim; false: it stays where it is.
  mutating func isolate(_ page: PageNumber, _ entry: PageTableEntry, _ operation: inout Operation) -> Bool {
    guard memory[entry.frame].references == 1, !pageLocks.isHeld(entry.frame, byOtherThan: operation.id) else {
      return false
    }
    var slot: SwapDevice.Slot = 0
    if !entry.isLazilyFree {
      guard let free = swap.reserve() else { return false }
      slot = free
    }
    memory.retain(entry.frame)
    operation.gathered.append(entry.frame)
    pageLocks.acquire(entry.frame, operation.id)
    operation.reclaimed.append(ReclaimedPage(page: page, frame: entry.frame, slot: slot))
    return true
  }

  /// P: a page that will be written leaves a migration entry, on which faults wait; one that is dropped leaves none.
  mutating func setSwap(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    if operation.fault.lost { return .through }
    let last = operation.reclaimed.count - 1
    operation.reclaimed[last].isUnmapped = true
    if operation.reclaimed[last].slot != 0 { return setMigration(&operation, &effects) }
    operation.fault.ownsOldFrame = false
    operation.gathered.append(operation.fault.oldFrame)
    return .through
  }

  /// Writes what was unmapped, and lets go of the pages. Where the migration entry still stands, the slot takes its
  /// place; a zap may have taken it away.
  mutating func writeOut(_ operation: inout Operation) -> StepOutcome {
    let count = operation.reclaimed.count
    while let reclaimed = operation.reclaimed.first {
      let position = locate(spaces[operation.space!].root, reclaimed.page).position
      if tableLocks.isHeld(position.table, byOtherThan: operation.id) {
        tableLocks.wait(operation.id, for: position.table)
        return .blocked
      }
      if reclaimed.slot != 0 { writeSwap(reclaimed, position, &operation) }
      if reclaimed.isUnmapped { operation.value += 1 }
      for waiter in pageLocks.release(reclaimed.frame) { wake(waiter) }
      operation.reclaimed.removeFirst()
    }
    return count == 0 ? .through : .next(after: cost(settings.costs.frameFree, times: count))
  }

  private mutating func writeSwap(_ page: ReclaimedPage, _ position: EntryPosition, _ operation: inout Operation) {
    let entry = PageTableEntry(bits: memory.load(position.table, position.index))
    guard page.isUnmapped, position.level == 0, entry.isMigrating, entry.frame == page.frame else {
      swap.release(page.slot)
      return
    }
    swap.write(page.slot, memory.contents(page.frame))
    memory.store(position.table, position.index, PageTableEntry.swapped(page.slot, from: entry).bits)
    drop(page.page, 0, page.frame, &operation)
    // The entry's own hold.
    operation.gathered.append(page.frame)
  }

  /// MADV_FREE: the page may go unwritten unless it is written to again. What is swapped goes at once.
  mutating func freeLazily(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    forEachEntry(&operation, before: operation.range.end, &effects) { machine, position, operation in
      machine.freeLazily(position, &operation)
    }
  }

  private mutating func freeLazily(_ position: EntryPosition, _ operation: inout Operation) -> EntryChange {
    let entry = PageTableEntry(bits: memory.load(position.table, position.index))
    if entry.isSwapped {
      swap.release(entry.slot)
      memory.store(position.table, position.index, 0)
      return .changed
    }
    // A page that others use too stays (our choice for those of a fork; the kernel asks the same of a THP).
    guard entry.isPresent, position.level == 0, memory[entry.frame].references == 1 else { return .kept }
    let clean = Self.withoutHistory(entry.bits) | PageTableEntry.lazilyFree
    guard clean != entry.bits else { return .kept }
    memory.store(position.table, position.index, clean)
    operation.gather(PageRange(first: operation.cursor, count: 1))
    return .changed
  }
}
