// SPDX-License-Identifier: Apache-2.0

/// Machine time in nanoseconds since the machine was created.
public typealias Nanoseconds = UInt64

/// Index of a 4 KiB frame of simulated physical memory: physical address >> 12.
public typealias FrameNumber = UInt32

/// Index of a 4 KiB page of a virtual or I/O virtual address space: address >> 12.
public typealias PageNumber = UInt64

/// Process address-space id, 20 bits. 0 names the traffic that carries no PASID.
public typealias PASID = UInt32

/// One counter per device over translation answers and invalidations (design §4): a device discards an answer
/// that is older than a covering invalidation.
public typealias Order = UInt64

public enum Page {
  public static let sizeLog2: UInt8 = 12
  public static let byteCount: UInt64 = 4096
  public static let wordCount = 512
  public static let maximumPASID: PASID = 0xf_ffff
}

/// Read and write, as page-table entries, ATS answers and page requests carry them.
public struct Rights: OptionSet, Sendable {
  public let rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
  @inlinable public static var read: Rights { Rights(rawValue: 1) }
  @inlinable public static var write: Rights { Rights(rawValue: 2) }
  @inlinable public static var readWrite: Rights { Rights(rawValue: 3) }
  /// An x86 page-table entry cannot say "write only": PROT_WRITE implies PROT_READ.
  public var impliedByEntry: Rights { contains(.write) ? .readWrite : intersection(.read) }
}

/// A run of whole pages; never empty in an accepted command.
public struct PageRange: Equatable, Sendable {
  public var first: PageNumber
  public var count: UInt64
  @inlinable public init(first: PageNumber, count: UInt64) {
    self.first = first
    self.count = count
  }
  /// One past the last page.
  @inlinable public var end: PageNumber { first + count }
  @inlinable public func contains(_ page: PageNumber) -> Bool { page >= first && page < end }
  @inlinable public func overlaps(_ other: PageRange) -> Bool { first < other.end && other.first < end }
  /// What both have; they overlap.
  func intersection(_ other: PageRange) -> PageRange {
    let start = max(first, other.first)
    return PageRange(first: start, count: min(end, other.end) - start)
  }
  @inlinable public func contains(_ other: PageRange) -> Bool { other.first >= first && other.end <= end }

  /// log2 of the byte count of the smallest naturally aligned power-of-two block that covers the range: the only
  /// shape that an ATS Invalidate Request can name (PCIe ATS, Invalidate Request payload).
  public var coveringBlockSizeLog2: UInt8 {
    var log2: UInt8 = 0
    while first >> log2 != (end - 1) >> log2 { log2 += 1 }
    return log2 + Page.sizeLog2
  }
  /// The lower canonical half of a 48-bit address space.
  public static let all = PageRange(first: 0, count: 1 << 35)
}
