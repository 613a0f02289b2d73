// SPDX-License-Identifier: Apache-2.0

/// A cache of the IOMMU: four-way set-associative, replaced in turn within a set. What it holds stays until it is
/// replaced or invalidated, true or not: that is the point of the project.
struct BoundedCache<Value> {
  /// Who the entry belongs to (tag, PASID, level; or requester id) and which page or prefix.
  struct Key: Equatable {
    var owner: UInt64
    var page: UInt64
  }
  /// The keys of a set lie in one cache line, and one bounds check covers them.
  private struct Ways {
    var k0 = vacant
    var k1 = vacant
    var k2 = vacant
    var k3 = vacant

    subscript(way: Int) -> Key {
      get {
        switch way {
        case 0: k0
        case 1: k1
        case 2: k2
        default: k3
        }
      }
      set {
        switch way {
        case 0: k0 = newValue
        case 1: k1 = newValue
        case 2: k2 = newValue
        default: k3 = newValue
        }
      }
    }
  }
  private var sets: [Ways]
  /// By slot, four for each set. Made with the first insertion, so that there is always a value to lie in a slot; the
  /// key says whether it counts.
  private var values: [Value] = []
  private var victims: [UInt8]
  private let setMask: Int
  private static var wayCount: Int { 4 }
  private static var vacant: Key { Key(owner: .max, page: 0) }

  init(entryCount: UInt32) {
    let count = max(Self.wayCount, Int(entryCount))
    precondition(count & (count - 1) == 0, "cache sizes are powers of two")
    sets = Array(repeating: Ways(), count: count / Self.wayCount)
    victims = Array(repeating: 0, count: count / Self.wayCount)
    setMask = count / Self.wayCount - 1
  }

  @inline(__always)
  private func set(_ key: Key) -> Int {
    let folded = (key.page ^ key.owner &* 0x9e37_79b9_7f4a_7c15) &* 0xbf58_476d_1ce4_e5b9
    return Int(truncatingIfNeeded: folded >> 32) & setMask
  }

  @inline(__always)
  private func slot(_ key: Key) -> Int? { slot(key, in: set(key)) }

  @inline(__always)
  private func slot(_ key: Key, in set: Int) -> Int? {
    if sets[set].k0 == key { return set * 4 }
    if sets[set].k1 == key { return set * 4 + 1 }
    if sets[set].k2 == key { return set * 4 + 2 }
    if sets[set].k3 == key { return set * 4 + 3 }
    return nil
  }

  @inline(__always)
  func contains(_ key: Key) -> Bool { slot(key) != nil }

  @inline(__always)
  func find(_ key: Key) -> Value? {
    guard let slot = slot(key) else { return nil }
    return values[slot]
  }

  mutating func insert(_ key: Key, _ value: Value) {
    if values.isEmpty { values = Array(repeating: value, count: sets.count * Self.wayCount) }
    let set = set(key)
    let target: Int
    if let slot = slot(key) {
      target = slot & 3
    } else if let slot = slot(Self.vacant, in: set) {
      target = slot & 3
    } else {
      target = Int(victims[set])
      victims[set] = (victims[set] + 1) & 3
    }
    sets[set][target] = key
    values[set * Self.wayCount + target] = value
  }

  mutating func remove(_ key: Key) {
    if let slot = slot(key) { clear(slot) }
  }

  mutating func remove(where test: (Key) -> Bool) {
    for slot in slots {
      let key = sets[slot >> 2][slot & 3]
      if key.owner != .max && test(key) { clear(slot) }
    }
  }

  private mutating func clear(_ slot: Int) { sets[slot >> 2][slot & 3] = Self.vacant }

  /// Every slot, vacant or not.
  var slots: Range<Int> { 0..<sets.count * Self.wayCount }
  func entry(at slot: Int) -> (Key, Value)? {
    let key = sets[slot >> 2][slot & 3]
    return key.owner == .max ? nil : (key, values[slot])
  }
  var victimOrder: [UInt8] { victims }
}
