// SPDX-License-Identifier: Apache-2.0

/// A cache of the IOMMU: four-way set-associative, replaced in turn within a set. What it holds stays until it is
/// replaced or invalidated, true or not: that is the point of the project.
struct BoundedCache<Value> {
  /// Who the entry belongs to (tag, PASID, level; or requester id) and which page or prefix.
  struct Key: Equatable {
    var owner: UInt64
    var page: UInt64
  }
  private(set) var keys: [Key]
  private var values: [Value?]
  private var victims: [UInt8]
  private let setMask: Int
  private static var ways: Int { 4 }
  private static var vacant: Key { Key(owner: .max, page: 0) }

  init(entryCount: UInt32) {
    let count = max(Self.ways, Int(entryCount))
    precondition(count & (count - 1) == 0, "cache sizes are powers of two")
    keys = Array(repeating: Self.vacant, count: count)
    values = Array(repeating: nil, count: count)
    victims = Array(repeating: 0, count: count / Self.ways)
    setMask = count / Self.ways - 1
  }

  @inline(__always)
  private func set(_ key: Key) -> Int {
    let folded = (key.page ^ key.owner &* 0x9e37_79b9_7f4a_7c15) &* 0xbf58_476d_1ce4_e5b9
    return Int(truncatingIfNeeded: folded >> 32) & setMask
  }

  @inline(__always)
  func find(_ key: Key) -> Value? {
    let base = set(key) * Self.ways
    for way in base..<base + Self.ways where keys[way] == key { return values[way] }
    return nil
  }

  mutating func insert(_ key: Key, _ value: Value) {
    let set = set(key)
    let base = set * Self.ways
    var target = base + Int(victims[set])
    for way in base..<base + Self.ways where keys[way] == key || keys[way].owner == .max {
      target = way
      if keys[way] == key { break }
    }
    if keys[target].owner != .max && keys[target] != key { victims[set] = (victims[set] + 1) % UInt8(Self.ways) }
    keys[target] = key
    values[target] = value
  }

  mutating func remove(_ key: Key) {
    let base = set(key) * Self.ways
    for way in base..<base + Self.ways where keys[way] == key { clear(way) }
  }

  mutating func remove(where test: (Key) -> Bool) {
    for slot in keys.indices where keys[slot].owner != .max && test(keys[slot]) { clear(slot) }
  }

  private mutating func clear(_ slot: Int) {
    keys[slot] = Self.vacant
    values[slot] = nil
  }

  func entry(at slot: Int) -> (Key, Value)? { values[slot].map { (keys[slot], $0) } }
  var victimOrder: [UInt8] { victims }
}
