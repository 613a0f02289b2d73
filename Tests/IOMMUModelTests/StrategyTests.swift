// SPDX-License-Identifier: Apache-2.0
// Goal: what a strategy says beside its sites: how far I reaches, in how many commands, and whether a right that is
// gained is told. Method: one machine, and the invalidations that it pushes.
@testable import IOMMUModel
import Testing

@Suite struct StrategyTests {
  @Test func `names are unique, and each strategy comes out of a log as it went in`() throws {
    #expect(Set(Strategy.named.map(\.name)).count == Strategy.named.count)
    for (name, strategy) in Strategy.named {
      var encoder = ByteEncoder()
      strategy.encode(to: &encoder)
      var decoder = ByteDecoder(encoder.bytes)
      #expect(try Strategy(from: &decoder) == strategy && decoder.isAtEnd, "\(name)")
      #expect(Strategy.all.first { $0.name == name }!.rule.count < 130, "\(name) fits in a line")
      let hooks = Strategy.hooks.reduce(into: Strategy.Sites()) { $0.formUnion($1.site) }
      #expect(hooks.isSuperset(of: strategy.sites), "\(name) has no hook that the list does not explain")
    }
  }

  @Test func `a deferral that no build knows is a malformed log`() {
    var decoder = ByteDecoder([2, 3 << 5])
    #expect(throws: LogError.self) { _ = try Strategy(from: &decoder) }
  }

  // MARK: Reach

  private func pushed(_ strategy: Strategy, _ range: PageRange) throws -> Bench {
    var (bench, space, device) = try Bench.shared(strategy) { $0.kernel = .now }
    for page in range.first..<range.end { try bench.grant(device, page) }
    let before = bench.counters.invalidations
    try bench.start(.mprotect(space, range, .read))
    bench.settle()
    #expect(bench.counters.invalidations == before + 1)
    return bench
  }

  @Test func `a device is told the smallest aligned block of a power of two that covers the range`() throws {
    let bench = try pushed(.secondaryTLB, PageRange(first: 0x103, count: 3))
    #expect(bench.owed(bench.machine.devices.ids[0]).map(\.range) == [PageRange(first: 0x100, count: 8)])
  }

  @Test func `AMD of 2015 takes one page, or everything`() throws {
    for (count, expected) in [(UInt64(1), PageRange(first: 0x104, count: 1)), (2, PageRange.all)] {
      let bench = try pushed(Strategy(sites: .flushSite, reach: .pageOrAll), PageRange(first: 0x104, count: count))
      #expect(bench.owed(bench.machine.devices.ids[0]).map(\.range) == [expected])
    }
  }

  @Test func `SMMU takes a command for each page up to 511, and one for all from 512 on`() {
    let smmu = Strategy.Reach.pagesUpTo512
    #expect(smmu.commandCount(PageRange(first: 3, count: 511)) == 511)
    #expect(smmu.takes(PageRange(first: 3, count: 511)) == PageRange(first: 3, count: 511))
    #expect(smmu.commandCount(PageRange(first: 3, count: 512)) == 1)
    #expect(smmu.takes(PageRange(first: 3, count: 512)) == .all)
    #expect(Strategy.Reach.pages.commandCount(PageRange(first: 3, count: 100_000)) == 100_000)
    #expect(Strategy.Reach.pages.commandCount(.all) == 1)
    #expect(Strategy.Reach.range.commandCount(PageRange(first: 3, count: 100_000)) == 1)
  }

  @Test func `I takes as long as its commands: a large munmap without a bound is the soft lockup`() throws {
    func nanoseconds(_ strategy: Strategy, _ count: UInt64) throws -> Nanoseconds {
      var (bench, space, device) = try Bench.shared(strategy) {
        $0.kernel = .now
        $0.frameCount = 2048
        $0.gatherBatch = 4096
        $0.costs.iotlbFlush = .constant(1000)
      }
      try bench.map(space, 0x1000, count)
      try bench.start(
        .cpuAccess(space, CPUAccess(cpu: 0, kind: .touch, address: 0x1000 << 12, pageCount: count)))
      bench.settle()
      let operation = try bench.start(.munmap(space, PageRange(first: 0x1000, count: count)))
      try bench.finish([device])
      return bench.outcome(operation)!.nanoseconds
    }
    #expect(try nanoseconds(.secondaryTLB, 600) == 1000)
    #expect(try nanoseconds(.secondaryTLBSMMU, 500) == 500_000)
    #expect(try nanoseconds(.secondaryTLBSMMU, 600) == 1000)
    #expect(try nanoseconds(.secondaryTLBPerPage, 600) == 600_000)
  }

