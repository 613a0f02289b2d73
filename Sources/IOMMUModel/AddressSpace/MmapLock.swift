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
    return admit()
  }

  private mutating func admit() -> [OperationID] {
    var woken: [OperationID] = []
    while let (next, mode) = waiting.first, isFree(for: mode) {
      waiting.removeFirst()
      grant(next, mode)
      woken.append(next)
    }
    return woken
  }

  /// The writer goes on as a reader, and readers that are first in the queue come beside it.
  mutating func downgrade(_ operation: OperationID) -> [OperationID] {
    precondition(writer == operation, "the writer downgrades")
    writer = .none
    readers = 1
    return admit()
  }

  /// Takes the lock for read if nobody has to be waited for.
  mutating func tryAcquireRead() -> Bool {
    guard waiting.isEmpty, isFree(for: .read) else { return false }
    readers += 1
    return true
  }

  private func isFree(for mode: Mode) -> Bool { writer == .none && (mode == .read || readers == 0) }

  private mutating func grant(_ operation: OperationID, _ mode: Mode) {
    if mode == .write { writer = operation } else { readers += 1 }
  }
}

/// Locks of page tables, or of pages, that are held beyond a turn, each with its queue. A turn that takes and drops a
/// lock only asks whether somebody holds it.
struct FrameLocks {
  struct Lock {
    var frame: FrameNumber
    var holder: OperationID
    var waiting: [OperationID]
  }
  private(set) var held: [Lock] = []

  @inline(__always)
  func isHeld(_ frame: FrameNumber, byOtherThan operation: OperationID) -> Bool {
    if held.isEmpty { return false }
    return held.contains { $0.frame == frame && $0.holder != operation }
  }

  mutating func wait(_ operation: OperationID, for frame: FrameNumber) {
    let index = held.firstIndex { $0.frame == frame }!
    held[index].waiting.append(operation)
  }

  mutating func acquire(_ frame: FrameNumber, _ operation: OperationID) {
    precondition(!held.contains { $0.frame == frame }, "a lock has one holder")
    held.append(Lock(frame: frame, holder: operation, waiting: []))
  }

  /// Frees the lock and answers who waited; they ask again, in their order.
  mutating func release(_ frame: FrameNumber) -> [OperationID] {
    let index = held.firstIndex { $0.frame == frame }!
    return held.remove(at: index).waiting
  }
}
