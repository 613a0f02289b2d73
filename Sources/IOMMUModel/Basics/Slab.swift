// SPDX-License-Identifier: Apache-2.0

/// Elements in numbered slots that are reused lowest-first by recency; a handle carries the slot's generation.
/// A value: copying a slab copies its machine.
struct Slab<ID: Handle, Element> {
  private(set) var elements: [Element?] = []
  private var generations: [UInt32] = []
  private var free: [UInt32] = []
  private(set) var count = 0

  /// Takes a slot. The caller has checked its limit, which is at most 65,535.
  mutating func insert(_ make: (ID) -> Element) -> ID {
    let slot: Int
    if let reused = free.popLast() {
      slot = Int(reused)
    } else {
      slot = elements.count
      precondition(slot <= 0xffff, "a slab has at most 65,536 slots")
      elements.append(nil)
      generations.append(0)
    }
    generations[slot] = generations[slot] == 0xffff ? 1 : generations[slot] + 1
    let id = ID(slot: slot, generation: generations[slot])
    elements[slot] = make(id)
    count += 1
    return id
  }

  mutating func remove(_ id: ID) {
    precondition(contains(id), "only a live handle is removed")
    elements[id.slot] = nil
    free.append(UInt32(id.slot))
    count -= 1
  }

  func contains(_ id: ID) -> Bool {
    id.slot < elements.count && generations[id.slot] == id.generation && elements[id.slot] != nil
  }

  /// The element of a live handle; traps on a dead one, so ask `contains` first where a caller chose it.
  subscript(id: ID) -> Element {
    get {
      precondition(generations[id.slot] == id.generation, "the handle is live")
      return elements[id.slot]!
    }
    _modify {
      precondition(generations[id.slot] == id.generation, "the handle is live")
      yield &elements[id.slot]!
    }
  }

  /// Live handles, by slot.
  var ids: [ID] {
    var result: [ID] = []
    for slot in elements.indices where elements[slot] != nil {
      result.append(ID(slot: slot, generation: generations[slot]))
    }
    return result
  }
}
