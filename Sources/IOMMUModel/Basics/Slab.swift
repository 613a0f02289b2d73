// SPDX-License-Identifier: Apache-2.0

/// Elements in numbered slots that are reused lowest-first by recency; a handle carries the slot's generation.
/// A value: copying a slab copies its machine. The elements lie side by side without an optional around them, so that
/// reading one field of a large element reads that field and copies nothing else.
struct Slab<ID: Handle, Element> {
  private var elements: [Element] = []
  /// By slot: position in `elements`; −1 when the slot is vacant.
  private var positions: [Int32] = []
  /// By position: the slot.
  private var slots: [Int32] = []
  private var generations: [UInt32] = []
  private var free: [UInt32] = []
  var count: Int { elements.count }

  /// Takes a slot. The caller has checked its limit, which is at most 65,535.
  mutating func insert(_ make: (ID) -> Element) -> ID {
    let slot: Int
    if let reused = free.popLast() {
      slot = Int(reused)
    } else {
      slot = positions.count
      precondition(slot <= 0xffff, "a slab has at most 65,536 slots")
      positions.append(-1)
      generations.append(0)
    }
    generations[slot] = generations[slot] == 0xffff ? 1 : generations[slot] + 1
    let id = ID(slot: slot, generation: generations[slot])
    positions[slot] = Int32(elements.count)
    elements.append(make(id))
    slots.append(Int32(slot))
    return id
  }

  mutating func remove(_ id: ID) {
    precondition(contains(id), "only a live handle is removed")
    let position = Int(positions[id.slot])
    elements.swapAt(position, elements.count - 1)
    slots.swapAt(position, slots.count - 1)
    positions[Int(slots[position])] = Int32(position)
    elements.removeLast()
    slots.removeLast()
    positions[id.slot] = -1
    free.append(UInt32(id.slot))
  }

  @inline(__always)
  func contains(_ id: ID) -> Bool { position(id) != nil }

  /// Where the element of a live handle lies until the next removal; nil: the handle is dead. For hot paths, which ask
  /// once and then read by position.
  @inline(__always)
  func position(_ id: ID) -> Int? {
    guard id.slot < positions.count, generations[id.slot] == id.generation, positions[id.slot] >= 0 else { return nil }
    return Int(positions[id.slot])
  }

  subscript(position position: Int) -> Element {
    @inline(__always) _read { yield elements[position] }
    @inline(__always) _modify { yield &elements[position] }
  }

  /// The element of a live handle; traps on a dead one, so ask `contains` first where a caller chose it.
  subscript(id: ID) -> Element {
    @inline(__always) _read {
      precondition(generations[id.slot] == id.generation, "the handle is live")
      yield elements[Int(positions[id.slot])]
    }
    @inline(__always) _modify {
      precondition(generations[id.slot] == id.generation, "the handle is live")
      yield &elements[Int(positions[id.slot])]
    }
  }

  /// What the handles of later insertions follow from.
  var handleState: [UInt32] { generations + free }

  /// Live handles, by slot.
  var ids: [ID] {
    positions.indices.filter { positions[$0] >= 0 }.map { ID(slot: $0, generation: generations[$0]) }
  }
}
