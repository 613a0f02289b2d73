// SPDX-License-Identifier: Apache-2.0
// Goal: pages that leave memory come back with what was in them, and only what was said to be free is lost.
@testable import IOMMUModel
import Testing

@Suite struct ReclaimTests {
  let area = PageRange(first: 0x100, count: 16)

  func run(_ bench: inout Bench, _ request: OperationRequest, _ device: DeviceID) throws -> OperationOutcome? {
    let id = try bench.start(request)
    try bench.finish([device])
    return bench.outcome(id)
  }

  @Test(arguments: KernelColumn.allCases)
  func `pages go to the swap device and come back to a CPU and to a device with their data`(column: KernelColumn) throws
  {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.kernel = column }
    for page in [0x100, 0x101, 0x102] as [PageNumber] { try bench.store(space, page, page) }
    try bench.grant(device, 0x100)
    let free = bench.machine.memory.freeCount
    #expect(try run(&bench, .range(.reclaim, space, area), device)?.value == 3)
    #expect(bench.machine.memory.freeCount == free + 3)
    #expect(bench.machine.swap.slots.count == 4)
    #expect(try bench.translate(device, 5, 0x100).rights == [])
    #expect(try bench.load(space, 0x101) == 0x101)
    let answer = try bench.grant(device, 0x102)
    #expect(answer.rights == .readWrite)
    #expect(try bench.dma(device, 5, 0x102, at: answer.physicalAddress).value == 0x102)
    #expect(try bench.load(space, 0x100) == 0x100)
    #expect(bench.machine.swap.free.count == 3)
    #expect(bench.verdicts.isEmpty)
    #expect(bench.counters.unexplainedCorruptions == 0)
  }

  @Test func `more pages than a batch go in several, and a range without any ends as busy`() throws {
    var (bench, space, device) = try Bench.shared(.secondaryTLB) { $0.kernel = .now }
    try bench.map(space, 0x1000, 80)
    for page in 0x1000..<0x1050 as Range<PageNumber> { try bench.store(space, page, page) }
    let range = PageRange(first: 0x1000, count: 80)
    #expect(try run(&bench, .range(.reclaim, space, range), device)?.value == 80)
    #expect(try run(&bench, .range(.reclaim, space, range), device)?.status == .busy)
    for page in 0x1000..<0x1050 as Range<PageNumber> { #expect(try bench.load(space, page) == page) }
  }

  @Test func `a page that two processes share stays; after a fork both find what was swapped before it`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    for page in [0x100, 0x101] as [PageNumber] { try bench.store(space, page, page) }
    #expect(try run(&bench, .range(.reclaim, space, PageRange(first: 0x100, count: 1)), device)?.value == 1)
    let fork = try run(&bench, .fork(space), device)
    let child = AddressSpaceID(rawValue: UInt32(try #require(fork).value))
    #expect(try run(&bench, .range(.reclaim, space, area), device)?.status == .busy)
    try bench.store(space, 0x100, 7)
    #expect(try bench.load(child, 0x100) == 0x100)
    #expect(try bench.load(space, 0x100) == 7)
    #expect(bench.machine.swap.free.count == 1)
  }

  @Test func `a full swap device keeps pages in memory`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.frameCount = 24 }
    for page in 0x100..<0x108 as Range<PageNumber> { try bench.store(space, page, page) }
    var swapped: UInt64 = 0
    let other = try bench.addressSpace()
    try bench.map(other, 0x100, 64)
    for round in 0..<8 as Range<UInt64> {
      swapped += try run(&bench, .range(.reclaim, space, area), device)?.value ?? 0
      swapped += try run(&bench, .range(.reclaim, other, PageRange(first: 0x100, count: 64)), device)?.value ?? 0
      for page in round * 8..<round * 8 + 8 { try bench.store(other, 0x100 + page, page) }
    }
    #expect(swapped == 24)
    #expect(try run(&bench, .munmap(other, PageRange(first: 0x100, count: 64)), device)?.status == .success)
    #expect(try bench.load(space, 0x101) == 0x101)
  }

  @Test func `what was freed lazily is dropped unwritten, unless it was written to since, also by a child`() throws {
    var (bench, space, device) = try Bench.shared(.secondaryTLB) { $0.kernel = .now }
    for page in [0x100, 0x101, 0x102, 0x103] as [PageNumber] { try bench.store(space, page, page) }
    #expect(try run(&bench, .range(.reclaim, space, PageRange(first: 0x103, count: 1)), device)?.value == 1)
    #expect(try run(&bench, .range(.madviseFree, space, area), device)?.status == .success)
    #expect(bench.machine.swap.free.count == 1, "a swapped page goes at once")
    #expect(try bench.load(space, 0x100) == 0x100, "and the others stay until memory is short")
    try bench.store(space, 0x101, 1)
    // The child has the page without Dirty; it was written to all the same.
    let fork = try run(&bench, .fork(space), device)
    let child = AddressSpaceID(rawValue: UInt32(try #require(fork).value))
    #expect(try run(&bench, .exit(space), device)?.status == .success)
    #expect(try run(&bench, .range(.reclaim, child, area), device)?.value == 3)
    #expect(try bench.load(child, 0x100) == 0)
    #expect(try bench.load(child, 0x101) == 1)
    #expect(try bench.load(child, 0x102) == 0)
  }

  @Test func `a device's write after MADV_FREE keeps the page`() throws {
    var (bench, space, device) = try Bench.shared(.secondaryTLB) { $0.kernel = .now }
    try bench.store(space, 0x100, 5)
    try bench.grant(device, 0x100)
    #expect(try run(&bench, .range(.madviseFree, space, area), device)?.status == .success)
    let answer = try bench.grant(device, 0x100)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 6)
    #expect(try run(&bench, .range(.reclaim, space, area), device)?.value == 1)
    #expect(try bench.load(space, 0x100) == 6)
  }

  @Test func `a write to a page that the monitor protects is refused until it takes that back, also over a swap`()
    throws
  {
    var (bench, space, device) = try Bench.shared(.secondaryTLB) { $0.kernel = .now }
    try bench.store(space, 0x100, 5)
    let page = PageRange(first: 0x100, count: 1)
    let store = OperationRequest.cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: 0x100 << 12, value: 9))
    #expect(try run(&bench, .protect(.uffdWriteProtect, space, page, .read), device)?.status == .success)
    for _ in 0..<2 {
      #expect(try run(&bench, store, device)?.status == .accessDenied)
      #expect(try bench.request(device, 5, 0x100, .readWrite) == .invalidRequest)
      #expect(try bench.request(device, 5, 0x100, .read) == .success)
      #expect(try run(&bench, .range(.reclaim, space, page), device)?.value == 1)
    }
    #expect(try run(&bench, .protect(.uffdWriteProtect, space, page, .readWrite), device)?.status == .success)
    #expect(try run(&bench, store, device)?.status == .success)
    #expect(try bench.load(space, 0x100) == 9)
    #expect(bench.refusal(.start(.protect(.uffdWriteProtect, space, page, []))) == .noRights)
  }

  @Test func `a fault waits while its page is being written, and a munmap takes the migration entry away`() throws {
    var (bench, space, device) = try Bench.shared(.secondaryTLB) {
      $0.kernel = .now
      $0.costs.end = .constant(1000)
    }
    for page in [0x100, 0x101] as [PageNumber] { try bench.store(space, page, page) }
    let reclaim = try bench.start(.range(.reclaim, space, area))
    bench.settle()
    try bench.completeAll(device)
    let load = try bench.start(.cpuAccess(space, CPUAccess(cpu: 1, kind: .load, address: 0x100 << 12)))
    bench.settle()
    #expect(bench.outcome(load) == nil)
    let unmap = try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    try bench.finish([device])
    #expect(bench.outcome(unmap)?.status == .success)
    #expect(bench.outcome(reclaim)?.value == 2)
    #expect(bench.outcome(load)?.value == 0)
    #expect(try bench.load(space, 0x101) == 0x101)
    #expect(bench.machine.swap.free.count == 2)
  }
}
