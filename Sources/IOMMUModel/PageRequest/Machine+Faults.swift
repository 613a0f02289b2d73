// SPDX-License-Identifier: Apache-2.0

/// Service of faults, a device's and a CPU's alike: area, page-table entry, COW break.
extension Machine {
  // MARK: Who faulted

  /// A CPU's access, as far as it gets without a fault.
  mutating func access(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let access = operation.cpuAccess!
    guard let space = operation.space, spaces.contains(space) else { return failure(&operation, .objectGone) }
    let first = access.address >> 12
    while operation.fault.index < Int(operation.range.count) {
      let page = first + UInt64(operation.fault.index)
      let write = access.kind == .store
      guard let (frame, accounted) = reach(space, access.cpu, page, write: write, &effects) else {
        operation.fault.page = page
        operation.fault.wanted = write ? .readWrite : .read
        return .through
      }
      let word = Int(access.address & 0xfff) >> 3
      switch access.kind {
      case .load: operation.value = memory.load(frame, word)
      case .store where accounted: memory.store(frame, word, access.value)
      case .store: memory.storeUnaccounted(frame, word, access.value)
      case .touch: break
      }
      operation.fault.index += 1
    }
    return .go(to: lists[operation.kind].count - 1)
  }

  /// The frame that a CPU reaches at a page, through its TLB or by a walk; nil: it faults.
  private mutating func reach(
    _ space: AddressSpaceID, _ cpu: UInt8, _ page: PageNumber, write: Bool, _ effects: inout Effects
  ) -> (frame: FrameNumber, accounted: Bool)? {
    if let entry = cpuTLB.find(cpu, space, page), entry.writable || !write {
      spaces[space].references.change(page, level: 0) { $0.usedByCPU = $0.usedByCPU || $0.frame == entry.frame }
      if memory.generation(entry.frame) == entry.generation { return (entry.frame, true) }
      bookStaleCPU(entry, write: write, &effects)
      return (entry.frame, false)
    }
    let result = walker.walk(
      &memory, root: spaces[space].root, address: page << 12,
      access: write ? [.write, .updateBits] : .updateBits)
    guard case .leaf(let leaf) = result else { return nil }
    let span = UInt64(1) << (9 * UInt64(leaf.level))
    let frame = leaf.frame + FrameNumber(page % span)
    spaces[space].references.change(page, level: leaf.level) { $0.usedByCPU = true }
    cpuTLB.insert(
      cpu,
      .init(
        space: space, page: page, frame: frame, generation: memory.generation(frame),
        writable: leaf.rights.contains(.write) && write, at: time))
    return (frame, true)
  }

  /// Takes the next member of a group.
  mutating func nextMember(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let group = operation.group!
    guard let space = operation.space, spaces.contains(space) else {
      effects.counters.refusedFaults += UInt64(group.count - operation.fault.index)
      if operation.fault.code == .success { operation.fault.code = .invalidRequest }
      return failure(&operation, .objectGone)
    }
    guard operation.fault.index < group.count else { return failure(&operation, .success) }
    // Errors are sticky: members after the first that failed are not handled (io-pgfault.c).
    guard operation.fault.code == .success else {
      effects.counters.refusedFaults += UInt64(group.count - operation.fault.index)
      return failure(&operation, .success)
    }
    let member = group[operation.fault.index]
    operation.fault.page = member.page
    operation.fault.wanted = member.rights
    return .through
  }

  mutating func service(_ operation: inout Operation) -> StepOutcome {
    let duration =
      operation.group != nil
      ? settings.costs.faultService.sample(&serviceGenerator) : settings.costs.cpuFault.sample(&costGenerator)
    return .next(after: dilated(duration))
  }

  // MARK: Resolution

  private enum Resolution {
    case changed, duplicate
    case denied, outOfMemory
    case copyOnWrite
    /// What stood in the way has gone: the fault begins anew.
    case again
  }

