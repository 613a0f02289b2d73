// SPDX-License-Identifier: Apache-2.0

/// The mmap lock of an address space: readers beside each other, a writer alone, first come first served, so that a
/// waiting writer holds back the readers that come after it (Linux `rw_semaphore` without optimistic spinning).
struct MmapLock {
  enum Mode: UInt8 { case read, write }
  private(set) var readers = 0
  private(set) var writer = OperationID.none
  private(set) var waiting: [(operation: OperationID, mode: Mode)] = []

  /// Takes the lock, or a place in the queue.
  mutating func acquire(_ operation: OperationID, _ mode: Mode) -> Bool {
    guard waiting.isEmpty, isFree(for: mode) else {
      waiting.append((operation, mode))
      return false
    }
    grant(operation, mode)
    return true
  }

  /// Gives the lock back, and answers who holds it now that waited before.
  mutating func release(_ operation: OperationID) -> [OperationID] {
    if writer == operation {
      writer = .none
    } else {
      precondition(readers > 0, "the lock is held")
      readers -= 1
    }
    var woken: [OperationID] = []
    while let (next, mode) = waiting.first, isFree(for: mode) {
      waiting.removeFirst()
      grant(next, mode)
      woken.append(next)
    }
    return woken
  }

  private func isFree(for mode: Mode) -> Bool { writer == .none && (mode == .read || readers == 0) }

  private mutating func grant(_ operation: OperationID, _ mode: Mode) {
    if mode == .write { writer = operation } else { readers += 1 }
  }
}

/// Page-table locks that are held beyond a turn, each with its queue. A turn that takes and drops a lock only asks
/// whether somebody holds it.
struct TableLocks {
  struct Lock {
    var table: FrameNumber
    var holder: OperationID
    var waiting: [OperationID]
  }
  private(set) var held: [Lock] = []

  @inline(__always)
  func isHeld(_ table: FrameNumber, byOtherThan operation: OperationID) -> Bool {
    if held.isEmpty { return false }
    return held.contains { $0.table == table && $0.holder != operation }
  }

  mutating func wait(_ operation: OperationID, for table: FrameNumber) {
    let index = held.firstIndex { $0.table == table }!
    held[index].waiting.append(operation)
  }

  mutating func acquire(_ table: FrameNumber, _ operation: OperationID) {
    precondition(!held.contains { $0.table == table }, "a page-table lock has one holder")
    held.append(Lock(table: table, holder: operation, waiting: []))
  }

  /// Frees the lock and answers who waited; they ask again, in their order.
  mutating func release(_ table: FrameNumber) -> [OperationID] {
    let index = held.firstIndex { $0.table == table }!
    return held.remove(at: index).waiting
  }
}
