// SPDX-License-Identifier: Apache-2.0

/// Contents of a page outside memory: the words that are not zero.
struct StoredPage: Equatable {
  var words: [(index: Int, value: UInt64)] = []

  static func == (a: StoredPage, b: StoredPage) -> Bool {
    a.words.count == b.words.count && zip(a.words, b.words).allSatisfy { $0 == $1 }
  }
}

extension PhysicalMemory {
  func contents(_ frame: FrameNumber) -> StoredPage {
    var page = StoredPage()
    for index in 0..<Page.wordCount {
      let value = load(frame, index)
      if value != 0 { page.words.append((index, value)) }
    }
    return page
  }

  /// Reads a page into a frame that has just been allocated.
  mutating func fill(_ frame: FrameNumber, _ page: StoredPage) {
    for (index, value) in page.words { store(frame, index, value) }
  }
}

/// Where reclaim puts anonymous pages: as many slots as the machine has frames (our choice). Reading and writing take
/// no time of their own.
struct SwapDevice {
  /// A slot's number, from 1 on; 0 means "none".
  typealias Slot = UInt32
  struct Content {
    /// Page-table entries that name the slot, and the reclaim that is filling it.
    var references: UInt32 = 0
    var page = StoredPage()
  }
  private(set) var slots: [Content] = [Content()]
  private(set) var free: [Slot] = []
  let capacity: UInt32

  /// Takes a slot with one reference, to be written; nil: the swap device is full.
  mutating func reserve() -> Slot? {
    if let slot = free.popLast() {
      slots[Int(slot)].references = 1
      return slot
    }
    guard slots.count <= Int(capacity) else { return nil }
    slots.append(Content(references: 1))
    return Slot(slots.count - 1)
  }

  mutating func write(_ slot: Slot, _ page: StoredPage) { slots[Int(slot)].page = page }
  func read(_ slot: Slot) -> StoredPage { slots[Int(slot)].page }

  mutating func retain(_ slot: Slot) { slots[Int(slot)].references += 1 }
  mutating func release(_ slot: Slot) {
    precondition(slots[Int(slot)].references > 0, "slot \(slot) is held")
    slots[Int(slot)].references -= 1
    guard slots[Int(slot)].references == 0 else { return }
    slots[Int(slot)].page = StoredPage()
    free.append(slot)
  }
}
