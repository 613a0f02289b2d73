// SPDX-License-Identifier: Apache-2.0

/// fork: a child with the same pages, both write-protected.
extension Machine {
  mutating func createChild(_ operation: inout Operation) -> StepOutcome {
    guard spaces.count < Int(settings.limits.addressSpaces), let root = memory.allocate(.table) else {
      operation.status = .outOfMemory
      return .go(to: lists[operation.kind].firstIndex(of: .unlock)!)
    }
    copyKernelHalf(to: root)
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

  /// copy_page_range runs S … E for each area in turn. Shared pages of files come back to the child by faults.
  mutating func nextArea(_ operation: inout Operation) -> StepOutcome {
    let areas = spaces[operation.space!].areas.list
    guard let area = areas.first(where: { $0.range.end > operation.cursor && !$0.isShared }),
      operation.status == .success
    else {
      if let child = operation.child { spaces[child].beingForked = false }
      return leave(.nextAreaAgain, operation)
    }
    operation.window = area.range
    operation.cursor = area.range.first
    return .through
  }

  mutating func copyEntries(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let outcome = forEachEntry(&operation, before: operation.window.end, &effects) { machine, position, operation in
      machine.copyEntry(position, &operation)
    }
    switch outcome {
    case .through: operation.cursor = operation.window.end
    case .go: abandonChild(&operation)
    default: break
    }
    return outcome
  }

  /// Write-protects the parent's entry and gives the child the same. Out of memory: no frame for the child's tables.
  private mutating func copyEntry(_ position: EntryPosition, _ operation: inout Operation) -> EntryChange {
    let child = operation.child!
    let index = position.index
    var entry = PageTableEntry(bits: memory.load(position.table, index))
    if entry.bits == 0 { return .kept }
    if entry.isMigrating { return .migrating }
    guard let table = makeTables(spaces[child].root, operation.cursor, level: position.level) else {
      return .outOfMemory
    }
    let page = position.first(of: operation.cursor)
    if entry.isSwapped {
      swap.retain(entry.slot)
      memory.store(table, index, entry.bits & ~PageTableEntry.userfaultWriteProtected)
      return .changed
    }
    if entry.isDeviceExclusive {
      // try_restore_exclusive_pte, inside the fork's own S…E.
      entry = PageTableEntry(bits: entry.bits & ~PageTableEntry.deviceExclusive | PageTableEntry.present).with(.read)
      memory.store(position.table, index, entry.bits)
      let turn = turn
      spaces[operation.space!].references.change(page, level: position.level) {
        $0.rights = .read
        $0.changedTurn = turn
      }
    }
    let frame = entry.leafFrame(level: position.level)
    let shared = entry.bits & ~PageTableEntry.writable
    if entry.isWritable {
      memory.store(position.table, index, shared)
      reduce(
        page, position.level, frame, from: entry.rights, to: PageTableEntry(bits: shared).rights, &operation)
    }
    memory.retain(frame)
    // The monitor is the parent's.
    memory.store(table, index, Self.withoutHistory(shared) & ~PageTableEntry.userfaultWriteProtected)
    spaces[child].references.hold(
      page, level: position.level,
      Reference(
        frame: frame, generation: memory.generation(frame),
        rights: shared & PageTableEntry.present == 0 ? [] : .read, held: true, changedTurn: turn))
    return .changed
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
