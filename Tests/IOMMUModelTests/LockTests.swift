// SPDX-License-Identifier: Apache-2.0
// Goal: who waits for whom, as the kernel's locks decide it. Method: an operation is held up by a device that does not
// complete, and others are started beside it.
@testable import IOMMUModel
import Testing

@Suite struct LockTests {
  /// A device that holds page 0x100 of an area of 16 pages, and a second one that faults.
  func pair(_ change: (inout Settings) -> Void = { _ in }) throws -> (Bench, AddressSpaceID, DeviceID, DeviceID) {
    var (bench, space, device) = try Bench.shared(.invalidateRange, change)
    guard case .device(let other, _) = try bench.apply(.registerDevice(DeviceProfile(rid: 9))) else { throw Surprise() }
    try bench.apply(.attach(other, 5, .addressSpace(space, Strategy(sites: []))))
    try bench.map(space, 0x400, 16)
    try bench.grant(device, 0x100)
    return (bench, space, device, other)
  }

  @Test func `a fault waits while a munmap, an mprotect or a fork runs, and is served when it has returned`() throws {
    for kind in [OperationKind.munmap, .mprotect, .fork] {
      var (bench, space, device, other) = try pair()
      let range = PageRange(first: 0x100, count: 1)
      let request: OperationRequest =
        switch kind {
        case .munmap: .munmap(space, range)
        case .mprotect: .mprotect(space, range, .read)
        default: .fork(space)
        }
      let id = try bench.start(request)
      bench.settle()
      #expect(bench.outcome(id) == nil)
      try bench.send(other, 0x401, index: 1)
      let load = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x402 << 12)))
      bench.settle()
      #expect(bench.responses(other).isEmpty, "\(kind)")
      #expect(bench.outcome(load) == nil, "\(kind)")
      #expect(bench.letters(of: load) == [.lockWait], "\(kind)")
      try bench.finish([device])
      #expect(bench.outcome(id)?.status == .success)
      #expect(bench.responses(other).map(\.code) == [.success], "\(kind)")
      #expect(bench.outcome(load)?.status == .success, "\(kind)")
    }
  }

  @Test func `a fault runs beside a DONTNEED, and a mapping waits for it`() throws {
    var (bench, space, device, other) = try pair()
    let id = try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    #expect(bench.outcome(id) == nil)
    #expect(try bench.request(other, 5, 0x401) == .success)
    #expect(try bench.request(other, 5, 0x100) == .success, "even of a page that it has just dropped")
    let mmap = try bench.start(.mmap(space, PageRange(first: 0x500, count: 1), .read, pageSizeLog2: 12))
    bench.settle()
    #expect(bench.outcome(mmap) == nil)
    let late = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x402 << 12)))
    bench.settle()
    #expect(bench.outcome(late) == nil, "a waiting writer holds back the readers behind it")
    try bench.finish([device])
    #expect(bench.outcome(mmap)?.status == .success)
    #expect(bench.outcome(late)?.status == .success)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `the page-table lock is held across C and I of a full batch, and keeps faults of that table out`() throws {
    var (bench, space, device, other) = try pair { $0.gatherBatch = 2 }
    try bench.map(space, 0x1000, 4)
    try bench.store(space, 0x101, 1)
    let id = try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 16)))
    bench.settle()
    #expect(bench.letters(of: id) == [.start, .entries, .cpuFlush, .flushSite])
    #expect(bench.machine.tableLocks.held.map(\.holder) == [id])
    try bench.send(other, 0x105, index: 1)
    try bench.send(other, 0x1001, index: 2)
    bench.settle()
    #expect(bench.responses(other).map(\.groupIndex) == [2], "another table's faults are served")
    let zap = try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 4)))
    bench.settle()
    #expect(bench.letters(of: zap) == [.start], "to look into the table takes its lock, too")
    try bench.finish([device])
    #expect(bench.responses(other).map(\.groupIndex) == [2, 1])
    #expect(bench.machine.tableLocks.held.isEmpty)
    #expect(bench.letters(of: id).firstIndex(of: .flushed)! < bench.letters(of: id).firstIndex(of: .framesFreed)!)
  }

  @Test func `the page-table lock is held across C and I of a COW break, and two breaks of one page make one copy`()
    throws
  {
    var (bench, space, device, other) = try pair()
    try bench.start(.fork(space))
    try bench.finish([device])
    try bench.grant(device, 0x100, noWrite: true)
    let first = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: 0x100 << 12, value: 1)))
    bench.settle()
    #expect(bench.letters(of: first) == [.start, .entries, .cpuFlush, .flushSite])
    #expect(bench.machine.tableLocks.held.map(\.holder) == [first])
    let second = try bench.start(.cpuAccess(space, CPUAccess(cpu: 1, kind: .store, address: 0x100 << 12 + 8, value: 2)))
    try bench.send(other, 0x105, index: 1)
    bench.settle()
    #expect(bench.outcome(second) == nil)
    #expect(bench.responses(other).isEmpty)
    try bench.finish([device])
    #expect(bench.outcome(first)?.status == .success)
    #expect(bench.outcome(second)?.status == .success)
    #expect(bench.responses(other).map(\.code) == [.success])
    #expect(try bench.load(space, 0x100) == 1)
    #expect(bench.machine.spaces[space].references.find(0x100, level: 0)?.rights == .readWrite)
    #expect(bench.machine.tableLocks.held.isEmpty)
  }

  @Test func `two COW breaks that both copied before either took the lock: the second finds itself the loser`() throws {
    var (bench, space, device, _) = try pair { $0.hold = 1000 }
    try bench.start(.fork(space))
    try bench.finish([device])
    let stores = try (0..<2).map { cpu in
      try bench.start(
        .cpuAccess(space, CPUAccess(cpu: UInt8(cpu), kind: .store, address: 0x100 << 12 + UInt64(cpu) * 8, value: 7)))
    }
    let free = bench.machine.memory.freeCount
    try bench.finish([device])
    for store in stores { #expect(bench.outcome(store)?.status == .success) }
    #expect(bench.letters(of: stores[1]).filter { $0 == .entries }.isEmpty)
    #expect(bench.machine.memory.freeCount == free - 1, "the loser's copy is free again")
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `an exit lets who waits for its lock find the address space gone`() throws {
    var (bench, space, device, other) = try pair()
    let exit = try bench.start(.exit(space))
    bench.settle()
    #expect(bench.refusal(.start(.munmap(space, PageRange(first: 0x100, count: 1)))) == .addressSpaceExiting)
    try bench.send(other, 0x401, index: 1)
    bench.settle()
    #expect(bench.outcome(exit) == nil)
    try bench.finish([device, other])
    #expect(bench.outcome(exit)?.status == .success)
    #expect(bench.responses(other).map(\.code) == [.invalidRequest])
    #expect(bench.machine.memory.freeCount == 255, "every frame is free again")
  }

  @Test func `an unmap of a domain runs alone, and nothing is mapped meanwhile`() throws {
    var bench = Bench()
    let device = try bench.device()
    guard case .domain(let domain) = try bench.apply(.createDomain(.paging)) else { throw Surprise() }
    let range = PageRange(first: 0x10, count: 4)
    try bench.apply(.map(DomainMapping(domain: domain, range: range, rights: .readWrite)))
    try bench.apply(.attach(device, 5, .domain(domain)))
    let first = try bench.start(.unmap(domain, PageRange(first: 0x10, count: 2)))
    bench.settle()
    let second = try bench.start(.unmap(domain, PageRange(first: 0x12, count: 2)))
    bench.settle()
    #expect(bench.letters(of: second) == [.lockWait])
    #expect(bench.refusal(.map(DomainMapping(domain: domain, range: range, rights: .read))) == .domainInUse)
    #expect(bench.refusal(.destroyDomain(domain)) == .domainInUse)
    #expect(bench.refusal(.start(.unmap(domain, range))) == .notMapped)
    try bench.finish([device])
    #expect(bench.outcome(first)?.status == .success)
    #expect(bench.outcome(second)?.status == .success)
    #expect(bench.machine.domains[domain].references.heldCount == 0)
  }
}
