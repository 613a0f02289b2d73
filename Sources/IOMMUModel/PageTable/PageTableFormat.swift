// SPDX-License-Identifier: Apache-2.0

/// A radix page-table format as data: the walker reads it, and knows no format of its own. Level 0 is the leaf level.
public struct PageTableFormat: Equatable, Sendable {
  /// Tables from the root to a 4 KiB leaf.
  public var levelCount: UInt8
  /// Bits of a virtual address that are translated; the rest must repeat the highest (canonical).
  public var virtualAddressBits: UInt8
  /// Highest level whose entries may be leaves: 0 → 4 KiB, 1 → 2 MiB, 2 → 1 GiB.
  public var highestLeafLevel: UInt8
  /// Bits of a physical address that the machine has: entry bits from here to 51 are reserved.
  public var physicalAddressBits: UInt8

  /// x86-64 with CR4.LA57 = 0 (Intel SDM vol. 3, 4.5): VT-d first stage, AMD v2 guest tables, and the CPUs.
  public static let x86Level4 = PageTableFormat(
    levelCount: 4, virtualAddressBits: 48, highestLeafLevel: 2, physicalAddressBits: 40)

  @inline(__always) func index(_ page: PageNumber, level: UInt8) -> Int {
    Int(truncatingIfNeeded: page &>> (9 &* UInt64(level)) & 511)
  }
  /// log2 of the byte count that one entry of a level spans.
  @inline(__always) static func spanLog2(level: UInt8) -> UInt8 { Page.sizeLog2 &+ 9 &* level }

  /// Whether bits 63… of the address repeat the highest translated bit.
  public func isCanonical(_ address: UInt64) -> Bool {
    let shift = 64 - UInt64(virtualAddressBits)
    return UInt64(bitPattern: Int64(bitPattern: address << shift) >> Int64(shift)) == address
  }
}

/// One 64-bit x86-64 page-table entry (Intel SDM vol. 3, tables 4-15 to 4-20).
public struct PageTableEntry: Equatable, Sendable {
  public var bits: UInt64
  @inlinable public init(bits: UInt64) { self.bits = bits }

  public static let present: UInt64 = 1 << 0
  public static let writable: UInt64 = 1 << 1
  public static let user: UInt64 = 1 << 2
  public static let accessed: UInt64 = 1 << 5
  public static let dirty: UInt64 = 1 << 6
  public static let pageSize: UInt64 = 1 << 7
  public static let noExecute: UInt64 = 1 << 63
  static let addressMask: UInt64 = 0x000f_ffff_ffff_f000

  @inlinable public var isPresent: Bool { bits & 1 != 0 }
  @inlinable public var isWritable: Bool { bits & 2 != 0 }
  /// Frame of the next table or of the leaf; the low bits of a large leaf are its PAT and reserved bits.
  @inlinable public var frame: FrameNumber { FrameNumber(truncatingIfNeeded: bits >> 12 & 0xff_ffff_ffff) }

  static func table(_ frame: FrameNumber) -> PageTableEntry {
    PageTableEntry(bits: UInt64(frame) << 12 | present | writable | user)
  }
  static func leaf(_ frame: FrameNumber, _ rights: Rights, level: UInt8) -> PageTableEntry {
    var bits = UInt64(frame) << 12 | present | user | noExecute
    if rights.contains(.write) { bits |= writable }
    if level > 0 { bits |= pageSize }
    return PageTableEntry(bits: bits)
  }
}