  /// Under the page-table lock (Linux `handle_mm_fault`).
  mutating func resolve(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let space = operation.space!
    let page = operation.fault.page
    guard !spaces[space].reaped, let area = spaces[space].areas.find(page),
      area.rights.isSuperset(of: operation.fault.wanted),
      !operation.fault.wanted.isEmpty
    else { return settleFault(.denied, &operation, &effects) }
    var (position, entry) = locate(spaces[space].root, page)
    // Above the area's level stands a transparent huge page, or a table is missing.
    if position.level > area.level && entry.bits == 0 {
      switch shareTable(page, area, operation) {
      case .alone: break
      case .linked:
        effects.counters.tablesShared += 1
        (position, entry) = locate(spaces[space].root, page)
      case .blocked: return .blocked
      case .outOfMemory: return settleFault(.outOfMemory, &operation, &effects)
      }
      if position.level == area.level && entry.bits != 0 { return settleFault(.changed, &operation, &effects) }
    }
    if position.level > area.level && entry.bits == 0 {
      guard let table = makeTables(spaces[space].root, page, level: area.level) else {
        if waitsForKeptFrames(space, operation.id) { return .blocked }
        return settleFault(.outOfMemory, &operation, &effects)
      }
      position = EntryPosition(table: table, index: walker.format.index(page, level: area.level), level: area.level)
    }
    if tableLocks.isHeld(position.table, byOtherThan: operation.id) {
      tableLocks.wait(operation.id, for: position.table)
      return .blocked
    }
    if waitsForMigration(position, page, operation.id) { return .blocked }
    if let frame = lockedFilePage(position, page, area, operation) {
      pageLocks.wait(operation.id, for: frame)
      return .blocked
    }
    if memory.load(position.table, position.index) == 0 {
      let block = PageRange(first: position.first(of: page), count: position.span)
      if waitsForKeptPages(space, block, operation.id) { return .blocked }
    }
    let resolution = resolve(position, area, &operation)
    if case .copyOnWrite = resolution { return .through }
    if case .outOfMemory = resolution, waitsForKeptFrames(space, operation.id) { return .blocked }
    return settleFault(resolution, &operation, &effects)
  }

  private mutating func resolve(
    _ position: EntryPosition, _ area: Area, _ operation: inout Operation
  ) -> Resolution {
    let space = operation.space!
    let page = position.first(of: operation.fault.page)
    let entry = PageTableEntry(bits: memory.load(position.table, position.index))
    if entry.bits == 0, let file = area.file { return mapFilePage(position, page, area, file, &operation) }
    if entry.bits == 0 {
      guard let frame = memory.allocateBlock(log2: 9 * position.level) else { return .outOfMemory }
      memory.store(
        position.table, position.index, PageTableEntry.leaf(frame, area.rights, level: position.level).bits)
      spaces[space].references.hold(
        page, level: position.level,
        Reference(
          frame: frame, generation: memory.generation(frame), rights: area.rights, held: true, changedTurn: turn))
      return .changed
    }
    if entry.isDevicePrivate || entry.isDeviceExclusive { return takeBack(position, page, area, entry, &operation) }
    if entry.isSwapped { return swapIn(position, page, area, entry, &operation) }
    if !entry.isPresent {
      // A NUMA hint: the entry gets back what it had (do_numa_page).
      let restored = PageTableEntry(bits: entry.bits & ~PageTableEntry.heldWithoutRights | PageTableEntry.present)
      memory.store(position.table, position.index, restored.bits)
      let turn = turn
      spaces[space].references.change(page, level: position.level) {
        $0.rights = restored.rights
        $0.changedTurn = turn
      }
      return .changed
    }
    if !operation.fault.wanted.contains(.write) || entry.isWritable { return .duplicate }
    // As with UFFD_FEATURE_SIGBUS, and as a fault that may not wait for the monitor.
    if entry.isUserfaultWriteProtected { return .denied }
    let frame = entry.leafFrame(level: position.level)
    if area.isShared || memory[frame].references == 1 {
      // A shared page of a file, or the last user of another writes in place (Linux `wp_page_reuse`): an
      // upgrade. Hardware that walks again needs no flush.
      memory.store(position.table, position.index, entry.bits | PageTableEntry.writable)
      let turn = turn
      spaces[space].references.change(page, level: position.level) {
        $0.rights = .readWrite
        $0.changedTurn = turn
      }
      if settings.cachesRights {
        tableLocks.acquire(position.table, operation.id)
        operation.lockedTable = position.table
        operation.gather(PageRange(first: page, count: position.span))
      }
      return .changed
    }
    guard let copy = memory.allocateBlock(log2: 9 * position.level) else { return .outOfMemory }
    memory.copy(from: frame, to: copy, blockLog2: 9 * position.level)
    return replace(position, page, entry, by: copy, .readWrite, &operation)
  }

