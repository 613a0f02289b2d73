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
}

/// Where a walk stands: a table and what the entries above it allow. What the walk cache keeps.
struct WalkPosition {
  var table: FrameNumber
  var level: UInt8
  var writable: Bool
}

/// Walks real bits in real frames as a user-mode access (CPL 3, CR0.WP = 1, EFER.NXE = 1): Intel SDM vol. 3, 4.5 to 4.8.
/// Rights combine over the levels; a reserved bit counts only in a present entry; Accessed is set in every entry used
/// and Dirty in the leaf, and neither when the access is refused.
public struct PageWalker: Sendable {
  public let format: PageTableFormat
  public init(format: PageTableFormat) { self.format = format }

  /// Walks from the root table at `root`.
  public func walk(
    _ memory: inout PhysicalMemory, root: FrameNumber, address: UInt64, access: WalkAccess
  ) -> WalkResult {
    guard format.isCanonical(address) else { return .fault(.notCanonical, level: format.levelCount - 1) }
    var path = WalkPath()
    let page = address >> 12
    return walk(
      &memory, from: WalkPosition(table: root, level: format.levelCount - 1, writable: true), page: page,
      access: access, path: &path)
  }

  /// Walks on from a position, and leaves in `path` the tables that were read.
  @inline(__always)
  func walk(
    _ memory: inout PhysicalMemory, from start: WalkPosition, page: PageNumber, access: WalkAccess,
    path: inout WalkPath
  ) -> WalkResult {
    var position = start
    var user = true
    var executable = true
    var common = UInt64.max
    while true {
      let index = format.index(page, level: position.level)
      path.append(position, index)
      let entry = PageTableEntry(bits: memory.load(position.table, index))
      guard entry.isPresent else { return .fault(.notPresent, level: position.level) }
      let isLeaf = position.level == 0 || entry.bits & PageTableEntry.pageSize != 0
      if entry.bits & reservedMask(level: position.level, isLeaf: isLeaf) != 0 {
        return .fault(.reservedBit, level: position.level)
      }
      user = user && entry.bits & PageTableEntry.user != 0
      executable = executable && entry.bits & PageTableEntry.noExecute == 0
      position.writable = position.writable && entry.isWritable
      common &= entry.bits
      if isLeaf {
        if !user || access.contains(.write) && !position.writable || access.contains(.execute) && !executable {
          return .fault(.denied, level: position.level)
        }
        if access.contains(.updateBits) {
          let dirty = access.contains(.write) || access.contains(.writeIfAllowed) && position.writable
          // Mostly everything is marked already, and the tables need no second reading.
          let isMarked = common & PageTableEntry.accessed != 0 && (!dirty || entry.bits & PageTableEntry.dirty != 0)
          if !isMarked { update(&memory, path, dirty: dirty) }
        }
        let low = FrameNumber(1) << (9 * FrameNumber(position.level)) - 1
        return .leaf(
          .init(
            frame: entry.frame & ~low, level: position.level,
            rights: position.writable ? .readWrite : .read, executable: executable, user: user))
      }
      position.table = entry.frame
      position.level -= 1
    }
  }

  /// Bits that must be zero in a present entry: the address above the machine's width, PS at levels that have no leaf,
  /// and the address bits below a large leaf's size, except PAT (bit 12).
  @inline(__always)
  private func reservedMask(level: UInt8, isLeaf: Bool) -> UInt64 {
    let high = (UInt64(1) << 52 - 1) & ~(UInt64(1) << UInt64(format.physicalAddressBits) - 1)
    guard isLeaf && level > 0 else { return high }
    if level > format.highestLeafLevel { return high | PageTableEntry.pageSize }
    let below = UInt64(1) << UInt64(PageTableFormat.spanLog2(level: level)) - 1
    return high | below & ~UInt64(0x1fff)
  }

  /// Sets Accessed and Dirty where they are clear. Writes into a table that was freed do not touch the checksum: no
  /// owner knows of them.
  private func update(_ memory: inout PhysicalMemory, _ path: WalkPath, dirty: Bool) {
    for step in 0..<path.count {
      let (position, index) = path[step]
      var wanted = PageTableEntry.accessed
      if dirty && step == path.count - 1 { wanted |= PageTableEntry.dirty }
      let old = memory.load(position.table, index)
      guard old & wanted != wanted else { continue }
      if memory.isStaleTable(position.table) {
        memory.storeUnaccounted(position.table, index, old | wanted)
      } else {
        memory.store(position.table, index, old | wanted)
      }
    }
  }
}

/// The tables that a walk has read, top down; at most five.
struct WalkPath {
  private var positions: (WalkPosition, WalkPosition, WalkPosition, WalkPosition, WalkPosition)
  private var indices: (Int, Int, Int, Int, Int) = (0, 0, 0, 0, 0)
  private(set) var count = 0

  init() {
    let none = WalkPosition(table: 0, level: 0, writable: true)
    positions = (none, none, none, none, none)
  }

  @inline(__always)
  mutating func append(_ position: WalkPosition, _ index: Int) {
    switch count {
    case 0: (positions.0, indices.0) = (position, index)
    case 1: (positions.1, indices.1) = (position, index)
    case 2: (positions.2, indices.2) = (position, index)
    case 3: (positions.3, indices.3) = (position, index)
    default: (positions.4, indices.4) = (position, index)
    }
    count += 1
  }

  @inline(__always)
  subscript(step: Int) -> (WalkPosition, Int) {
    switch step {
    case 0: (positions.0, indices.0)
    case 1: (positions.1, indices.1)
    case 2: (positions.2, indices.2)
    case 3: (positions.3, indices.3)
    default: (positions.4, indices.4)
    }
  }
}
