// SPDX-License-Identifier: Apache-2.0

/// Migration to a device where nothing stands: the device gets an empty page of its own (Linux `migrate_vma_insert_page`).
extension Machine {
  /// Takes the empty slot at the cursor, a whole block where all of it is absent and a block is free. false: no slot is
  /// there, or no frame for it, and the cursor has gone on.
  mutating func takeEmptySlot(_ position: EntryPosition, _ operation: inout Operation) -> Bool {
    let space = operation.space!
    let page = operation.cursor
    guard let area = spaces[space].areas.next(from: page), area.range.first < operation.range.end else {
      operation.cursor = operation.range.end
      return false
    }
    guard area.range.contains(page) else {
      operation.cursor = area.range.first
      return false
    }
    // What is passed over is as much as the entry stands for, so that the way through a large area is short.
    operation.cursor = min(position.next(after: page), area.range.end)
    guard area.file == nil, area.level == 0, !area.rights.isEmpty else { return false }
    let block = holdsBlock(page, position, area, operation) ? memory.allocateBlock(log2: 9) : nil
    let level: UInt8 = block == nil ? 0 : 1
    guard let frame = block ?? memory.allocate(.data) else { return false }
    guard makeTables(spaces[space].root, page, level: level) != nil else {
      memory.release(frame, by: stamp(operation))
      return false
    }
    let window = PageRange(first: page, count: 1 << (9 * UInt64(level)))
    operation.cursor = window.end
    operation.fault.newFrame = frame
    operation.fault.ownsNewFrame = true
    operation.fault.page = page
    operation.fault.level = level
    operation.fault.oldFrame = 0
    operation.fault.oldEntry = 0
    operation.fault.lost = false
    operation.window = window
    return true
  }

  /// Whether the slot is one of a whole block, with nothing in it and no table below.
  @inline(__always)
  private func holdsBlock(_ page: PageNumber, _ position: EntryPosition, _ area: Area, _ operation: Operation) -> Bool {
    let block = PageRange(first: page, count: Self.hugePageCount)
    return position.level > 0 && block.first % Self.hugePageCount == 0 && area.range.contains(block)
      && operation.range.contains(block)
  }

  /// P: the empty page, under the page-table lock, if the slot is still empty and no device may use what stood there.
  mutating func fillEmptySlot(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let space = operation.space!
    let level = operation.fault.level
    // An order that somebody wrote may have let a fault put a table there since.
    let (position, found) = locate(spaces[space].root, operation.window.first)
    guard position.level == level, found.bits == 0, !spaces[space].flushQueue.keepsPages(in: operation.window),
      level == 0 || keepDeposit(operation.window.first, space)
    else {
      operation.fault.lost = true
      return .through
    }
    operation.fault.ownsNewFrame = false
    memory.setDeviceOwner(operation.fault.newFrame, operation.owner)
    let entry = UInt64(operation.fault.newFrame) << 12 | PageTableEntry.devicePrivate
    install(PageTableEntry(bits: entry), at: operation.fault.page, &operation)
    operation.value += operation.window.count
    return set(&operation, &effects)
  }
}