  /// The fault goes on through S…E, and puts another page in the place of the entry.
  private mutating func replace(
    _ position: EntryPosition, _ page: PageNumber, _ entry: PageTableEntry, by frame: FrameNumber, _ rights: Rights,
    _ operation: inout Operation
  ) -> Resolution {
    operation.fault.level = position.level
    operation.fault.oldFrame = entry.leafFrame(level: position.level)
    operation.fault.oldEntry = Self.withoutHistory(entry.bits)
    operation.fault.newFrame = frame
    operation.fault.newRights = rights
    operation.fault.copiesLate = entry.isDevicePrivate
    operation.fault.ownsNewFrame = frame != 0
    operation.fault.lost = false
    operation.window = PageRange(first: page, count: position.span)
    return .copyOnWrite
  }

  /// migrate_to_ram, or remove_device_exclusive_entry: the page comes back to the CPUs, out of the device's memory or in
  /// its place. Whoever mirrors it is told by S before that.
  private mutating func takeBack(
    _ position: EntryPosition, _ page: PageNumber, _ area: Area, _ entry: PageTableEntry, _ operation: inout Operation
  ) -> Resolution {
    let isProtected = entry.isUserfaultWriteProtected
    if isProtected && operation.fault.wanted.contains(.write) { return .denied }
    let frame: FrameNumber
    if entry.isDevicePrivate {
      guard let fresh = memory.allocateBlock(log2: 9 * position.level) else {
        if position.level == 0 { return .outOfMemory }
        // No room for the huge page: it is split in the device's memory, and one part comes back.
        operation.fault.splits = true
        return replace(position, page, entry, by: 0, [], &operation)
      }
      frame = fresh
    } else {
      frame = entry.frame
      memory.retain(frame)
    }
    // What an exclusive entry shares with another process it had not to itself; a copy is the process's own.
    let isAlone = entry.isDevicePrivate || memory[frame].references == 2
    let rights = isProtected || !isAlone ? area.rights.subtracting(.write) : area.rights
    return replace(position, page, entry, by: frame, rights, &operation)
  }

  /// The frame of a file's page that a fault would map while it is on its way to storage: the fault waits.
  @inline(__always)
  private func lockedFilePage(
    _ position: EntryPosition, _ page: PageNumber, _ area: Area, _ operation: Operation
  ) -> FrameNumber? {
    guard let file = area.file, memory.load(position.table, position.index) == 0 else { return nil }
    let frame = files[file.file][page &+ file.offset].frame
    return frame != 0 && pageLocks.isHeld(frame, byOtherThan: operation.id) ? frame : nil
  }

