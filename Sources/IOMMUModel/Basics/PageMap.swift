// SPDX-License-Identifier: Apache-2.0

/// A page of a PASID or of an address space.
struct PageKey: Equatable {
  var owner: UInt32
  var page: PageNumber
  /// 32 bits that depend on every bit of page and owner.
  @inline(__always) var hash: UInt64 {
    ((page ^ UInt64(owner) &* 0x9e37_79b9_7f4a_7c15) &* 0xbf58_476d_1ce4_e5b9) >> 32
  }
}

/// Values by page: open addressing with linear probing and backward-shift deletion, so that there are no tombstones
/// and the same history gives the same layout on every machine. (`Dictionary` is seeded per process.)
struct PageMap<Value> {
  /// Key and value lie side by side: a lookup that finds at once reads one place.
  private struct Entry {
    var key: PageKey
    /// In a vacant slot the rest of whatever lay there.
    var value: Value
  }
  private var entries: [Entry] = []
  private(set) var count = 0
  private var mask = 0
  /// What marks a slot without an entry; no owner has this number.
  private static var vacant: PageKey { PageKey(owner: .max, page: 0) }

  @inline(__always) func find(_ key: PageKey) -> Int? {
    if count == 0 { return nil }
    var slot = Int(truncatingIfNeeded: key.hash) & mask
    while entries[slot].key != key {
      if entries[slot].key.owner == .max { return nil }
      slot = (slot &+ 1) & mask
    }
    return slot
  }

  /// The value in a slot that `find` answered, valid until the next insertion or removal.
  subscript(slot slot: Int) -> Value {
    @inline(__always) _read { yield entries[slot].value }
    @inline(__always) _modify { yield &entries[slot].value }
  }

  /// Changes `count` values one after the other, as long as each lies where it is guessed to and `body` accepts it.
  /// - Returns: how many were changed.
  @inline(__always)
  mutating func change(
    _ count: Int, at guess: (Int) -> (slot: Int, key: PageKey), _ body: (Int, inout Value) -> Bool
  ) -> Int {
    var entries = entries.mutableSpan
    for index in 0..<count {
      let (slot, key) = guess(index)
      guard slot < entries.count, entries[slot].key == key, body(index, &entries[slot].value) else { return index }
    }
    return count
  }

  subscript(key: PageKey) -> Value? {
    guard let slot = find(key) else { return nil }
    return entries[slot].value
  }

  /// Sets the value and answers its slot.
  @discardableResult
  mutating func set(_ key: PageKey, _ value: Value) -> Int {
    if (count + 1) * 4 > entries.count * 3 { grow(filler: value) }
    var slot = Int(truncatingIfNeeded: key.hash) & mask
    while entries[slot].key.owner != .max {
      if entries[slot].key == key {
        entries[slot].value = value
        return slot
      }
      slot = (slot + 1) & mask
    }
    entries[slot] = Entry(key: key, value: value)
    count += 1
    return slot
  }

  mutating func remove(_ key: PageKey) {
    guard var hole = find(key) else { return }
    count -= 1
    var slot = hole
    while true {
      slot = (slot + 1) & mask
      guard entries[slot].key.owner != .max else { break }
      let home = Int(truncatingIfNeeded: entries[slot].key.hash) & mask
      if (slot &- home) & mask >= (slot &- hole) & mask {
        entries[hole] = entries[slot]
        hole = slot
      }
    }
    entries[hole].key = Self.vacant
  }

  mutating func removeAll() { self = PageMap() }

  /// Drops every value that the test refuses; for maps that would otherwise grow with history.
  mutating func keep(_ test: (PageKey, Value) -> Bool) {
    var kept = PageMap()
    for entry in entries where entry.key.owner != .max && test(entry.key, entry.value) {
      kept.set(entry.key, entry.value)
    }
    self = kept
  }

  /// Slots in layout order: deterministic, but not sorted.
  var capacity: Int { entries.count }
  func entry(at slot: Int) -> (key: PageKey, value: Value)? {
    let entry = entries[slot]
    return entry.key.owner == .max ? nil : (entry.key, entry.value)
  }

  /// Entries by owner, then page: the canonical order of encodings.
  var sorted: [(key: PageKey, value: Value)] {
    (0..<capacity).compactMap(entry).sorted { ($0.key.owner, $0.key.page) < ($1.key.owner, $1.key.page) }
  }

  private mutating func grow(filler: Value) {
    let old = entries
    let capacity = max(8, old.count * 2)
    entries = Array(repeating: Entry(key: Self.vacant, value: filler), count: capacity)
    mask = capacity - 1
    count = 0
    for entry in old where entry.key.owner != .max { set(entry.key, entry.value) }
  }
}
