// SPDX-License-Identifier: Apache-2.0
// Goal: each verdict is said where it is earned, and is not said one step away from there.
@testable import IOMMUModel
import Testing

@Suite struct VerdictTests {
  /// The device holds the page at 0x100, and a child of a fork shares its frame, so that the parent's loss frees nothing.
  func sharedWithChild(_ strategy: Strategy, _ change: (inout Settings) -> Void = { _ in }) throws -> (
    Bench, AddressSpaceID, DeviceID, UInt64
  ) {
    var (bench, space, device) = try Bench.shared(strategy, change)
    try bench.store(space, 0x100, 1)
    let answer = try bench.translate(device, 5, 0x100)
    #expect(answer.rights == .readWrite)
    try bench.start(.fork(space))
    try bench.finish([device])
    return (bench, space, device, answer.physicalAddress)
  }

  // MARK: STALE_DMA

  @Test func `a read of a page that is no longer referenced is legal while the DONTNEED runs, and STALE_DMA after it`()
    throws
  {
    var (bench, space, device, address) = try sharedWithChild(.none) { $0.costs.cpuFlush = .constant(1000) }
    let id = try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    #expect(bench.letters(of: id).last == .cpuFlush)
    _ = try bench.dma(device, 5, 0x100, at: address)
    #expect(bench.kinds == [])
    try bench.finish()
    _ = try bench.dma(device, 5, 0x100, at: address)
    #expect(bench.kinds == [.staleDMA])
    #expect(bench.verdicts[0].grantGeneration == bench.verdicts[0].frameGeneration, "nobody has freed it")
    #expect(bench.verdicts[0].dropped.operation == id)
  }

  @Test func `a write to a freed page is STALE_DMA although the operation still runs`() throws {
    var (bench, space, device) = try Bench.shared(.none) { $0.costs.frameFree = .constant(1000) }
    let answer = try bench.grant(device, 0x100)
    let id = try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    #expect(bench.outcome(id) == nil)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 1)
    #expect(bench.kinds == [.staleDMA])
    #expect(bench.verdicts[0].freed.operation == id)
  }

  @Test func `a page that was unmapped and served anew in another frame is STALE_DMA through the old translation only`()
    throws
  {
    var (bench, space, device) = try Bench.shared(.none) { $0.recycleOrder = .firstInFirstOut }
    let old = try bench.grant(device, 0x100)
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    try bench.store(space, 0x105, 1)
    // Nothing flushed the IOTLB either; it forgets by itself now and then.
    bench.machine.caches.translations.remove { _ in true }
    let new = try bench.grant(device, 0x100)
    #expect(old.physicalAddress != new.physicalAddress)
    _ = try bench.dma(device, 5, 0x100, at: new.physicalAddress, write: 1)
    #expect(bench.kinds == [])
    _ = try bench.dma(device, 5, 0x100, at: old.physicalAddress, write: 1)
    #expect(bench.kinds == [.staleDMA])
  }

  // MARK: STALE_WALK

  /// Under flush-at-end the walk cache fills again between E and the unlinking of the table.
  func staleTable(_ strategy: Strategy) throws -> (Bench, AddressSpaceID, DeviceID, FrameNumber) {
    var (bench, space, device) = try Bench.shared(strategy) { $0.costs.end = .constant(1000) }
    try bench.map(space, 0x8_0000, 64)
    try bench.grant(device, 0x100)
    let table = bench.machine.locate(bench.machine.spaces[space].root, 0x100).position.table
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
    bench.settle()
    try bench.completeAll(device)
    #expect(try bench.translate(device, 5, 0x101).rights == [])
    try bench.finish([device])
    #expect(bench.machine.memory.isStaleTable(table))
    #expect(bench.kinds == [])
    return (bench, space, device, table)
  }

  @Test func `flush-at-end and empty-table walk through a freed table, invalidate-range does not`() throws {
    for strategy in [Strategy.flushAtEnd, .emptyTable] {
      var (bench, _, device, table) = try staleTable(strategy)
      #expect(try bench.translate(device, 5, 0x100).rights == [])
      #expect(bench.kinds == [.staleWalk])
      #expect(bench.verdicts[0].via == .walkCache)
      #expect(bench.verdicts[0].frame == table)
    }
    var (bench, _, device, _) = try staleTable(.invalidateRange)
    #expect(try bench.translate(device, 5, 0x100).rights == [])
    #expect(bench.kinds == [])
  }

