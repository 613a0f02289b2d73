// SPDX-License-Identifier: Apache-2.0

/// Taking and dropping of mmap locks and page-table locks.
extension Machine {
  mutating func lock(
    _ operation: inout Operation, _ mode: MmapLock.Mode, _ effects: inout Effects
  ) -> StepOutcome {
    if operation.heldLock { return .through }
    let granted: Bool
    switch operation.target {
    case .addressSpace(let space)? where spaces.contains(space):
      granted = spaces[space].lock.acquire(operation.id, mode)
    case .domain(let domain)? where domains.contains(domain):
      granted = domains[domain].lock.acquire(operation.id, mode)
    case .kernel?:
      granted = kernel.lock.acquire(operation.id, mode)
    default:
      if let group = operation.group {
        // Members of a group whose address space went while they waited for its lock.
        effects.counters.refusedFaults += UInt64(group.count - operation.fault.index)
      }
      if operation.fault.code == .success { operation.fault.code = .invalidRequest }
      return failure(&operation, .objectGone)
    }
    if granted {
      operation.heldLock = true
      return .through
    }
    report(.lockWait, operation, operation.range, &effects)
    return .blocked
  }

  /// The lock for read, or an end as busy.
  mutating func tryLockRead(_ operation: inout Operation) -> StepOutcome {
    guard let space = operation.space, spaces.contains(space) else { return failure(&operation, .objectGone) }
    guard spaces[space].lock.tryAcquireRead() else { return failure(&operation, .busy) }
    operation.heldLock = true
    return .through
  }

  mutating func unlock(_ operation: inout Operation) -> StepOutcome {
    precondition(operation.heldLock, "the lock is held")
    operation.heldLock = false
    switch operation.target! {
    case .addressSpace(let space): admit(spaces[space].lock.release(operation.id))
    case .domain(let domain): admit(domains[domain].lock.release(operation.id))
    case .kernel: admit(kernel.lock.release(operation.id))
    }
    return .through
  }

  mutating func downgrade(_ operation: inout Operation) -> StepOutcome {
    admit(spaces[operation.space!].lock.downgrade(operation.id))
    return .through
  }

  /// Operations that hold the lock now.
  private mutating func admit(_ woken: [OperationID]) {
    for waiter in woken {
      operations[waiter.slot]!.heldLock = true
      wake(waiter)
    }
  }

  mutating func unlockTable(_ operation: inout Operation) -> StepOutcome {
    if operation.lockedTable != 0 {
      for waiter in tableLocks.release(operation.lockedTable) { wake(waiter) }
      operation.lockedTable = 0
    }
    if operation.lockedDestination != 0 {
      for waiter in tableLocks.release(operation.lockedDestination) { wake(waiter) }
      operation.lockedDestination = 0
    }
    return .through
  }

  /// Takes the lock of one table and, where entries move, of the other: both or none, so that nobody holds one and
  /// waits. false: the operation is in a queue, and asks again.
  mutating func lockTables(_ table: FrameNumber, _ destination: FrameNumber, _ operation: inout Operation) -> Bool {
    for frame in [table, destination] where frame != 0 && tableLocks.isHeld(frame, byOtherThan: operation.id) {
      tableLocks.wait(operation.id, for: frame)
      return false
    }
    tableLocks.acquire(table, operation.id)
    operation.lockedTable = table
    if destination != 0 && destination != table {
      tableLocks.acquire(destination, operation.id)
      operation.lockedDestination = destination
    }
    return true
  }

  /// Whether the entry of a page is a migration entry; the operation is then in the queue for its end.
  mutating func waitsForMigration(_ position: EntryPosition, _ page: PageNumber, _ operation: OperationID) -> Bool {
    let entry = PageTableEntry(bits: memory.load(position.table, walker.format.index(page, level: position.level)))
    guard entry.isMigrating else { return false }
    pageLocks.wait(operation, for: entry.leafFrame(level: position.level))
    return true
  }
}
