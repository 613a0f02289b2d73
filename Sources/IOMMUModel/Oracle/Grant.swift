// SPDX-License-Identifier: Apache-2.0

/// A translation that a device was given (design §5).
struct Grant {
  var frame: FrameNumber
  /// The life of the frame that was meant.
  var generation: UInt32
  /// 0 → 4 KiB, 1 → 2 MiB, 2 → 1 GiB.
  var level: UInt8
  var rights: Rights
  var via: Verdict.Via
  /// Obtained through a page-table frame that had been freed; the mark passes through IOTLB and ATC.
  var throughFreedTable: Bool
  /// The device has completed an invalidation that covers it and was pushed after it.
  var retired = false
  var order: Order
  var at: Nanoseconds
  /// The grant before this one for the same page, in `GrantTable.older`; −1: none.
  var older: Int32 = -1

  /// Whether another grant of its page says nothing but more, or the same anew.
  @inline(__always)
  func isRenewed(by frame: FrameNumber, _ generation: UInt32, _ rights: Rights, throughFreedTable: Bool) -> Bool {
    self.frame == frame && self.generation == generation && rights.isSuperset(of: self.rights)
      && self.throughFreedTable == throughFreedTable
  }

  /// What a renewal changes; the grants before it stay behind it.
  @inline(__always)
  mutating func renew(_ answer: IOMMUAnswer, order: Order, at time: Nanoseconds) {
    rights = answer.rights
    via = answer.via
    retired = false
    self.order = order
    self.at = time
  }

  func covers(_ frame: FrameNumber) -> Bool {
    frame >> (9 * FrameNumber(level)) == self.frame >> (9 * FrameNumber(level))
  }
}

/// The grants of one device by PASID and page, newest first, retired ones included: a device that uses one of those
/// is at fault itself.
struct GrantTable {
  private var newest = PageMap<Grant>()
  private var older: [Grant] = []
  private var free: [Int32] = []
  /// Grants of large pages; lookups ask for them only when there are some.
  private var largeCount = 0
  /// Grants kept for one page behind the newest.
  static let historyLimit = 8
  /// Pages from which on retired grants are forgotten; grows with what is not retired.
  private var trimCount = 8192

  @inline(__always)
  private static func key(_ pasid: PASID, _ page: PageNumber, _ level: UInt8) -> PageKey {
    PageKey(owner: pasid | UInt32(level) &<< 20, page: page &>> (9 &* UInt64(level)))
  }

  /// Records a translation if it only renews the newest of its page: it takes its place.
  /// - Returns: whether it did; otherwise it is one to `issue`.
  @inline(__always)
  mutating func renew(
    _ answer: IOMMUAnswer, order: Order, at time: Nanoseconds, pasid: PASID, page: PageNumber
  ) -> Bool {
    guard let slot = newest.find(Self.key(pasid, page, answer.level)),
      newest[slot: slot].isRenewed(
        by: answer.frame, answer.generation, answer.rights, throughFreedTable: answer.throughFreedTable)
    else { return false }
    newest[slot: slot].renew(answer, order: order, at: time)
    return true
  }

  /// Records hits of the IOTLB on 4 KiB pages that renew their pages' newest grants, each where it says that lies.
  /// - Returns: how many; the one behind them is to be looked for, or is no renewal.
  @inline(__always)
  mutating func renew(
    _ hits: Span<IOMMUCaches.Translation>, of requests: Span<TranslationRequest>, after order: Order,
    at time: Nanoseconds
  ) -> Int {
    newest.change(hits.count) { index in
      (Int(hits[index].grantSlot), Self.key(requests[index].pasid, requests[index].page, 0))
    } _: { index, grant in
      let answer = hits[index].answer
      guard
        grant.isRenewed(
          by: answer.frame, answer.generation, answer.rights, throughFreedTable: answer.throughFreedTable)
      else { return false }
      grant.renew(answer, order: order &+ UInt64(index) &+ 1, at: time)
      return true
    }
  }

  /// Where the newest grant of a 4 KiB page lies until the next is issued or forgotten.
  func slot(_ pasid: PASID, _ page: PageNumber) -> Int? { newest.find(Self.key(pasid, page, 0)) }

  /// Records a translation. One that only renews the newest takes its place.
  mutating func issue(_ grant: Grant, pasid: PASID, page: PageNumber) {
    let key = Self.key(pasid, page, grant.level)
    guard let slot = newest.find(key) else {
      if newest.count >= trimCount { trim() }
      newest.set(key, grant)
      if grant.level > 0 { largeCount += 1 }
      return
    }
    let last = newest[slot: slot]
    var grant = grant
    grant.older =
      last.isRenewed(by: grant.frame, grant.generation, grant.rights, throughFreedTable: grant.throughFreedTable)
      ? last.older : keep(last)
    newest[slot: slot] = grant
  }

  private mutating func keep(_ grant: Grant) -> Int32 {
    let index: Int32
    if let reused = free.popLast() {
      older[Int(reused)] = grant
      index = reused
    } else {
      index = Int32(older.count)
      older.append(grant)
    }
    var depth = 1
    var last = index
    while older[Int(last)].older >= 0 {
      let next = older[Int(last)].older
      if depth == Self.historyLimit {
        older[Int(last)].older = -1
        drop(next)
        break
      }
      last = next
      depth += 1
    }
    return index
  }

