// SPDX-License-Identifier: Apache-2.0
// Goal: every memory operation fires its letters in the 2014 order (Linux 3.19 to 4.12), and flushes where its
// strategy says. Method: one operation, all durations zero, devices that complete at once.
@testable import IOMMUModel
import Testing

@Suite struct OperationOrderTests {
  typealias Letter = OperationStep.Letter

  func letters(
    _ strategy: Strategy = .invalidateRange, stored: UInt64 = 4, batch: UInt32 = 8,
    prepare: (inout Bench, AddressSpaceID) throws -> Void = { _, _ in }, _ request: (AddressSpaceID) -> OperationRequest
  ) throws -> [Letter] {
    var (bench, space, device) = try Bench.shared(strategy) { $0.gatherBatch = batch }
    for page in 0..<stored { try bench.store(space, 0x100 + page, page) }
    try prepare(&bench, space)
    try bench.finish([device])
    let id = try bench.start(request(space))
    try bench.finish([device])
    #expect(bench.outcome(id)?.status == .success)
    return bench.letters(of: id)
  }

  @Test func `a small munmap: S P E unlink C I T F`() throws {
    let whole = try letters { .munmap($0, PageRange(first: 0x100, count: 16)) }
    #expect(
      whole == [
        .start, .entries, .end, .flushed, .tablesUnlinked, .cpuFlush, .flushSite, .flushed, .tablesFreed, .framesFreed,
      ])
    let part = try letters { .munmap($0, PageRange(first: 0x100, count: 4)) }
    #expect(part == [.start, .entries, .end, .flushed, .cpuFlush, .flushSite, .flushed, .framesFreed])
  }

  @Test func `a munmap above the gather batch runs C I F inside S to E, once for each full batch`() throws {
    let found = try letters(stored: 10, batch: 4) { .munmap($0, PageRange(first: 0x100, count: 16)) }
    let batch: [Letter] = [.entries, .cpuFlush, .flushSite, .flushed, .framesFreed]
    #expect(
      found == [.start] + batch + batch
        + [.entries, .end, .flushed, .tablesUnlinked, .cpuFlush, .flushSite, .flushed, .tablesFreed, .framesFreed])
  }

  @Test func `DONTNEED: S P E C I F, and C I F inside S to E for a full batch`() throws {
    let small = try letters { .dontNeed($0, PageRange(first: 0x100, count: 16)) }
    #expect(small == [.start, .entries, .end, .flushed, .cpuFlush, .flushSite, .flushed, .framesFreed])
    let exact = try letters(stored: 4, batch: 4) { .dontNeed($0, PageRange(first: 0x100, count: 16)) }
    #expect(exact == [.start, .entries, .cpuFlush, .flushSite, .flushed, .framesFreed, .end, .flushed])
    let none = try letters(stored: 0) { .dontNeed($0, PageRange(first: 0x100, count: 16)) }
    #expect(none == [.start, .end, .flushed])
  }

  @Test func `mprotect: S P E C, and no I but that of E`() throws {
    let found = try letters { .mprotect($0, PageRange(first: 0x100, count: 16), .read) }
    #expect(found == [.start, .entries, .end, .flushed, .cpuFlush])
    let relaxed = try letters { .mprotect($0, PageRange(first: 0x100, count: 16), .readWrite) }
    #expect(relaxed == [.start, .end, .flushed])
  }

  @Test func `fork: S P E for each area, and one C at the end`() throws {
    let found = try letters(prepare: { bench, space in
      try bench.map(space, 0x400, 4)
      try bench.store(space, 0x401, 1)
    }) { .fork($0) }
    #expect(found == [.start, .entries, .end, .flushed, .start, .entries, .end, .flushed, .cpuFlush])
  }

  @Test func `a COW break, by a CPU and by a device: S clear C I set E put-old`() throws {
    let expected: [Letter] = [
      .start, .entries, .cpuFlush, .flushSite, .flushed, .entries, .end, .flushed, .framesFreed,
    ]
    let byCPU = try letters(prepare: { bench, space in try bench.start(.fork(space)) }) {
      .cpuAccess($0, CPUAccess(cpu: 0, kind: .store, address: 0x100 << 12, value: 5))
    }
    #expect(byCPU == expected)

    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.store(space, 0x100, 1)
    try bench.start(.fork(space))
    try bench.finish([device])
    bench.seen.removeAll()
    try bench.send(device, 0x100, index: 1)
    try bench.finish([device])
    #expect(bench.letters == expected)
    #expect(bench.responses(device).map(\.code) == [.success])
  }

  @Test func `an exit: release with its flush, then P unlink C T F without S, E or I`() throws {
    let found = try letters { .exit($0) }
    #expect(found == [.release, .flushed, .entries, .tablesUnlinked, .cpuFlush, .tablesFreed, .framesFreed])
    let large = try letters(stored: 6, batch: 4) { .exit($0) }
    #expect(
      large == [
        .release, .flushed, .entries, .cpuFlush, .framesFreed, .entries, .tablesUnlinked, .cpuFlush, .tablesFreed,
        .framesFreed,
      ])
    let without = try letters(.none) { .exit($0) }
    #expect(without == [.release, .entries, .tablesUnlinked, .cpuFlush, .tablesFreed, .framesFreed])
  }

  @Test func `an unmap of a domain: P unlink I T F, and a detach: I, then the drain`() throws {
    var bench = Bench()
    let device = try bench.device()
    guard case .domain(let domain) = try bench.apply(.createDomain(.paging)) else { throw Surprise() }
    try bench.apply(.map(DomainMapping(domain: domain, range: PageRange(first: 0x10, count: 20), rights: .readWrite)))
    try bench.apply(.attach(device, 7, .domain(domain)))
    let unmap = try bench.start(.unmap(domain, PageRange(first: 0x10, count: 20)))
    bench.settle()
    #expect(bench.outcome(unmap) == nil, "it waits for the device")
    try bench.finish([device])
    #expect(bench.letters(of: unmap) == [.entries, .tablesUnlinked, .flushSite, .flushed, .tablesFreed, .framesFreed])
    let detach = try bench.start(.detach(device, 7))
    try bench.finish([device])
    #expect(bench.letters(of: detach) == [.flushSite, .flushed, .drain])
  }

  @Test(arguments: [
    (Strategy.flushAtStart, [Letter.start, .flushed, .entries, .end, .cpuFlush, .flushSite, .framesFreed]),
    (.flushAtEnd, [.start, .entries, .end, .flushed, .cpuFlush, .flushSite, .framesFreed]),
    (.emptyTable, [.start, .flushed, .entries, .end, .flushed, .cpuFlush, .flushSite, .framesFreed]),
    (.invalidateRange, [.start, .entries, .end, .flushed, .cpuFlush, .flushSite, .flushed, .framesFreed]),
    (.invalidateRangeWithoutATC, [.start, .entries, .end, .flushed, .cpuFlush, .flushSite, .flushed, .framesFreed]),
    (.none, [.start, .entries, .end, .cpuFlush, .flushSite, .framesFreed]),
  ])
  func `the same munmap under every strategy: only the flushes differ`(strategy: Strategy, expected: [Letter]) throws {
    #expect(try letters(strategy) { .munmap($0, PageRange(first: 0x100, count: 4)) } == expected)
  }

  @Test func `the hold lies between S and P, under every strategy alike, and only where there is an S`() throws {
    for (_, strategy) in Strategy.named {
      var (bench, space, device) = try Bench.shared(strategy) { $0.hold = 700 }
      try bench.store(space, 0x100, 1)
      let before = bench.machine.time
      let id = try bench.start(.munmap(space, PageRange(first: 0x100, count: 4)))
      while bench.outcome(id) == nil {
        try bench.completeAll(device)
        bench.turn()
      }
      #expect(bench.machine.time == before + 700)
      let letters = bench.letters(of: id).filter { $0 != .flushed }
      #expect(letters.prefix(3) == [.start, .hold, .entries])
    }
  }

  @Test func `invalidations go to the IOMMU's caches first, then to the device, and F waits for its completion`() throws
  {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.costs.iotlbFlush = .constant(1000) }
    let answer = try bench.grant(device, 0x100)
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    #expect(bench.owed(device).isEmpty, "the caches of the IOMMU are being flushed")
    #expect(try bench.translate(device, 5, 0x100).rights == [], "and give nothing out any more")
    bench.run(until: bench.machine.time + 1000)
    #expect(bench.owed(device).count == 1)
    #expect(bench.counters.liveHits == 1)
    let frame = FrameNumber(answer.physicalAddress >> 12)
    bench.run(until: bench.machine.time + 100_000)
    #expect(!bench.machine.memory.isFree(frame))
    try bench.finish([device])
    #expect(bench.machine.memory.isFree(frame))
  }
}
