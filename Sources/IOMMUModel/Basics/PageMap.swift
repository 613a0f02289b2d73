// SPDX-License-Identifier: Apache-2.0

/// A page of a PASID or of an address space.
struct PageKey: Equatable {
  var owner: UInt32
  var page: PageNumber
  @inline(__always) var hash: UInt64 {
    SeededGenerator.mix(page &* 0x9e37_79b9_7f4a_7c15 ^ UInt64(owner) << 40)
  }
}

/// Values by page: open addressing with linear probing and backward-shift deletion, so that there are no tombstones
/// and the same history gives the same layout on every machine. (`Dictionary` is seeded per process.)
struct PageMap<Value> {
  private var keys: [PageKey] = []
  private var values: [Value?] = []
  private(set) var count = 0
  private var mask = 0
  /// What marks a slot without an entry; no owner has this number.
  private static var vacant: PageKey { PageKey(owner: .max, page: 0) }

  @inline(__always) func find(_ key: PageKey) -> Int? {
    if count == 0 { return nil }
    var slot = Int(truncatingIfNeeded: key.hash) & mask
    while keys[slot].owner != .max {
      if keys[slot] == key { return slot }
      slot = (slot + 1) & mask
    }
    return nil
  }

  /// The value in a slot that `find` answered, valid until the next insertion or removal.
  subscript(slot slot: Int) -> Value {
    @inline(__always) get { values[slot]! }
    @inline(__always) _modify { yield &values[slot]! }
  }

  subscript(key: PageKey) -> Value? {
    guard let slot = find(key) else { return nil }
    return values[slot]
  }

  /// Sets the value and answers its slot.
  @discardableResult
  mutating func set(_ key: PageKey, _ value: Value) -> Int {
    if (count + 1) * 4 > keys.count * 3 { grow() }
    var slot = Int(truncatingIfNeeded: key.hash) & mask
    while keys[slot].owner != .max {
      if keys[slot] == key {
        values[slot] = value
        return slot
      }
      slot = (slot + 1) & mask
    }
    keys[slot] = key
    values[slot] = value
    count += 1
    return slot
  }

  mutating func remove(_ key: PageKey) {
    guard var hole = find(key) else { return }
    count -= 1
    var slot = hole
    while true {
      slot = (slot + 1) & mask
      guard keys[slot].owner != .max else { break }
      let home = Int(truncatingIfNeeded: keys[slot].hash) & mask
      if (slot &- home) & mask >= (slot &- hole) & mask {
        keys[hole] = keys[slot]
        values[hole] = values[slot]
        hole = slot
      }
    }
    keys[hole] = Self.vacant
    values[hole] = nil
  }

  mutating func removeAll() { self = PageMap() }

  /// Drops every value that the test refuses; for maps that would otherwise grow with history.
  mutating func keep(_ test: (PageKey, Value) -> Bool) {
    var kept = PageMap()
    for slot in values.indices {
      if let value = values[slot], test(keys[slot], value) { kept.set(keys[slot], value) }
    }
    self = kept
  }

  /// Slots in layout order: deterministic, but not sorted.
  var capacity: Int { keys.count }
  func entry(at slot: Int) -> (key: PageKey, value: Value)? { values[slot].map { (keys[slot], $0) } }

  /// Entries by owner, then page: the canonical order of encodings.
  var sorted: [(key: PageKey, value: Value)] {
    (0..<capacity).compactMap(entry).sorted { ($0.key.owner, $0.key.page) < ($1.key.owner, $1.key.page) }
  }

  private mutating func grow() {
    let oldKeys = keys
    let oldValues = values
    let capacity = max(8, keys.count * 2)
    keys = Array(repeating: Self.vacant, count: capacity)
    values = Array(repeating: nil, count: capacity)
    mask = capacity - 1
    count = 0
    for slot in oldValues.indices {
      if let value = oldValues[slot] { set(oldKeys[slot], value) }
    }
  }
}