  @Test func `two bindings of one PASID that reach differently: the IOMMU's entries go as far as the farther one`()
    throws
  {
    var (bench, space, first) = try Bench.shared(Strategy(sites: .flushSite)) { $0.kernel = .now }
    let second = try bench.device(rid: 9)
    try bench.apply(.attach(second, 5, .addressSpace(space, Strategy(sites: .flushSite, reach: .pageOrAll))))
    for page in UInt64(0x100)..<0x104 { try bench.grant(first, page) }
    try bench.start(.mprotect(space, PageRange(first: 0x100, count: 2), .read))
    bench.settle()
    #expect(bench.owed(first).map(\.range) == [PageRange(first: 0x100, count: 2)])
    #expect(bench.owed(second).map(\.range) == [.all])
    let walks = bench.counters.walks
    _ = try bench.translate(first, 5, 0x103)
    #expect(bench.counters.walks == walks + 1, "page 0x103 was outside the first one's range")
  }

  // MARK: Rights that are cached

  /// A page that the device may read, and whose area may be written to: the next write fault gives the entry the right.
  private func writeProtected(_ strategy: Strategy, cachesRights: Bool, retryLimit: UInt32 = 100) throws -> (
    Bench, DeviceID
  ) {
    var bench = Bench {
      $0.kernel = .now
      $0.cachesRights = cachesRights
    }
    let space = try bench.addressSpace()
    let device = try bench.device(retryLimit: retryLimit)
    try bench.map(space, 0x100, 1)
    try bench.store(space, 0x100, 1)
    for rights in [Rights.read, .readWrite] {
      try bench.start(.mprotect(space, PageRange(first: 0x100, count: 1), rights))
      bench.settle()
    }
    try bench.apply(.attach(device, 5, .addressSpace(space, strategy)))
    #expect(try bench.translate(device, 5, 0x100).rights == .read)
    return (bench, device)
  }

  @Test func `x86 walks again: an upgrade needs no flush, and none of the hooks is called`() throws {
    for strategy in [Strategy.secondaryTLB, .secondaryTLBWithoutUpgrade] {
      var (bench, device) = try writeProtected(strategy, cachesRights: false)
      #expect(try bench.request(device, 5, 0x100) == .success)
      #expect(try bench.translate(device, 5, 0x100).rights == .readWrite)
      #expect(bench.counters.invalidations == 0 && !bench.letters.contains(.upgrade))
    }
  }

  @Test func `where rights are cached, the flush after an upgrade comes before the answer`() throws {
    var (bench, device) = try writeProtected(.secondaryTLB, cachesRights: true)
    try bench.send(device, 0x100, index: 3)
    bench.settle()
    #expect(bench.responses(device).isEmpty && bench.owed(device).count == 1 && bench.letters.suffix(1) == [.upgrade])
    // Another request for the page waits for the page-table lock, and is not told Success before the flush.
    try bench.send(device, 0x100, index: 4)
    bench.settle()
    #expect(bench.responses(device).isEmpty)
    try bench.completeAll(device)
    #expect(bench.responses(device).map(\.code) == [.success, .success])
    #expect(try bench.translate(device, 5, 0x100).rights == .readWrite)
    #expect(bench.kinds.isEmpty && bench.counters.needlessFaults == 0)
  }

  @Test func `where rights are cached and no upgrade is told, write faults repeat until somebody gives up`() throws {
    for (retryLimit, verdict) in [(UInt32(3), VerdictKind.gaveUp), (100, .livelock)] {
      for strategy in [Strategy.secondaryTLBWithoutUpgrade, .invalidateRange] {
        var (bench, device) = try writeProtected(strategy, cachesRights: true, retryLimit: retryLimit)
        for _ in 0...retryLimit {
          #expect(try bench.request(device, 5, 0x100) == .success)
          #expect(try bench.translate(device, 5, 0x100).rights == .read, "the IOTLB's entry of before")
        }
        if retryLimit == 3 { try bench.apply(.giveUp(device, 5, 0x100, .readWrite)) }
        #expect(bench.kinds == [verdict])
        #expect(bench.counters.needlessFaults > 0)
      }
    }
  }
}
