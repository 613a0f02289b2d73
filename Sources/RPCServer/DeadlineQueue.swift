// SPDX-License-Identifier: Apache-2.0

/// Deadlines of calls, earliest first: a binary heap whose entries may outlive their calls and are then dropped.
struct DeadlineQueue {
  struct Entry {
    var at: UInt64
    var call: CallID
  }

  private var heap: [Entry] = []
  /// Live calls that have a deadline; bounds the heap.
  var liveCount = 0

  var earliest: UInt64? { heap.first?.at }

  /// Adds a deadline. `isLive` tells which entries still matter when stale ones outweigh them.
  mutating func insert(_ entry: Entry, isLive: (CallID) -> Bool) {
    if heap.count > 2 * liveCount + 1024 { heap = heap.filter { isLive($0.call) }.sorted { $0.at < $1.at } }
    heap.append(entry)
    liveCount += 1
    var child = heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      if heap[parent].at <= heap[child].at { break }
      heap.swapAt(parent, child)
      child = parent
    }
  }

  /// The earliest entry that is due at `now`.
  mutating func popDue(_ now: UInt64) -> CallID? {
    guard let first = heap.first, first.at <= now else { return nil }
    let last = heap.removeLast()
    if !heap.isEmpty {
      heap[0] = last
      siftDown()
    }
    return first.call
  }

  private mutating func siftDown() {
    var parent = 0
    while true {
      var least = parent
      for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child].at < heap[least].at {
        least = child
      }
      if least == parent { return }
      heap.swapAt(parent, least)
      parent = least
    }
  }
}
