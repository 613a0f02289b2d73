// SPDX-License-Identifier: Apache-2.0

/// What a walk asks for, beside the address.
public struct WalkAccess: OptionSet, Sendable {
  public let rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let write = WalkAccess(rawValue: 1)
  public static let execute = WalkAccess(rawValue: 2)
  /// Set Accessed on the way and, for a write, Dirty in the leaf.
  public static let updateBits = WalkAccess(rawValue: 4)
  /// A write if the leaf allows it, and a read otherwise: an ATS request with NW = 0.
  public static let writeIfAllowed = WalkAccess(rawValue: 8)
}

/// A walk's answer. A refusal names the level at which it was met.
public enum WalkResult: Equatable, Sendable {
  case leaf(Leaf)
  case fault(Fault, level: UInt8)

  public struct Leaf: Equatable, Sendable {
    /// First frame of the leaf's block.
    public var frame: FrameNumber
    /// 0 → 4 KiB, 1 → 2 MiB, 2 → 1 GiB.
    public var level: UInt8
    public var rights: Rights
    public var executable: Bool
    public var user: Bool
  }
  public enum Fault: UInt8, Sendable { case notPresent, reservedBit, denied, notCanonical }

  /// The level at which the walk ended.
  @inline(__always)
  var level: UInt8 {
    switch self {
    case .leaf(let leaf): leaf.level
    case .fault(_, let level): level
    }
  }
}

/// Where a walk stands: a table and what the entries above it allow. What the walk cache keeps.
struct WalkPosition {
  var table: FrameNumber
  var level: UInt8
  var writable: Bool
}

/// A table that a walk reads.
struct WalkStep {
  var position: WalkPosition
  /// The life that the table's frame is in, and whether it is one in which the frame is no table.
  var generation: UInt32
  var isStale: Bool
}

/// Walks real bits in real frames as a user-mode access (CPL 3, CR0.WP = 1, EFER.NXE = 1): Intel SDM vol. 3, 4.5 to 4.8.
/// Rights combine over the levels; a reserved bit counts only in a present entry; Accessed is set in every entry used
/// and Dirty in the leaf, and neither when the access is refused.
public struct PageWalker: Sendable {
  public let format: PageTableFormat
  /// Address bits above the machine's width: zero in every present entry.
  private let reserved: UInt64

  public init(format: PageTableFormat) {
    self.format = format
    reserved = (1 << 52 - 1) & ~(1 << UInt64(format.physicalAddressBits) - 1)
  }

  /// Walks from the root table at `root`.
  public func walk(
    _ memory: inout PhysicalMemory, root: FrameNumber, address: UInt64, access: WalkAccess
  ) -> WalkResult {
    guard format.isCanonical(address) else { return .fault(.notCanonical, level: format.levelCount - 1) }
    let start = WalkPosition(table: root, level: format.levelCount - 1, writable: true)
    return walk(&memory, from: start, page: address >> 12, access: access) { _ in }
  }

  /// Walks on from a position, and shows every table that is read on the way, top down.
  @inline(__always)
  func walk(
    _ memory: inout PhysicalMemory, from start: WalkPosition, page: PageNumber, access: WalkAccess,
    visit: (WalkStep) -> Void
  ) -> WalkResult {
    var table = start.table
    var level = start.level
    // Bits that every entry has, and bits that some entry has.
    var common = start.writable ? UInt64.max : ~PageTableEntry.writable
    var some: UInt64 = 0
    while true {
      let (bits, generation, isStale) = memory.loadTable(table, format.index(page, level: level))
      visit(
        WalkStep(
          position: WalkPosition(table: table, level: level, writable: common & PageTableEntry.writable != 0),
          generation: generation, isStale: isStale))
      guard bits & PageTableEntry.present != 0 else { return .fault(.notPresent, level: level) }
      let isLeaf = level == 0 || bits & PageTableEntry.pageSize != 0
      if bits & (isLeaf && level > 0 ? largeLeafReserved(level: level) : reserved) != 0 {
        return .fault(.reservedBit, level: level)
      }
      common &= bits
      some |= bits
      let frame = PageTableEntry(bits: bits).frame
      if isLeaf {
        let writable = common & PageTableEntry.writable != 0
        let user = common & PageTableEntry.user != 0
        let executable = some & PageTableEntry.noExecute == 0
        if !user || access.contains(.write) && !writable || access.contains(.execute) && !executable {
          return .fault(.denied, level: level)
        }
        if access.contains(.updateBits) {
          let dirty = access.contains(.write) || access.contains(.writeIfAllowed) && writable
          // Mostly everything is marked already, and the tables need no second reading.
          let isMarked = common & PageTableEntry.accessed != 0 && (!dirty || bits & PageTableEntry.dirty != 0)
          if !isMarked { update(&memory, from: start, page, leafLevel: level, dirty: dirty) }
        }
        let low = FrameNumber(1) &<< (9 &* FrameNumber(level)) &- 1
        return .leaf(
          .init(
            frame: frame & ~low, level: level, rights: writable ? .readWrite : .read, executable: executable,
            user: user))
      }
      table = frame
      level &-= 1
    }
  }

  /// Bits that must be zero in a leaf above level 0: the address bits below its size as well, except PAT (bit 12); and
  /// PS at levels that have no leaf.
  private func largeLeafReserved(level: UInt8) -> UInt64 {
    if level > format.highestLeafLevel { return reserved | PageTableEntry.pageSize }
    let below = UInt64(1) << UInt64(PageTableFormat.spanLog2(level: level)) - 1
    return reserved | below & ~UInt64(0x1fff)
  }

  /// Sets Accessed and Dirty where they are clear, on the way that was just walked. Writes into a table that was freed
  /// do not touch the checksum: no owner knows of them.
  @inline(never)
  private func update(
    _ memory: inout PhysicalMemory, from start: WalkPosition, _ page: PageNumber, leafLevel: UInt8, dirty: Bool
  ) {
    var table = start.table
    var level = start.level
    while true {
      let index = format.index(page, level: level)
      var wanted = PageTableEntry.accessed
      if dirty && level == leafLevel { wanted |= PageTableEntry.dirty }
      let old = memory.load(table, index)
      if old & wanted != wanted {
        if memory.isStaleTable(table) {
          memory.storeUnaccounted(table, index, old | wanted)
        } else {
          memory.store(table, index, old | wanted)
        }
      }
      if level == leafLevel { return }
      table = PageTableEntry(bits: old).frame
      level -= 1
    }
  }
}
