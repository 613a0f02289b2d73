// SPDX-License-Identifier: Apache-2.0

/// A page on its way to storage: locked, and under reclaim isolated, that is held (Linux `shrink_folio_list`).
struct PageOut {
  var page: PageNumber
  var frame: FrameNumber
  /// Where an anonymous page will go; 0: it is dropped, for MADV_FREE said so, or belongs to a file.
  var slot: SwapDevice.Slot
  /// Its entry has been taken away, or made clean; otherwise somebody changed it first, and the page stays.
  var isUnmapped = false
}

/// Pages that leave memory, or whose contents are written: reclaim, writeback, MADV_FREE.
extension Machine {
  /// Pages that are unmapped before they are flushed and written together (Linux `SWAP_CLUSTER_MAX`).
  static let reclaimBatch = 32

  /// Takes a page for reclaim; false: it stays where it is, for somebody else uses it too or the swap device is full.
  mutating func isolate(_ page: PageNumber, _ entry: PageTableEntry, _ operation: inout Operation) -> Bool {
    let isFile = memory[entry.frame].filePage != .none
    guard memory[entry.frame].references == (isFile ? 2 : 1),
      !pageLocks.isHeld(entry.frame, byOtherThan: operation.id)
    else { return false }
    var slot: SwapDevice.Slot = 0
    if !isFile && !entry.isLazilyFree {
      guard let free = swap.reserve() else { return false }
      slot = free
    }
    memory.retain(entry.frame)
    operation.gathered.append(entry.frame)
    pageLocks.acquire(entry.frame, operation.id)
    operation.pagesOut.append(PageOut(page: page, frame: entry.frame, slot: slot))
    return true
  }

  mutating func lockForWriting(_ page: PageNumber, _ entry: PageTableEntry, _ operation: inout Operation) {
    pageLocks.acquire(entry.frame, operation.id)
    operation.pagesOut.append(PageOut(page: page, frame: entry.frame, slot: 0))
  }

  /// P: an anonymous page leaves a migration entry, on which faults wait; one that is dropped, or that faults find in
  /// the page cache, leaves none.
  mutating func setSwap(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    if operation.fault.lost { return .through }
    let last = operation.pagesOut.count - 1
    operation.pagesOut[last].isUnmapped = true
    if operation.pagesOut[last].slot != 0 { return setMigration(&operation, &effects) }
    operation.fault.ownsOldFrame = false
    operation.gathered.append(operation.fault.oldFrame)
    return .through
  }

  /// Writes what was unmapped, and lets go of the pages. Where a migration entry still stands, the swap slot takes its
  /// place; a zap may have taken it away.
  mutating func writeOut(_ operation: inout Operation) -> StepOutcome {
    let count = operation.pagesOut.count
    while let out = operation.pagesOut.first {
      if out.slot != 0 {
        let position = locate(spaces[operation.space!].root, out.page).position
        if tableLocks.isHeld(position.table, byOtherThan: operation.id) {
          tableLocks.wait(operation.id, for: position.table)
          return .blocked
        }
        writeSwap(out, position, &operation)
      } else if memory[out.frame].filePage != .none {
        writeFile(out, &operation)
      }
      if out.isUnmapped { operation.value += 1 }
      for waiter in pageLocks.release(out.frame) { wake(waiter) }
      operation.pagesOut.removeFirst()
    }
    return count == 0 ? .through : .next(after: cost(settings.costs.frameFree, times: count))
  }

  /// A page of a file: under reclaim it leaves the page cache too, unless somebody has mapped it again.
  private mutating func writeFile(_ out: PageOut, _ operation: inout Operation) {
    guard out.isUnmapped else { return }
    writeFilePage(out.frame)
    // The page cache's hold, that of the isolation, and the entry's, which is freed with the batch.
    if operation.kind == .reclaim && memory[out.frame].references == 3 { evict(out.frame, &operation) }
  }

  private mutating func writeSwap(_ out: PageOut, _ position: EntryPosition, _ operation: inout Operation) {
    let entry = PageTableEntry(bits: memory.load(position.table, position.index))
    guard out.isUnmapped, position.level == 0, entry.isMigrating, entry.frame == out.frame else {
      swap.release(out.slot)
      return
    }
    swap.write(out.slot, memory.contents(out.frame))
    memory.store(position.table, position.index, PageTableEntry.swapped(out.slot, from: entry).bits)
    drop(out.page, 0, out.frame, &operation)
    // The entry's own hold.
    operation.gathered.append(out.frame)
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
    guard entry.isPresent, position.level == 0, memory[entry.frame].references == 1,
      memory[entry.frame].filePage == .none
    else { return .kept }
    let clean = Self.withoutHistory(entry.bits) | PageTableEntry.lazilyFree
    guard clean != entry.bits else { return .kept }
    memory.store(position.table, position.index, clean)
    operation.gather(PageRange(first: operation.cursor, count: 1))
    return .changed
  }
}
