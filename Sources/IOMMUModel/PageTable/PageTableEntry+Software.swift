// SPDX-License-Identifier: Apache-2.0

/// What the machine's own software keeps in bits that hardware ignores, and in entries that are not present.
extension PageTableEntry {
  /// A present entry above level 0 that points to a table.
  var isTable: Bool { isPresent && bits & Self.pageSize == 0 }
  /// PROT_NONE: the entry keeps its frame without being present (Linux `_PAGE_PROTNONE`).
  static let heldWithoutRights: UInt64 = 1 << 9
  /// A migration entry: not present, and faults wait until the page has its new place (Linux `SWP_MIGRATION`). Reclaim
  /// uses it too, until the page is written.
  static let migrating: UInt64 = 1 << 10
  /// Not present: the page is in a slot of the swap device, whose number stands in the place of the frame.
  static let swapped: UInt64 = 1 << 52
  /// Userfaultfd write protection (Linux `_PAGE_UFFD_WP`): a write is refused until the monitor takes it back.
  static let userfaultWriteProtected: UInt64 = 1 << 53
  /// MADV_FREE: while Dirty stays clear, reclaim may drop the page without writing it.
  static let lazilyFree: UInt64 = 1 << 54
  /// Not present: the page is in a device's private memory; a fault brings it back (Linux `SWP_DEVICE_READ/WRITE`).
  static let devicePrivate: UInt64 = 1 << 55
  /// Not present: one device has the page to itself, in its place; a fault revokes that (Linux
  /// `SWP_DEVICE_EXCLUSIVE`).
  static let deviceExclusive: UInt64 = 1 << 56

  var isMigrating: Bool { bits & Self.migrating != 0 }
  var isSwapped: Bool { bits & Self.swapped != 0 }
  var isDevicePrivate: Bool { bits & Self.devicePrivate != 0 }
  var isDeviceExclusive: Bool { bits & Self.deviceExclusive != 0 }
  /// An entry that is not present for a reason that a change of rights does not touch.
  var isSpecial: Bool {
    bits & (Self.migrating | Self.swapped | Self.devicePrivate | Self.deviceExclusive) != 0
  }
  var isDirty: Bool { bits & Self.dirty != 0 }
  var isLazilyFree: Bool { bits & Self.lazilyFree != 0 && !isDirty }
  var isUserfaultWriteProtected: Bool { bits & Self.userfaultWriteProtected != 0 }
  var rights: Rights { !isPresent ? [] : isWritable ? .readWrite : .read }
  /// Whether the entry counts as a holder of its frame.
  var holdsFrame: Bool { bits != 0 && !isSwapped }

  /// The entry under mprotect; a write right comes back with the next write fault only. A page that is elsewhere gets
  /// the rights of its area when it comes back.
  func with(_ rights: Rights) -> PageTableEntry {
    if isSpecial { return self }
    var bits =
      rights.isEmpty
      ? bits & ~Self.present | Self.heldWithoutRights : bits & ~Self.heldWithoutRights | Self.present
    if !rights.contains(.write) { bits &= ~Self.writable }
    return PageTableEntry(bits: bits)
  }

  func leafFrame(level: UInt8) -> FrameNumber { frame & ~(FrameNumber(1) << (9 * FrameNumber(level)) - 1) }

  static func swapped(_ slot: SwapDevice.Slot, from old: PageTableEntry) -> PageTableEntry {
    PageTableEntry(bits: UInt64(slot) << 12 | swapped | old.bits & userfaultWriteProtected)
  }
  var slot: SwapDevice.Slot { frame }
}
