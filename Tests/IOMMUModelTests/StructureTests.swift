// SPDX-License-Identifier: Apache-2.0
// Goal: each fast structure does what its definition says. Method: a slow, obvious model beside it, and seeded random
// operations on both; the seed is in every message.
@testable import IOMMUModel
import Testing

@Suite struct StructureTests {
  static let seeds: [UInt64] = [1, 2, 3, 4]

  @Test(arguments: seeds) func `PageMap is a sorted list of keys with values`(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var fast = PageMap<UInt64>()
    var slow: [(key: PageKey, value: UInt64)] = []
    for step in 0..<6000 {
      let key = PageKey(owner: UInt32(random.next(below: 3)), page: random.next(below: step < 3000 ? 400 : 60))
      let at = slow.firstIndex { $0.key == key }
      switch random.next(below: 10) {
      case 0..<5:
        let value = random.next()
        #expect(fast[slot: fast.set(key, value)] == value, "seed \(seed)")
        if let at { slow[at].value = value } else { slow.append((key, value)) }
      case 5..<9:
        fast.remove(key)
        if let at { slow.remove(at: at) }
      default:
        if step % 97 == 0 {
          fast.keep { key, _ in key.page % 3 != 0 }
          slow.removeAll { $0.key.page % 3 == 0 }
        }
      }
      #expect(fast[key] == slow.first { $0.key == key }?.value, "seed \(seed)")
      #expect(fast.count == slow.count, "seed \(seed)")
      guard step % 100 == 0 else { continue }
      slow.sort { ($0.key.owner, $0.key.page) < ($1.key.owner, $1.key.page) }
      let all = fast.sorted
      #expect(all.map(\.key) == slow.map(\.key) && all.map(\.value) == slow.map(\.value), "seed \(seed)")
    }
  }

  @Test(arguments: seeds) func `PageMap changes the values of guessed slots up to the first wrong guess`(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    for _ in 0..<300 {
      var map = PageMap<UInt64>()
      let keys = (0..<random.next(below: 20)).map { PageKey(owner: UInt32($0 % 3), page: random.next(below: 40)) }
      for key in keys { map.set(key, 0) }
      // Some slots are another's, vacant, or beyond the map.
      let guesses = (0..<6).map { _ -> (slot: Int, key: PageKey) in
        let key = keys.randomElement(using: &random) ?? PageKey(owner: 0, page: 0)
        let slot = random.next(below: 4) > 0 ? map.find(key) : nil
        return (slot ?? Int(random.next(below: 40)), key)
      }
      var expected = map
      let right = guesses.prefix { map.find($0.key) == $0.slot }
      for guess in right { expected[slot: guess.slot] += 1 }
      let changed = map.change(guesses.count, at: { guesses[$0] }) { _, value in
        value += 1
        return true
      }
      #expect(changed == right.count, "seed \(seed)")
      #expect(map.sorted.map(\.value) == expected.sorted.map(\.value), "seed \(seed)")
    }
  }

