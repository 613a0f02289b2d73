// SPDX-License-Identifier: Apache-2.0

/// A cache of the IOMMU: four-way set-associative, replaced in turn within a set. What it holds stays until it is
/// replaced or invalidated, true or not: that is the point of the project.
struct BoundedCache<Value> {
  /// Who the entry belongs to (tag, PASID, level; or requester id) and which page or prefix.
  struct Key: Equatable {
    var owner: UInt64
    var page: UInt64
  }
  private struct Entry {
    var key: Key
    var value: Value
  }
  /// A byte for each way: 0 when it is vacant, otherwise 0x80 and seven bits of its key's hash. Nobody can predict which
  /// way it is that holds a key; so the four are compared at once, without branches, and one key is read to make sure.
  private struct Ways {
    private static var highBits: UInt32 { 0x8080_8080 }
    private static var ones: UInt32 { 0x0101_0101 }
    var tags: UInt32 = 0
    /// The way that is replaced next.
    var victim: UInt8 = 0

    /// The ways whose tag this may be, as bits 7, 15, 23 and 31: all whose it is, and rarely one above the lowest
    /// whose it is not.
    @inline(__always)
    func candidates(_ tag: UInt32) -> UInt32 {
      let difference = tags ^ tag &* Self.ones
      return (difference &- Self.ones) & ~difference & Self.highBits
    }

    /// Makes room for a key that is not there, in the first vacant way or in the next victim's. Answers the way.
    @inline(__always)
    mutating func admit(_ tag: UInt32) -> Int {
      let vacant = ~tags & Self.highBits
      let way: Int
      if vacant != 0 {
        way = vacant.trailingZeroBitCount &>> 3
      } else {
        way = Int(victim)
        victim = (victim &+ 1) & 3
      }
      set(way, tag)
      return way
    }

    @inline(__always)
    mutating func set(_ way: Int, _ tag: UInt32) {
      let shift = UInt32(truncatingIfNeeded: way) &* 8
      tags = tags & ~(0xff &<< shift) | tag &<< shift
    }
  }
  private var sets: [Ways]
  /// By slot, four for each set. Made with the first insertion, so that there is always a value to lie in a vacant slot.
  private var entries: [Entry] = []
  private let setMask: Int
  private static var wayCount: Int { 4 }

  init(entryCount: UInt32) {
    let count = max(Self.wayCount, Int(entryCount))
    precondition(count & (count - 1) == 0, "cache sizes are powers of two")
    setMask = count / Self.wayCount - 1
    sets = Array(repeating: Ways(), count: count / Self.wayCount)
  }

  @inline(__always)
  private func place(_ key: Key) -> (set: Int, tag: UInt32) {
    let folded = (key.page ^ key.owner &* 0x9e37_79b9_7f4a_7c15) &* 0xbf58_476d_1ce4_e5b9
    return (Int(truncatingIfNeeded: folded >> 32) & setMask, UInt32(truncatingIfNeeded: folded >> 25) & 0x7f | 0x80)
  }

  @inline(__always)
  private func slot(_ key: Key, _ set: Int, _ tag: UInt32) -> Int? {
    var candidates = sets[set].candidates(tag)
    while candidates != 0 {
      let slot = set &* Self.wayCount &+ candidates.trailingZeroBitCount &>> 3
      if entries[slot].key == key { return slot }
      candidates &= candidates &- 1
    }
    return nil
  }

  @inline(__always)
  private func slot(_ key: Key) -> Int? {
    let (set, tag) = place(key)
    return slot(key, set, tag)
  }

  @inline(__always)
  func contains(_ key: Key) -> Bool { slot(key) != nil }

  @inline(__always)
  func find(_ key: Key) -> Value? {
    guard let slot = slot(key) else { return nil }
    return entries[slot].value
  }

  mutating func insert(_ key: Key, _ value: Value) {
    let entry = Entry(key: key, value: value)
    if entries.isEmpty { entries = Array(repeating: entry, count: sets.count * Self.wayCount) }
    let (set, tag) = place(key)
    let slot = slot(key, set, tag) ?? set &* Self.wayCount &+ sets[set].admit(tag)
    entries[slot] = entry
  }

  /// Changes the value of a key that is there.
  mutating func change(_ key: Key, _ body: (inout Value) -> Void) {
    if let slot = slot(key) { body(&entries[slot].value) }
  }

  mutating func remove(_ key: Key) {
    if let slot = slot(key) { clear(slot) }
  }

  mutating func remove(where test: (Key) -> Bool) {
    for slot in slots {
      if let (key, _) = entry(at: slot), test(key) { clear(slot) }
    }
  }

  private mutating func clear(_ slot: Int) { sets[slot >> 2].set(slot & 3, 0) }

  /// Every slot, vacant or not: four for each set.
  var slots: Range<Int> { 0..<sets.count * Self.wayCount }
  func entry(at slot: Int) -> (Key, Value)? {
    guard sets[slot >> 2].tags >> (8 * UInt32(slot & 3)) & 0xff != 0 else { return nil }
    return (entries[slot].key, entries[slot].value)
  }
  /// By set.
  var victimOrder: [UInt8] { sets.map(\.victim) }
}
