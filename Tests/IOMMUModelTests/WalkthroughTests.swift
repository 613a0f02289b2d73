// SPDX-License-Identifier: Apache-2.0
// Goal: the life of one page between a CPU, a device and the kernel, step by step. Method: a machine whose every
// duration is zero, so that order alone decides.
@testable import IOMMUModel
import Testing

@Suite struct WalkthroughTests {
  func shared(_ strategy: Strategy, _ change: (inout Settings) -> Void = { _ in }) throws -> (
    Bench, AddressSpaceID, DeviceID
  ) {
    var bench = Bench(change)
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, strategy)))
    try bench.map(space, 0x100, 16)
    return (bench, space, device)
  }

  @Test func `a page that is not there is requested, served, translated and written, and the CPU reads it back`() throws {
    var (bench, space, device) = try shared(.invalidateRange)
    #expect(try bench.translate(device, 5, 0x100).rights == [])
    #expect(try bench.request(device, 5, 0x100) == .success)
    let answer = try bench.translate(device, 5, 0x100)
    #expect(answer.rights == .readWrite)
    #expect(try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 42).status == .success)
    #expect(try bench.load(space, 0x100) == 42)
    #expect(bench.counters.neededFaults == 1)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `a munmap returns only when the device has completed its invalidation`() throws {
    var (bench, space, device) = try shared(.invalidateRange)
    _ = try bench.request(device, 5, 0x100)
    _ = try bench.translate(device, 5, 0x100)
    let munmap = try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
    bench.settle()
    #expect(bench.outcome(munmap) == nil)
    #expect(bench.owed(device).map(\.range) == [PageRange(first: 0x100, count: 16)])
    try bench.completeAll(device)
    #expect(bench.outcome(munmap)?.status == .success)
    #expect(try bench.translate(device, 5, 0x100).rights == [])
    #expect(try bench.request(device, 5, 0x100) == .invalidRequest)
  }

  @Test func `a device that does not complete is fenced at the time-out, before the munmap returns, and its DMA is refused`() throws {
    var (bench, space, device) = try shared(.invalidateRange)
    _ = try bench.request(device, 5, 0x100)
    let answer = try bench.translate(device, 5, 0x100)
    let munmap = try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
    bench.run(until: 2_000_000_000)
    #expect(bench.outcome(munmap)?.status == .success)
    let fence = bench.seen.firstIndex { if case .device(device, .fenced(.invalidationTimedOut)) = $0 { true } else { false } }
    let end = bench.seen.firstIndex { if case .operation(let outcome) = $0 { outcome.operation == munmap } else { false } }
    #expect(try #require(fence) < #require(end))
    #expect(try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 1).status == .fenced)
    #expect(bench.counters.fenced == 1)
    #expect(bench.counters.timeouts == 1)
  }

  /// The device refills between S and P, completes what S asked, and uses the page after it was freed.
  func refill(_ strategy: Strategy) throws -> [VerdictKind] {
    var (bench, space, device) = try shared(strategy) { $0.hold = 1000 }
    _ = try bench.request(device, 5, 0x100)
    _ = try bench.translate(device, 5, 0x100)
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
    bench.settle()
    try bench.completeAll(device)
    let answer = try bench.translate(device, 5, 0x100)
    bench.run(until: bench.machine.time + 10_000)
    try bench.completeAll(device)
    if answer.rights.isEmpty { return bench.verdicts.map(\.kind) }
    let used = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 7)
    #expect(used.status == .success)
    return bench.verdicts.map(\.kind)
  }

  @Test func `flush-at-start lets the device refill before the entry goes, and the write lands in a freed frame`() throws {
    #expect(try refill(.flushAtStart) == [.staleDMA])
  }

  @Test func `invalidate-range leaves nothing to use: a device that uses it all the same is at fault itself`() throws {
    #expect(try refill(.invalidateRange) == [.usedAfterCompletion])
  }

  @Test func `invalidate-range without its ATC step lets the device go on with what it has`() throws {
    #expect(try refill(.invalidateRangeWithoutATC) == [.staleDMA])
  }

  @Test func `empty-table answers not present while the window is open, and counts the fault as needless`() throws {
    var (bench, space, device) = try shared(.emptyTable) { $0.hold = 1000 }
    _ = try bench.request(device, 5, 0x10f)
    #expect(try bench.translate(device, 5, 0x10f).rights == .readWrite)
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 2)))
    bench.settle()
    try bench.completeAll(device)
    for _ in 0..<2 {
      #expect(try bench.translate(device, 5, 0x10f).rights == [])
      #expect(try bench.request(device, 5, 0x10f) == .success)
    }
    #expect(bench.counters.needlessFaults == 2)
    try bench.apply(.giveUp(device, 5, 0x10f, .read))
    #expect(bench.verdicts.map(\.kind) == [.gaveUp])
    bench.run(until: bench.machine.time + 10_000)
    try bench.completeAll(device)
    #expect(try bench.translate(device, 5, 0x10f).rights == .readWrite)
  }

  @Test func `flush-at-end frees a full batch inside S to E while the device still holds its pages`() throws {
    var (bench, space, device) = try shared(.flushAtEnd) {
      $0.gatherBatch = 4
      $0.costs.frameFree = .constant(1000)
    }
    _ = try bench.request(device, 5, 0x100)
    let answer = try bench.translate(device, 5, 0x100)
    for page in UInt64(0x101)..<0x110 { try bench.store(space, page, 1) }
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
    bench.settle()
    #expect(bench.counters.fullBatches == 1)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 7)
    #expect(bench.verdicts.map(\.kind) == [.staleDMA])
    #expect(bench.verdicts.first?.freed.kind == .munmap)
  }

  @Test func `a small munmap under flush-at-end is clean on data`() throws {
    var (bench, space, device) = try shared(.flushAtEnd)
    _ = try bench.request(device, 5, 0x100)
    let answer = try bench.translate(device, 5, 0x100)
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 4)))
    bench.settle()
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 7)
    #expect(bench.verdicts.isEmpty)
    try bench.completeAll(device)
  }

  @Test func `a write of a device breaks COW after a fork, and parent and child keep their own data`() throws {
    var (bench, space, device) = try shared(.invalidateRange)
    try bench.store(space, 0x100, 11)
    let fork = try bench.start(.fork(space))
    bench.settle()
    try bench.completeAll(device)
    let child = AddressSpaceID(rawValue: UInt32(try #require(bench.outcome(fork)).value))
    #expect(try bench.translate(device, 5, 0x100).rights == .read)
    try bench.apply(.pageRequest(device, PageRequest(pasid: 5, page: 0x100, rights: .readWrite, groupIndex: 1, last: true)))
    bench.settle()
    try bench.completeAll(device)
    let answer = try bench.translate(device, 5, 0x100)
    #expect(answer.rights == .readWrite)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 22)
    #expect(try bench.load(space, 0x100) == 22)
    #expect(try bench.load(child, 0x100) == 11)
    #expect(bench.verdicts.isEmpty)
    try bench.start(.exit(child))
    bench.settle()
    #expect(bench.machine.spaces.count == 1)
  }

  @Test func `a physical address that was never granted is a forged translation`() throws {
    var (bench, _, device) = try shared(.invalidateRange)
    _ = try bench.dma(device, 5, 0x100, at: 0x7000, write: 1)
    #expect(bench.verdicts.map(\.kind) == [.forgedTranslation])
  }

  @Test func `an exit cuts the PASID and flushes before its first entry goes`() throws {
    var (bench, space, device) = try shared(.invalidateRange)
    _ = try bench.request(device, 5, 0x100)
    _ = try bench.translate(device, 5, 0x100)
    let exit = try bench.start(.exit(space))
    bench.settle()
    #expect(bench.outcome(exit) == nil)
    try bench.completeAll(device)
    #expect(bench.outcome(exit)?.status == .success)
    #expect(bench.letters.firstIndex(of: .flushed)! < bench.letters.firstIndex(of: .entries)!)
    #expect(try bench.translate(device, 5, 0x100).rights == [])
    #expect(try bench.request(device, 5, 0x100) == .invalidRequest)
  }
}
