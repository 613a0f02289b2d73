// SPDX-License-Identifier: Apache-2.0

/// Locks that an operation holds between two of its turns.
public struct HeldLocks: OptionSet, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// The mmap lock, for read or for write: it can be slept under.
  public static let mmap = HeldLocks(rawValue: 1)
  /// A page-table lock: whoever waits under it spins.
  public static let pageTable = HeldLocks(rawValue: 2)
}

extension Machine {
  /// What a running operation holds; nothing when it has returned.
  public func locks(of id: OperationID) -> HeldLocks {
    guard kind(id) != nil, let operation = operations[id.slot] else { return [] }
    var locks: HeldLocks = []
    if operation.heldLock { locks.insert(.mmap) }
    if operation.lockedTable != 0 { locks.insert(.pageTable) }
    return locks
  }
}
