// SPDX-License-Identifier: Apache-2.0
// Goal: the ATC never serves what was invalidated and never invents. Method: a list of live translations beside it,
// searched from end to end; random operations compare the two and print the seed.
import Testing

@testable import DeviceEndpoint

/// Every translation that was inserted and not invalidated; it never evicts.
struct ListOfTranslations {
  var live: [TranslationCache.Entry] = []

  mutating func insert(_ entry: TranslationCache.Entry) {
    live.removeAll { $0.pasid == entry.pasid && $0.firstPage == entry.firstPage && $0.sizeLog2 == entry.sizeLog2 }
    live.append(entry)
  }
  mutating func invalidate(pasid: UInt32, page: UInt64, sizeLog2: UInt8) {
    let range = PageBlock(page, sizeLog2: sizeLog2)
    live.removeAll { $0.pasid == pasid && PageBlock($0.firstPage, sizeLog2: $0.sizeLog2).overlaps(range) }
  }
  func lookup(pasid: UInt32, page: UInt64) -> [TranslationCache.Entry] {
    live.filter { $0.pasid == pasid && PageBlock($0.firstPage, sizeLog2: $0.sizeLog2).contains(page) }
  }
}

@Suite struct TranslationCacheTests {
  static func randomPage(_ generator: inout StreamGenerator) -> UInt64 {
    generator.next(below: 3) << 18 | generator.next(below: 3) << 9 | generator.next(below: 6)
  }

  /// Random operations; answers the first disagreement. `evicts`: the cache is smaller than the working set.
  static func firstDisagreement(seed: UInt64, entryCount: Int, evicts: Bool, broken: Bool = false) -> String? {
    var generator = StreamGenerator(seed: seed)
    var cache = TranslationCache(entryCount: entryCount, ways: evicts ? 4 : entryCount)
    var list = ListOfTranslations()
    for step in 0..<600 {
      let pasid = UInt32(1 + generator.next(below: 2))
      let page = randomPage(&generator)
      switch generator.next(below: 8) {
      case 0..<3:
        let size = TranslationCache.sizes[Int(generator.next(below: 3))]
        let first = PageBlock(page, sizeLog2: size).first
        let rights = ATSRights(rawValue: UInt8(1 + generator.next(below: 3)))
        let entry = TranslationCache.Entry(
          pasid: pasid, firstPage: first, physicalAddress: UInt64(step) << 32, sizeLog2: size, rights: rights)
        cache.insert(pasid: pasid, page: page, physicalAddress: entry.physicalAddress, sizeLog2: size, rights: rights)
        list.insert(entry)
        if !(cache.lookup(pasid: pasid, page: page).map { found in list.lookup(pasid: pasid, page: page).contains(found)
        } ?? false) {
          return "step \(step): not found right after it was inserted"
        }
      case 3:
        let sizes: [UInt8] = [12, 13, 15, 21, 24, 30, 39, 48, 64]
        let size = sizes[Int(generator.next(below: UInt64(sizes.count)))]
        if !broken || size != 15 { cache.invalidate(pasid: pasid, page: page, sizeLog2: size) }
        list.invalidate(pasid: pasid, page: page, sizeLog2: size)
      default:
        let expected = list.lookup(pasid: pasid, page: page)
        if let found = cache.lookup(pasid: pasid, page: page) {
          if !expected.contains(found) { return "step \(step): served \(found), live are \(expected)" }
        } else if !evicts && !expected.isEmpty {
          return "step \(step): lost \(expected)"
        }
      }
      if cache.count > entryCount { return "step \(step): \(cache.count) entries in a cache of \(entryCount)" }
      if cache.count != cache.entries.filter({ $0.sizeLog2 != 0 }).count { return "step \(step): wrong count" }
    }
    return nil
  }

  @Test func `A roomy cache equals the list of live translations`() {
    for seed in UInt64(1)...60 {
      #expect(Self.firstDisagreement(seed: seed, entryCount: 512, evicts: false) == nil, "seed \(seed)")
    }
  }

  @Test func `A small cache may forget, and never serves what was invalidated`() {
    for seed in UInt64(1)...200 {
      #expect(Self.firstDisagreement(seed: seed, entryCount: 16, evicts: true) == nil, "seed \(seed)")
    }
  }

  @Test func `The comparison fails when invalidations are lost`() {
    #expect(
      (UInt64(1)...20).contains {
        Self.firstDisagreement(seed: $0, entryCount: 512, evicts: false, broken: true) != nil
      })
  }
}