  /// do_read_fault, do_cow_fault, do_shared_fault: a shared page gets the write right when it is written to, and not
  /// before, so that writeback sees what is dirty.
  private mutating func mapFilePage(
    _ position: EntryPosition, _ page: PageNumber, _ area: Area, _ file: AreaFile, _ operation: inout Operation
  ) -> Resolution {
    guard var frame = cachedFrame(file.file, page &+ file.offset) else { return .outOfMemory }
    let isWrite = operation.fault.wanted.contains(.write)
    // Nobody writes hugetlbfs back: its shared pages need no first write.
    let isWhole = isWrite || file.isShared && position.level > 0
    var rights = isWhole ? area.rights : area.rights.subtracting(.write)
    if isWrite && !file.isShared {
      guard let own = memory.allocateBlock(log2: 9 * position.level) else { return .outOfMemory }
      memory.copy(from: frame, to: own, blockLog2: 9 * position.level)
      frame = own
      rights = area.rights
    } else {
      memory.retain(frame)
    }
    memory.store(position.table, position.index, PageTableEntry.leaf(frame, rights, level: position.level).bits)
    spaces[operation.space!].references.hold(
      page, level: position.level,
      Reference(frame: frame, generation: memory.generation(frame), rights: rights, held: true, changedTurn: turn))
    holdForSharers(position, page, operation.space!)
    return .changed
  }

  /// do_swap_page: the page comes back in a frame of its own, which nobody else uses.
  private mutating func swapIn(
    _ position: EntryPosition, _ page: PageNumber, _ area: Area, _ entry: PageTableEntry, _ operation: inout Operation
  ) -> Resolution {
    let isProtected = entry.isUserfaultWriteProtected
    if isProtected && operation.fault.wanted.contains(.write) { return .denied }
    guard let frame = memory.allocate(.data) else { return .outOfMemory }
    memory.fill(frame, swap.read(entry.slot))
    swap.release(entry.slot)
    let rights = isProtected ? area.rights.subtracting(.write) : area.rights
    let leaf = PageTableEntry.leaf(frame, rights, level: 0).bits
    memory.store(
      position.table, position.index, leaf | entry.bits & PageTableEntry.userfaultWriteProtected)
    spaces[operation.space!].references.hold(
      page, level: 0,
      Reference(frame: frame, generation: memory.generation(frame), rights: rights, held: true, changedTurn: turn))
    return .changed
  }

  /// What a fault came to, booked; the list goes on where the mmap lock is given back.
  private mutating func settleFault(
    _ resolution: Resolution, _ operation: inout Operation, _ effects: inout Effects
  ) -> StepOutcome {
    if case .again = resolution {
      // The same member, or the same access, once more.
    } else if operation.group != nil {
      book(resolution, &operation, &effects)
      operation.fault.index += 1
      switch resolution {
      case .denied where operation.fault.code == .success: operation.fault.code = .invalidRequest
      case .outOfMemory where operation.fault.code == .success: operation.fault.code = .responseFailure
      default: break
      }
    } else {
      switch resolution {
      case .denied: operation.status = .accessDenied
      case .outOfMemory: operation.status = .outOfMemory
      default: break
      }
    }
    return .go(to: lists[operation.kind].firstIndex(of: .upgrade)!)
  }

  /// The hook for an upgrade, under the page-table lock (Arm's `ptep_set_access_flags`).
  mutating func upgrade(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    guard operation.gatherRange != nil else { return .through }
    let outcome = runSite(.upgrade, &operation, &effects)
    switch outcome {
    case .through, .next:
      operation.gatherFirst = .max
      operation.gatherEnd = 0
      _ = unlockTable(&operation)
    default: break
    }
    return outcome
  }

  /// `inout`, though nothing is changed: an operation passed by value out of an `inout` one is copied.
  private mutating func book(_ resolution: Resolution, _ operation: inout Operation, _ effects: inout Effects) {
    let group = operation.group!
    switch resolution {
    case .denied, .outOfMemory:
      effects.counters.refusedFaults += 1
      return
    default: break
    }
    effects.counters.membersServed += 1
    guard devices.contains(group.device) else { return }
    let key = PageKey(owner: group.pasid, page: operation.fault.page)
    let slot = devices[group.device].attempts.find(key)
    if let slot, devices[group.device].attempts[slot: slot].needless {
      effects.counters.needlessFaults += 1
    } else if case .duplicate = resolution {
      effects.counters.duplicateFaults += 1
    } else {
      effects.counters.neededFaults += 1
    }
    if let slot, let space = operation.space { bookSuccess(group, operation.fault.page, space, slot, &effects) }
  }