  @Test func `the mark of a freed table passes through IOTLB and ATC, and books the access that follows as STALE_WALK`()
    throws
  {
    var (bench, space, device, table) = try staleTable(.flushAtEnd)
    // The table becomes a page of data, in which the process writes what looks like an entry for 0x100.
    var page = PageNumber(0x8_0000)
    while true {
      try bench.store(space, page, 0)
      let frame = bench.machine.spaces[space].references.find(page, level: 0)!.frame
      if frame == table { break }
      page += 1
    }
    let target = bench.machine.spaces[space].references.find(0x8_0000, level: 0)!.frame
    let bits = PageTableEntry.leaf(target, .readWrite, level: 0).bits
    try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: page << 12 + 0x100 * 8, value: bits)))
    bench.settle()
    let walked = try bench.translate(device, 5, 0x100)
    #expect(walked.rights == .readWrite)
    #expect(bench.kinds == [.staleWalk])
    let hits = bench.counters.iotlbHits
    #expect(try bench.translate(device, 5, 0x100).physicalAddress == walked.physicalAddress)
    #expect(bench.counters.iotlbHits == hits + 1)
    _ = try bench.dma(device, 5, 0x100, at: walked.physicalAddress, write: 3)
    #expect(bench.kinds == [.staleWalk, .staleWalk])
    // The Accessed and Dirty bits that the walk wrote into the process's data are found, and explained.
    try bench.start(.exit(space))
    try bench.finish([device])
    #expect(bench.counters.corruptedFrames > 0)
    #expect(bench.counters.unexplainedCorruptions == 0)
  }

  // MARK: Rights

  @Test func `a write after mprotect is legal until it returns, WRITE_AFTER_PROTECT after, and a read never`() throws {
    var (bench, space, device) = try Bench.shared(.none) { $0.costs.cpuFlush = .constant(1000) }
    let answer = try bench.grant(device, 0x100)
    let id = try bench.start(.mprotect(space, PageRange(first: 0x100, count: 16), .read))
    bench.settle()
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 1)
    #expect(bench.kinds == [])
    try bench.finish()
    #expect(bench.outcome(id)?.status == .success)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress)
    #expect(bench.kinds == [])
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 1)
    #expect(bench.kinds == [.writeAfterProtect])
    #expect(bench.verdicts[0].dropped.operation == id)
    try bench.start(.mprotect(space, PageRange(first: 0x100, count: 16), .readWrite))
    try bench.store(space, 0x100, 1)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 1)
    #expect(bench.kinds == [.writeAfterProtect], "the right came back")
  }

  @Test func `a write after fork is WRITE_AFTER_PROTECT without a flush, and the device's own fault with one`() throws {
    var (bench, _, device, address) = try sharedWithChild(.none)
    _ = try bench.dma(device, 5, 0x100, at: address, write: 1)
    #expect(bench.kinds == [.writeAfterProtect])
    (bench, _, device, address) = try sharedWithChild(.invalidateRange)
    _ = try bench.dma(device, 5, 0x100, at: address, write: 1)
    #expect(bench.kinds == [.usedAfterCompletion])
  }

  // MARK: SPLIT_VIEW

  @Test
  func `the old page after a CPU used its replacement is SPLIT_VIEW; without that use STALE_DMA once it returned`()
    throws
  {
    var (bench, space, device, address) = try sharedWithChild(.none)
    try bench.store(space, 0x100, 9)
    _ = try bench.dma(device, 5, 0x100, at: address)
    #expect(bench.kinds == [.splitView])
    (bench, space, device, address) = try sharedWithChild(.none)
    try bench.send(device, 0x100, index: 1)
    bench.settle()
    _ = try bench.dma(device, 5, 0x100, at: address)
    #expect(bench.kinds == [.staleDMA], "a COW break by the device: no CPU has used the new page")
  }

  @Test func `a COW break is legal to both pages until a CPU uses the new one`() throws {
    var (bench, space, device, address) = try sharedWithChild(.flushAtEnd) { $0.costs.end = .constant(1000) }
    let answer = try bench.translate(device, 5, 0x100, noWrite: true)
    #expect(answer.physicalAddress == address)
    try bench.send(device, 0x100, index: 1)
    bench.settle()
    #expect(bench.letters.last == .end)
    _ = try bench.dma(device, 5, 0x100, at: address)
    #expect(bench.kinds == [], "between set-new and E")
    #expect(try bench.load(space, 0x100, cpu: 1) == 1)
    _ = try bench.dma(device, 5, 0x100, at: address)
    #expect(bench.kinds == [.splitView])
    (bench, space, device, address) = try sharedWithChild(.invalidateRange)
    try bench.grant(device, 0x100, noWrite: true)
    let store = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: 0x100 << 12, value: 4)))
    bench.settle()
    #expect(bench.outcome(store) == nil, "I under the page-table lock")
    _ = try bench.dma(device, 5, 0x100, at: address)
    #expect(bench.kinds == [])
    try bench.finish([device])
    #expect(bench.kinds == [])
  }

  // MARK: The device's own fault

  @Test
  func `a translation is used before its completion, legally, and after it, USED_AFTER_COMPLETION; a new one is good`()
    throws
  {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    let answer = try bench.grant(device, 0x100)
    try bench.start(.mprotect(space, PageRange(first: 0x100, count: 1), .readWrite))
    bench.settle()
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 1)
    try bench.completeAll(device)
    #expect(bench.kinds == [])
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 1)
    #expect(bench.kinds == [.usedAfterCompletion])
    #expect(try bench.translate(device, 5, 0x100).physicalAddress == answer.physicalAddress)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 1)
    #expect(bench.kinds == [.usedAfterCompletion])
  }

  @Test func `a completion does not retire what was granted after its invalidation was pushed`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.grant(device, 0x100)
    try bench.start(.mprotect(space, PageRange(first: 0x100, count: 1), .readWrite))
    bench.settle()
    let again = try bench.translate(device, 5, 0x100)
    #expect(again.order > bench.owed(device)[0].order)
    try bench.completeAll(device)
    _ = try bench.dma(device, 5, 0x100, at: again.physicalAddress, write: 1)
    #expect(bench.kinds == [])
  }

  @Test func `an address never granted, a right never granted, and an older epoch are FORGED_TRANSLATION`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.store(space, 0x101, 5)
    try bench.start(.mprotect(space, PageRange(first: 0x100, count: 16), .read))
    try bench.finish([device])
    let answer = try bench.grant(device, 0x101, noWrite: true)
    #expect(answer.rights == .read)
    _ = try bench.dma(device, 5, 0x101, at: answer.physicalAddress)
    #expect(bench.kinds == [])
    _ = try bench.dma(device, 5, 0x101, at: answer.physicalAddress, write: 1)
    #expect(bench.kinds == [.forgedTranslation])
    _ = try bench.dma(device, 5, 0x101, at: answer.physicalAddress + 0x1000)
    #expect(bench.kinds == [.forgedTranslation, .forgedTranslation])
    try bench.apply(.removeDevice(device))
    let anew = try bench.device()
    try bench.apply(.attach(anew, 5, .addressSpace(space, .invalidateRange)))
    _ = try bench.dma(anew, 5, 0x101, at: answer.physicalAddress)
    #expect(bench.kinds.count == 3)
    #expect(bench.kinds.last == .forgedTranslation)
  }

  @Test func `a translated request reaches memory by its address: the claimed page does not matter`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange)
    let answer = try bench.grant(device, 0x100)
    _ = try bench.dma(device, 77, 0x9999, at: answer.physicalAddress, write: 1)
    #expect(bench.kinds == [])
  }

  @Test func `a group whose members name two PASIDs is PRG_WRONG_PASID, and the last one's members are served`() throws
  {
    var (bench, _, device) = try Bench.shared(.invalidateRange)
    try bench.send(device, 0x100, index: 4, last: false, pasid: 6)
    try bench.send(device, 0x101, index: 4, last: false)
    try bench.send(device, 0x102, index: 4)
    bench.settle()
    #expect(bench.kinds == [.prgWrongPASID])
    #expect(bench.responses(device).map(\.memberCount) == [3], "all members are given back")
    #expect(bench.counters.membersServed == 2)
    #expect(bench.machine.devices[device].outstanding == 0)
  }

  // MARK: CPU

  @Test func `a CPU that keeps a freed page in its TLB is STALE_CPU; the step lists never let it`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.store(space, 0x100, 1)
    let entry = try #require(bench.machine.cpuTLB.find(0, space, 0x100))
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 16)))
    try bench.finish([device])
    #expect(bench.machine.cpuTLB.find(0, space, 0x100) == nil)
    #expect(try bench.load(space, 0x100) == 0)
    #expect(bench.kinds == [])
    bench.machine.cpuTLB.insert(
      0,
      CPUTLB.Entry(
        space: space, page: 0x101, frame: entry.frame, generation: entry.generation, writable: true, at: entry.at))
    try bench.store(space, 0x101, 66)
    #expect(bench.kinds == [.staleCPU])
    try bench.start(.exit(space))
    try bench.finish([device])
    #expect(bench.counters.corruptedFrames == 1)
    #expect(bench.counters.unexplainedCorruptions == 0)
  }
}
