// SPDX-License-Identifier: Apache-2.0

/// The device's own translation cache (ATC): bounded, set-associative, tagged by PASID, with blocks of 4K, 2M and 1G.
///
/// The rule of the cache: an entry may vanish at any time; it must have vanished when `invalidate` returns if its block
/// overlaps the range. Replacement within a set is round-robin (our choice).
public struct TranslationCache: Sendable {
  public struct Entry: Equatable, Sendable {
    public var pasid: UInt32
    /// First page of the block.
    public var firstPage: UInt64
    public var physicalAddress: UInt64
    /// 12, 21 or 30; 0: empty.
    public var sizeLog2: UInt8
    public var rights: ATSRights
    static let empty = Entry(pasid: 0, firstPage: 0, physicalAddress: 0, sizeLog2: 0, rights: [])
  }

  static let sizes: [UInt8] = [12, 21, 30]
  let ways: Int
  let setMask: Int
  var entries: [Entry]
  var nextVictim: [UInt8]
  /// Valid entries of each size.
  var counts = (small: 0, medium: 0, large: 0)

  /// `entryCount` and `ways` are powers of two, `ways` at most `entryCount`.
  public init(entryCount: Int, ways: Int = 4) {
    let ways = min(ways, entryCount)
    precondition(entryCount > 0 && entryCount & (entryCount - 1) == 0, "ATC entries: a power of two, not \(entryCount)")
    precondition(ways > 0 && ways & (ways - 1) == 0, "ATC ways: a power of two, not \(ways)")
    self.ways = ways
    setMask = entryCount / ways - 1
    entries = Array(repeating: .empty, count: entryCount)
    nextVictim = Array(repeating: 0, count: entryCount / ways)
  }

  /// Valid entries.
  public var count: Int { counts.small + counts.medium + counts.large }

  /// The entry that covers the page, whatever its rights, or nil.
  @inline(__always) public func lookup(pasid: UInt32, page: UInt64) -> Entry? {
    if counts.small > 0, let index = find(pasid, page, 12) { return entries[index] }
    if counts.medium > 0, let index = find(pasid, page & ~0x1ff, 21) { return entries[index] }
    if counts.large > 0, let index = find(pasid, page & ~0x3_ffff, 30) { return entries[index] }
    return nil
  }

  /// Adds a translation, in place of an older one of the same block.
  public mutating func insert(
    pasid: UInt32, page: UInt64, physicalAddress: UInt64, sizeLog2: UInt8, rights: ATSRights
  ) {
    guard Self.sizes.contains(sizeLog2), !rights.isEmpty else { return }
    let first = PageBlock(page, sizeLog2: sizeLog2).first
    let entry = Entry(
      pasid: pasid, firstPage: first, physicalAddress: physicalAddress, sizeLog2: sizeLog2, rights: rights)
    if let index = find(pasid, first, sizeLog2) {
      entries[index] = entry
      return
    }
    let set = setIndex(pasid, first, sizeLog2)
    var index = set * ways
    let end = index + ways
    while index < end && entries[index].sizeLog2 != 0 { index += 1 }
    if index == end {
      index = set * ways + (Int(nextVictim[set]) & (ways - 1))
      nextVictim[set] &+= 1
      count(entries[index].sizeLog2, -1)
    }
    entries[index] = entry
    count(sizeLog2, 1)
  }

  /// Drops every entry of the PASID whose block overlaps the block of `sizeLog2` around `page`; answers how many.
  @discardableResult
  public mutating func invalidate(pasid: UInt32, page: UInt64, sizeLog2: UInt8) -> Int {
    let range = PageBlock(page, sizeLog2: sizeLog2)
    let pages = range.last - range.first
    guard pages < UInt64(setMask + 1) else { return invalidateByScan(pasid, range) }
    var dropped = 0
    if counts.small > 0 { for page in range.first...range.last { dropped += drop(pasid, page, 12) } }
    if counts.medium > 0 {
      for block in range.first >> 9...range.last >> 9 { dropped += drop(pasid, block << 9, 21) }
    }
    if counts.large > 0 {
      for block in range.first >> 18...range.last >> 18 { dropped += drop(pasid, block << 18, 30) }
    }
    return dropped
  }

  public mutating func removeAll() {
    for index in entries.indices { entries[index] = .empty }
    counts = (0, 0, 0)
  }

  private mutating func invalidateByScan(_ pasid: UInt32, _ range: PageBlock) -> Int {
    var dropped = 0
    for index in entries.indices where entries[index].sizeLog2 != 0 && entries[index].pasid == pasid {
      let entry = entries[index]
      guard PageBlock(entry.firstPage, sizeLog2: entry.sizeLog2).overlaps(range) else { continue }
      entries[index] = .empty
      count(entry.sizeLog2, -1)
      dropped += 1
    }
    return dropped
  }

  private mutating func drop(_ pasid: UInt32, _ firstPage: UInt64, _ sizeLog2: UInt8) -> Int {
    guard let index = find(pasid, firstPage, sizeLog2) else { return 0 }
    entries[index] = .empty
    count(sizeLog2, -1)
    return 1
  }

  @inline(__always) private func find(_ pasid: UInt32, _ firstPage: UInt64, _ sizeLog2: UInt8) -> Int? {
    let start = setIndex(pasid, firstPage, sizeLog2) * ways
    for index in start..<start + ways
    where entries[index].firstPage == firstPage && entries[index].pasid == pasid && entries[index].sizeLog2 == sizeLog2
    {
      return index
    }
    return nil
  }

  @inline(__always) private func setIndex(_ pasid: UInt32, _ firstPage: UInt64, _ sizeLog2: UInt8) -> Int {
    let key = (firstPage >> UInt64(sizeLog2 - 12)) ^ (UInt64(pasid) &* 0x9e37_79b9) ^ UInt64(sizeLog2)
    return Int(truncatingIfNeeded: (key &* 0x9e37_79b9_7f4a_7c15) >> 32) & setMask
  }

  @inline(__always) private mutating func count(_ sizeLog2: UInt8, _ change: Int) {
    switch sizeLog2 {
    case 12: counts.small += change
    case 21: counts.medium += change
    default: counts.large += change
    }
  }
}