  mutating func unlockAgain(_ operation: inout Operation) -> StepOutcome {
    // The fault is over, whatever its operation does next: what it dropped is legal no longer.
    operation.dropped.removeAll(keepingCapacity: true)
    _ = unlock(&operation)
    if operation.group == nil && operation.status != .success { return failure(&operation, operation.status) }
    return .go(to: 0)
  }

  // MARK: COW break

  /// The entry without Accessed and Dirty. What was written since MADV_FREE is no longer free.
  static func withoutHistory(_ bits: UInt64) -> UInt64 {
    let kept = bits & PageTableEntry.dirty != 0 ? bits & ~PageTableEntry.lazilyFree : bits
    return kept & ~(PageTableEntry.accessed | PageTableEntry.dirty)
  }

  @inline(__always)
  private func entryOfFault(_ operation: Operation) -> EntryPosition {
    locate(spaces[operation.space!].root, operation.window.first).position
  }

  mutating func lockTable(_ operation: inout Operation) -> StepOutcome {
    let position = entryOfFault(operation)
    if tableLocks.isHeld(position.table, byOtherThan: operation.id) {
      tableLocks.wait(operation.id, for: position.table)
      return .blocked
    }
    tableLocks.acquire(position.table, operation.id)
    operation.lockedTable = position.table
    return .through
  }

  mutating func clearEntry(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let position = entryOfFault(operation)
    let bits = memory.load(position.table, position.index)
    guard position.level == operation.fault.level, Self.withoutHistory(bits) == operation.fault.oldEntry else {
      operation.fault.lost = true
      if operation.fault.ownsNewFrame { operation.gathered.append(operation.fault.newFrame) }
      operation.fault.ownsNewFrame = false
      return .through
    }
    if position.level > 0 && isHugePage(operation.window.first, operation.space!) {
      return hide(position, &operation, &effects)
    }
    memory.store(position.table, position.index, 0)
    drop(operation.window.first, position.level, operation.fault.oldFrame, &operation)
    // Nobody has cached what was not present (`ptep_clear_flush`).
    if PageTableEntry(bits: bits).isPresent { operation.gather(operation.window) }
    operation.gathered.append(operation.fault.oldFrame)
    report(.entries, operation, operation.window, &effects)
    return .next(after: cost(settings.costs.entry))
  }

  mutating func setNew(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let space = operation.space!
    if operation.fault.lost {
      _ = settleFault(operation.fault.splits ? .again : .duplicate, &operation, &effects)
      operation.fault.splits = false
      return .through
    }
    if operation.fault.splits {
      operation.fault.splits = false
      _ = settleFault(.again, &operation, &effects)
      return fillTable(&operation, &effects)
    }
    let position = entryOfFault(operation)
    let frame = operation.fault.newFrame
    operation.fault.ownsNewFrame = false
    let old = operation.fault.oldFrame
    let rights = operation.fault.newRights
    if operation.fault.copiesLate { memory.copy(from: old, to: frame, blockLog2: 9 * position.level) }
    // The entry of a huge page has held its frames so far.
    if position.level > 0 && isHugePage(operation.window.first, space) { operation.gathered.append(old) }
    let kept = operation.fault.oldEntry & PageTableEntry.userfaultWriteProtected
    memory.store(
      position.table, position.index, PageTableEntry.leaf(frame, rights, level: position.level).bits | kept)
    spaces[space].references.hold(
      operation.window.first, level: position.level,
      Reference(
        frame: frame, generation: memory.generation(frame), rights: rights, held: true, changedTurn: turn,
        replacedFrame: old, replacedGeneration: memory.generation(old)))
    report(.entries, operation, operation.window, &effects)
    _ = settleFault(.changed, &operation, &effects)
    return .next(after: cost(settings.costs.entry))
  }
}
