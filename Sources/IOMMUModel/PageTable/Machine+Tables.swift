// SPDX-License-Identifier: Apache-2.0

/// Where an entry stands.
struct EntryPosition: Equatable {
  var table: FrameNumber
  var index: Int
  var level: UInt8

  /// Pages that an entry of this level maps.
  var span: UInt64 { 1 << (9 * UInt64(level)) }
  /// First page of the entry that maps `page`, of the entry after it, and behind the table that has it.
  func first(of page: PageNumber) -> PageNumber { page / span * span }
  func next(after page: PageNumber) -> PageNumber { (page / span + 1) * span }
  func end(of page: PageNumber) -> PageNumber { (page / (span * 512) + 1) * span * 512 }
}

/// Edits of page tables by the machine's own software. Clients' tables are never edited here.
extension Machine {
  /// The entry that maps or would map a page: goes down while there are tables.
  /// - Returns: the position, and whether the entry there is a leaf or absent at the level where the way ended.
  @inline(__always)
  func locate(_ root: FrameNumber, _ page: PageNumber) -> (position: EntryPosition, entry: PageTableEntry) {
    var level = walker.format.levelCount - 1
    var table = root
    while true {
      let index = walker.format.index(page, level: level)
      let entry = PageTableEntry(bits: memory.load(table, index))
      if level == 0 || !entry.isTable { return (EntryPosition(table: table, index: index, level: level), entry) }
      table = entry.frame
      level -= 1
    }
  }

  /// The table of `level` on the way to a page, with the missing ones above it made.
  /// - Returns: nil when no frame is free; tables that were made on the way stay, empty and linked.
  mutating func makeTables(_ root: FrameNumber, _ page: PageNumber, level target: UInt8) -> FrameNumber? {
    var level = walker.format.levelCount - 1
    var table = root
    while level > target {
      let index = walker.format.index(page, level: level)
      let entry = PageTableEntry(bits: memory.load(table, index))
      if entry.bits == 0 {
        guard let made = memory.allocate(.table) else { return nil }
        memory.store(table, index, PageTableEntry.table(made).bits)
        table = made
      } else {
        precondition(entry.isTable, "areas of one leaf level do not share a table with another's leaf")
        table = entry.frame
      }
      level -= 1
    }
    return table
  }

  /// Unlinks the tables below `table` that lie in the range and that `isUnused` allows, children first.
  mutating func unlinkTables(
    _ table: FrameNumber, level: UInt8, base: PageNumber, _ range: PageRange, _ found: inout [FrameNumber],
    isUnused: (inout Machine, PageRange, FrameNumber) -> Bool
  ) {
    guard level > 0 else { return }
    let span = UInt64(1) << (9 * UInt64(level))
    let first = base >= range.first ? 0 : Int((range.first - base) / span)
    for index in first..<Page.wordCount {
      let start = base + UInt64(index) * span
      if start >= range.end { break }
      let entry = PageTableEntry(bits: memory.load(table, index))
      guard entry.isTable else { continue }
      let child = entry.frame
      unlinkTables(child, level: level - 1, base: start, range, &found, isUnused: isUnused)
      if isUnused(&self, PageRange(first: start, count: span), child) {
        memory.store(table, index, 0)
        found.append(child)
      }
    }
  }

  @inline(__always)
  func isEmpty(_ table: FrameNumber) -> Bool { (0..<Page.wordCount).allSatisfy { memory.load(table, $0) == 0 } }

  /// Frees a whole table with all that it maps: for a domain that is destroyed, or a child of a fork that failed. The
  /// kernel's half is everybody's, and stays.
  mutating func freeTree(_ table: FrameNumber, _ stamp: OperationStamp, level: UInt8? = nil) {
    let own = level == nil ? 0..<KernelHalf.rootEntries.lowerBound : 0..<Page.wordCount
    let level = level ?? walker.format.levelCount - 1
    for index in own {
      let entry = PageTableEntry(bits: memory.load(table, index))
      if entry.bits == 0 { continue }
      if level > 0 && entry.isTable {
        freeTree(entry.frame, stamp, level: level - 1)
      } else if entry.isSwapped {
        swap.release(entry.slot)
      } else {
        memory.release(entry.leafFrame(level: level), by: stamp)
      }
    }
    memory.release(table, by: stamp)
  }
}