  @Test(arguments: seeds) func `BoundedCache answers what was put in last or nothing, and keeps what fits`(seed: UInt64)
  {
    var random = SeededGenerator(seed: seed)
    var fast = BoundedCache<UInt64>(entryCount: 16)
    var slow: [(key: BoundedCache<UInt64>.Key, value: UInt64)] = []
    for _ in 0..<4000 {
      let key = BoundedCache<UInt64>.Key(owner: random.next(below: 2), page: random.next(below: 40))
      switch random.next(below: 12) {
      case 0..<7:
        let value = random.next()
        fast.insert(key, value)
        slow.removeAll { $0.key == key }
        slow.append((key, value))
        #expect(fast.find(key) == value, "seed \(seed): the newest is always there")
      case 7..<9:
        fast.remove(key)
        slow.removeAll { $0.key == key }
      case 9:
        fast.remove { $0.page % 5 == key.page % 5 }
        slow.removeAll { $0.key.page % 5 == key.page % 5 }
      default: break
      }
      if let found = fast.find(key) { #expect(found == slow.first { $0.key == key }?.value, "seed \(seed)") }
      let held = fast.slots.compactMap { fast.entry(at: $0) }
      #expect(held.count <= 16, "seed \(seed)")
      for entry in held { #expect(slow.contains { $0.key == entry.0 && $0.value == entry.1 }, "seed \(seed)") }
    }
    var roomy = BoundedCache<UInt64>(entryCount: 4)
    for page in UInt64(0)..<4 { roomy.insert(.init(owner: 0, page: page), page) }
    #expect((UInt64(0)..<4).allSatisfy { roomy.find(.init(owner: 0, page: $0)) == $0 }, "one set holds four")
    roomy.insert(.init(owner: 0, page: 9), 9)
    #expect(
      roomy.find(.init(owner: 0, page: 0)) == nil && roomy.find(.init(owner: 0, page: 1)) == 1, "replaced in turn")
  }

  @Test(arguments: seeds) func `Areas say of each page what a dictionary of pages says`(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var fast = Areas()
    var slow: [PageNumber: Rights] = [:]
    for step in 0..<1500 {
      let range = PageRange(first: random.next(below: 60), count: 1 + random.next(below: 12))
      let pages = range.first..<range.end
      let rights = Rights(rawValue: UInt8(random.next(below: 4)))
      #expect(fast.overlaps(range) == pages.contains { slow[$0] != nil }, "seed \(seed)")
      #expect(fast.covers(range) == pages.allSatisfy { slow[$0] != nil }, "seed \(seed)")
      switch random.next(below: 3) {
      case 0 where !fast.overlaps(range):
        fast.insert(Area(range: range, rights: rights, level: 0, sinceTurn: 0, writableSinceTurn: 0))
        for page in pages { slow[page] = rights }
      case 1:
        fast.remove(range)
        for page in pages { slow[page] = nil }
      case 2:
        fast.protect(range, rights, turn: UInt64(step))
        for page in pages where slow[page] != nil { slow[page] = rights }
      default: break
      }
      for page in UInt64(0)..<75 { #expect(fast.find(page)?.rights == slow[page], "seed \(seed) page \(page)") }
      for (a, b) in zip(fast.list, fast.list.dropFirst()) { #expect(a.range.end <= b.range.first, "seed \(seed)") }
    }
  }

  @Test(arguments: seeds) func `PhysicalMemory gives each frame to one holder, zeroed, and counts the free ones`(
    seed: UInt64
  ) {
    var random = SeededGenerator(seed: seed)
    var fast = PhysicalMemory(frameCount: 64, recycleOrder: RecycleOrder.allCases[Int(seed % 3)], seed: seed)
    var held: [FrameNumber: (references: Int, word: UInt64)] = [:]
    var lives: [FrameNumber: UInt32] = [:]
    for _ in 0..<5000 {
      switch random.next(below: 8) {
      case 0..<3:
        let frame = fast.allocate(.data)
        #expect((frame == nil) == (held.count == 63), "seed \(seed): frame 0 is never given out")
        guard let frame else { continue }
        #expect(frame != 0 && frame < 64 && held[frame] == nil, "seed \(seed)")
        #expect((0..<512).allSatisfy { fast.load(frame, $0) == 0 }, "seed \(seed)")
        if let life = lives[frame] { #expect(fast.generation(frame) == life + 1, "seed \(seed)") }
        lives[frame] = fast.generation(frame)
        held[frame] = (1, 0)
      case 3..<6:
        guard
          let (frame, state) = held.sorted(by: { $0.key < $1.key }).dropFirst(
            Int(random.next(below: UInt64(held.count + 1)))
          ).first
        else { continue }
        #expect(fast.load(frame, 7) == state.word, "seed \(seed)")
        let freed = fast.release(frame, by: .none)
        #expect(freed == (state.references == 1), "seed \(seed)")
        held[frame] = freed ? nil : (state.references - 1, state.word)
      case 6:
        guard let frame = held.keys.sorted().first else { continue }
        fast.retain(frame)
        held[frame]!.references += 1
      default:
        guard let frame = held.keys.sorted().last else { continue }
        let value = random.next()
        fast.store(frame, 7, value)
        held[frame]!.word = value
      }
      #expect(fast.freeCount == 63 - held.count, "seed \(seed)")
    }
    #expect(fast.corruptedFrames == 0, "seed \(seed)")
  }

  // MARK: Grants

  struct SlowGrant {
    var pasid: PASID
    var page: PageNumber
    var grant: Grant
  }

  @Test(arguments: seeds) func `GrantTable finds what a list of all grants finds`(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    var fast = GrantTable()
    var slow: [SlowGrant] = []
    var order: Order = 0
    for _ in 0..<2500 {
      let pasid = PASID(random.next(below: 2))
      let page = random.next(below: 24)
      let frame = FrameNumber(1 + random.next(below: 6))
      switch random.next(below: 10) {
      case 0..<4:
        order += 1
        let grant = Grant(
          frame: frame, generation: 1, level: 0, rights: random.next(below: 2) == 0 ? .read : .readWrite, via: .walk,
          throughFreedTable: false, order: order, at: 0)
        fast.issue(grant, pasid: pasid, page: page)
        // One that renews the newest of its page takes its place.
        if let last = slow.lastIndex(where: { $0.pasid == pasid && $0.page == page }),
          slow[last].grant.frame == frame, grant.rights.isSuperset(of: slow[last].grant.rights)
        {
          slow.remove(at: last)
        }
        slow.append(SlowGrant(pasid: pasid, page: page, grant: grant))
        let chain = slow.indices.filter { slow[$0].pasid == pasid && slow[$0].page == page }
        if chain.count > GrantTable.historyLimit + 1 { slow.remove(at: chain[0]) }
      case 4:
        order += 1
        let range = PageRange(first: page, count: 1 + random.next(below: 30))
        let before = order - random.next(below: 20) % order
        let live = slow.contains { $0.pasid == pasid && range.contains($0.page) && !$0.grant.retired }
        #expect(fast.hasLive(pasid, range) == live, "seed \(seed)")
        fast.retire(pasid, range, before: before)
        for index in slow.indices
        where slow[index].pasid == pasid && range.contains(slow[index].page) && slow[index].grant.order < before {
          slow[index].grant.retired = true
        }
      case 5 where random.next(below: 20) == 0:
        fast.trim()
        let all = slow
        slow.removeAll { entry in
          all.last { $0.pasid == entry.pasid && $0.page == entry.page }!.grant.retired
        }
      default:
        let right: Rights = random.next(below: 2) == 0 ? .read : .write
        let mine = slow.filter { $0.pasid == pasid && $0.page == page && $0.grant.frame == frame }.reversed()
        let best =
          mine.first { !$0.grant.retired && $0.grant.rights.isSuperset(of: right) }
          ?? mine.first { $0.grant.rights.isSuperset(of: right) } ?? mine.first
        let found = fast.claimed(pasid, page, frame, right)
        #expect(found?.1.order == best?.grant.order, "seed \(seed)")
        #expect(found?.1.retired == best?.grant.retired, "seed \(seed)")
        let any = slow.filter { $0.grant.frame == frame && $0.grant.rights.isSuperset(of: right) }
          .max { ($0.grant.retired ? 0 : 1, $0.grant.order) < ($1.grant.retired ? 0 : 1, $1.grant.order) }
        #expect(fast.any(frame, right)?.grant.order == any?.grant.order, "seed \(seed)")
      }
    }
  }
}