  private mutating func drop(_ first: Int32) {
    var index = first
    while index >= 0 {
      free.append(index)
      index = older[Int(index)].older
    }
  }

  /// The grant under which a translated access claims to run: the newest for this page that covers the frame, one
  /// that is not retired and has the right before one that is or has not.
  func claimed(_ pasid: PASID, _ page: PageNumber, _ frame: FrameNumber, _ right: Rights) -> (PageNumber, Grant)? {
    var second: (PageNumber, Grant)?
    for level in 0..<(largeCount > 0 ? UInt8(3) : 1) {
      guard let slot = newest.find(Self.key(pasid, page, level)) else { continue }
      let first = page & ~(1 << (9 * UInt64(level)) - 1)
      var grant = newest[slot: slot]
      while true {
        if grant.covers(frame) {
          if !grant.retired && grant.rights.isSuperset(of: right) { return (first, grant) }
          if second == nil || grant.rights.isSuperset(of: right) && !second!.1.rights.isSuperset(of: right) {
            second = (first, grant)
          }
        }
        if grant.older < 0 { break }
        grant = older[Int(grant.older)]
      }
    }
    return second
  }

  /// Any grant of this frame and right, whatever the device claims; linear, for accesses that claim wrongly.
  func any(_ frame: FrameNumber, _ right: Rights) -> (pasid: PASID, page: PageNumber, grant: Grant)? {
    var best: (pasid: PASID, page: PageNumber, grant: Grant)?
    for slot in 0..<newest.capacity {
      guard let (key, head) = newest.entry(at: slot) else { continue }
      var grant = head
      while true {
        if grant.covers(frame) && grant.rights.isSuperset(of: right) {
          if best.map({ Self.isBetter(grant, than: $0.grant) }) ?? true {
            best = (key.owner & Page.maximumPASID, key.page << (9 * UInt64(grant.level)), grant)
          }
        }
        if grant.older < 0 { break }
        grant = older[Int(grant.older)]
      }
    }
    return best
  }

  private static func isBetter(_ a: Grant, than b: Grant) -> Bool {
    a.retired == b.retired ? a.order > b.order : b.retired
  }

  /// Whether a grant in the range is issued and not yet completed away: a live hit of an invalidation.
  func hasLive(_ pasid: PASID, _ range: PageRange) -> Bool {
    var found = false
    visit(pasid, range) { slot in
      var grant = newest[slot: slot]
      while grant.retired && grant.older >= 0 { grant = older[Int(grant.older)] }
      if !grant.retired { found = true }
      return !found
    }
    return found
  }

  /// A completion retires the grants in its range that were issued before its invalidation.
  mutating func retire(_ pasid: PASID, _ range: PageRange, before order: Order) {
    var slots: [Int] = []
    visit(pasid, range) { slot in
      slots.append(slot)
      return true
    }
    for slot in slots {
      if newest[slot: slot].order < order { newest[slot: slot].retired = true }
      var index = newest[slot: slot].older
      while index >= 0 {
        if older[Int(index)].order < order { older[Int(index)].retired = true }
        index = older[Int(index)].older
      }
    }
  }

  /// Calls for every entry that touches the range, by page or by scan, whichever is shorter, until it answers false.
  @inline(__always)
  private func visit(_ pasid: PASID, _ range: PageRange, _ body: (Int) -> Bool) {
    if range.count < UInt64(newest.capacity / 2) {
      for page in range.first..<range.end {
        if let slot = newest.find(Self.key(pasid, page, 0)), !body(slot) { return }
      }
      guard largeCount > 0 else { return }
      for level in UInt8(1)...2 {
        let shift = 9 * UInt64(level)
        for block in range.first >> shift...(range.end - 1) >> shift {
          if let slot = newest.find(Self.key(pasid, block << shift, level)), !body(slot) { return }
        }
      }
    } else {
      for slot in 0..<newest.capacity {
        guard let (key, grant) = newest.entry(at: slot), key.owner & Page.maximumPASID == pasid else { continue }
        let shift = 9 * UInt64(grant.level)
        let block = PageRange(first: key.page << shift, count: 1 << shift)
        if block.overlaps(range), !body(slot) { return }
      }
    }
  }

  /// Forgets pages whose grants are all retired, so that a device that goes through many pages stays small. Who uses one
  /// of those is said to have forged it.
  mutating func trim() {
    // A completion that covers the newest covers those behind it.
    newest.keep { _, grant in !grant.retired }
    trimCount = max(8192, 2 * newest.count)
    // The chains behind dropped entries are rebuilt, not leaked.
    let kept = newest
    let chains = older
    older = []
    free = []
    for slot in 0..<kept.capacity {
      guard let (key, head) = kept.entry(at: slot), let target = newest.find(key) else { continue }
      newest[slot: target].older = copyChain(head.older, from: chains)
    }
  }

  private mutating func copyChain(_ index: Int32, from chains: [Grant]) -> Int32 {
    guard index >= 0 else { return -1 }
    var grant = chains[Int(index)]
    grant.older = copyChain(grant.older, from: chains)
    older.append(grant)
    return Int32(older.count - 1)
  }

  /// Every grant, by page, newest first.
  var sorted: [(key: PageKey, grants: [Grant])] {
    newest.sorted.map { key, head in
      var grants = [head]
      var index = head.older
      while index >= 0 {
        grants.append(older[Int(index)])
        index = older[Int(index)].older
      }
      return (key, grants)
    }
  }
}
