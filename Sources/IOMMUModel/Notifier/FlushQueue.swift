// SPDX-License-Identifier: Apache-2.0

/// Flushes of an address space that wait: Linux's `iova_fq`, one queue for all bindings whose strategy defers I. When it
/// is full or its time has come, one operation of the machine's own (`OperationKind.flushQueue`) runs I for all of it.
struct FlushQueue {
  /// What one operation left to be flushed.
  struct Entry {
    let sequence: UInt64
    let operation: OperationID
    var range: PageRange
    /// Whether page tables, and whether data frames, stay until the flush is complete.
    var keepsTables: Bool
    var keepsFrames: Bool
    var tables: [FrameNumber] = []
    var frames: [FrameNumber] = []
    /// The references that the kept frames stand for: the address space has them still, through this entry.
    var dropped: [Dropped] = []
  }
  /// Oldest first.
  private(set) var entries: [Entry] = []
  /// The first of them, which the running flush covers.
  private(set) var inFlight = 0
  /// The running flush.
  var flush = OperationID.none
  /// Sequence of the pending timer's turn; 0: none.
  var timer: UInt64 = 0
  /// The time of what waits came while a flush was running: the next one follows at once.
  var isOverdue = false
  private(set) var lastSequence: UInt64 = 0
  /// Who waits for the end of a flush.
  var waiting: [OperationID] = []

  var isIdle: Bool { entries.isEmpty && flush == .none }
  /// Entries that no flush covers yet.
  var waitingCount: Int { entries.count - inFlight }
  /// Frames that would be free without the queue.
  var keptFrameCount: Int { entries.reduce(0) { $0 + $1.frames.count + $1.tables.count } }

  /// Takes a range; one operation's ranges share an entry as long as no flush covers it.
  /// - Returns: the entry's sequence.
  mutating func append(
    _ range: PageRange, of operation: OperationID, keepsTables: Bool, keepsFrames: Bool
  ) -> UInt64 {
    if waitingCount > 0, entries[entries.count - 1].operation == operation {
      let last = entries.count - 1
      let end = max(entries[last].range.end, range.end)
      entries[last].range.first = min(entries[last].range.first, range.first)
      entries[last].range.count = end - entries[last].range.first
      entries[last].keepsTables = entries[last].keepsTables || keepsTables
      entries[last].keepsFrames = entries[last].keepsFrames || keepsFrames
      return entries[last].sequence
    }
    lastSequence += 1
    entries.append(
      Entry(
        sequence: lastSequence, operation: operation, range: range, keepsTables: keepsTables, keepsFrames: keepsFrames))
    return lastSequence
  }

  /// Where the entry stands; nil: its flush is complete.
  func position(of sequence: UInt64) -> Int? { entries.lastIndex { $0.sequence == sequence } }

  mutating func keep(_ tables: [FrameNumber], at position: Int) { entries[position].tables += tables }
  mutating func keep(_ frames: [FrameNumber], for dropped: ArraySlice<Dropped>, at position: Int) {
    entries[position].frames += frames
    entries[position].dropped += dropped
  }

  /// A flush begins: it covers what is there now.
  mutating func begin() {
    inFlight = entries.count
    timer = 0
    isOverdue = false
  }

  /// The flush is over.
  mutating func end() -> ArraySlice<Entry> {
    let flushed = entries[..<inFlight]
    entries.removeFirst(inFlight)
    inFlight = 0
    flush = .none
    return flushed
  }

  /// Whether a device may still use what stood somewhere in the range, and is kept for it: no new page may be seen there.
  func keepsPages(in range: PageRange) -> Bool { entries.contains { $0.keepsFrames && $0.range.overlaps(range) } }

  /// Whether this life of a frame is still referenced through the queue.
  func references(_ page: PageNumber, _ level: UInt8, _ frame: FrameNumber, _ generation: UInt32) -> Bool {
    entries.contains { entry in
      entry.keepsFrames && entry.range.contains(page)
        && entry.dropped.contains {
          $0.page == page && $0.level == level && $0.frame == frame && $0.generation == generation
        }
    }
  }
}
