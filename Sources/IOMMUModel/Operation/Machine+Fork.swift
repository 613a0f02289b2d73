// SPDX-License-Identifier: Apache-2.0

/// fork: a child with the same pages, both write-protected.
extension Machine {
  mutating func createChild(_ operation: inout Operation) -> StepOutcome {
    guard spaces.count < Int(settings.limits.addressSpaces), let root = memory.allocate(.table) else {
      operation.status = .outOfMemory
      return .go(to: lists[operation.kind].firstIndex(of: .unlock)!)
    }
    let child = spaces.insert { AddressSpace(id: $0, root: root) }
    spaces[child].beingForked = true
    for area in spaces[operation.space!].areas.list {
      var copy = area
      copy.sinceTurn = turn
      if area.rights.contains(.write) { copy.writableSinceTurn = turn }
      spaces[child].areas.insert(copy)
    }
    operation.child = child
    operation.value = UInt64(child.rawValue)
    operation.cursor = 0
    return .through
  }

  /// copy_page_range runs S … E for each area in turn.
  mutating func nextArea(_ operation: inout Operation) -> StepOutcome {
    let areas = spaces[operation.space!].areas.list
    guard let area = areas.first(where: { $0.range.end > operation.cursor }), operation.status == .success else {
      if let child = operation.child { spaces[child].beingForked = false }
      return leave(.nextAreaAgain, operation)
    }
    operation.window = area.range
    operation.cursor = area.range.first
    return .through
  }

  mutating func copyEntries(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let parent = operation.space!
    while operation.cursor < operation.window.end {
      let (position, entry) = locate(spaces[parent].root, operation.cursor)
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
      let end = min(operation.window.end, (operation.cursor / (span * 512) + 1) * span * 512)
      var count = 0
      while operation.cursor < end {
        // What was changed so far is reported first; a queue is joined only to wait in it.
        if count > 0 && isMigrating(position, operation.cursor) { break }
        if waitsForMigration(position, operation.cursor, operation.id) { return .blocked }
        guard let copied = copyEntry(position, &operation) else {
          abandonChild(&operation)
          return .go(to: operation.step + 1)
        }
        if copied { count += 1 }
        operation.cursor = (operation.cursor / span + 1) * span
      }
      guard count > 0 else { continue }
      report(.entries, operation, PageRange(first: first, count: operation.cursor - first), &effects)
      return .again(after: cost(settings.costs.entry, times: count))
    }
    operation.cursor = operation.window.end
    return .through
  }

  /// Write-protects the parent's entry and gives the child the same. nil: no frame for the child's tables.
  mutating func copyEntry(_ position: EntryPosition, _ operation: inout Operation) -> Bool? {
    let child = operation.child!
    let index = walker.format.index(operation.cursor, level: position.level)
    let entry = PageTableEntry(bits: memory.load(position.table, index))
    if entry.bits == 0 || position.level > 0 && entry.isTable { return false }
    guard let table = makeTables(spaces[child].root, operation.cursor, level: position.level) else { return nil }
    let span = UInt64(1) << (9 * UInt64(position.level))
    let page = operation.cursor / span * span
    let frame = entry.leafFrame(level: position.level)
    let shared = entry.bits & ~PageTableEntry.writable
    if entry.isWritable {
      memory.store(position.table, index, shared)
      reduce(
        page, position.level, frame, from: entry.rights, to: PageTableEntry(bits: shared).rights, &operation)
    }
    memory.retain(frame)
    memory.store(table, index, shared & ~(PageTableEntry.accessed | PageTableEntry.dirty))
    spaces[child].references.hold(
      page, level: position.level,
      Reference(
        frame: frame, generation: memory.generation(frame),
        rights: shared & PageTableEntry.present == 0 ? [] : .read, held: true, changedTurn: turn))
    return true
  }

  /// No device and no CPU knows the child of a fork that failed: it goes at once.
  mutating func abandonChild(_ operation: inout Operation) {
    let child = operation.child!
    freeTree(spaces[child].root, stamp(operation))
    spaces.remove(child)
    operation.child = nil
    operation.value = 0
    operation.status = .outOfMemory
  }
}
