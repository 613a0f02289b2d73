// SPDX-License-Identifier: Apache-2.0
// Goal: what was wrong once stays right. Each test is named by what it found.
@testable import IOMMUModel
import Testing

@Suite struct RegressionTests {
  // MARK: Traps and endless loops on a caller's input

  @Test func `a write through an IDENTITY domain to a frame that never came into being trapped`() throws {
    var bench = Bench()
    let device = try bench.device()
    guard case .domain(let domain) = try bench.apply(.createDomain(.identity)) else { throw Surprise() }
    try bench.apply(.attach(device, 0, .domain(domain)))
    try bench.issue(device, 200, write: 7, pasid: 0)
    bench.settle()
    try bench.issue(device, 200, pasid: 0)
    bench.settle()
    #expect(bench.answers(device).map(\.status) == [.success, .success])
    #expect(bench.answers(device).last?.value == 7)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `mapping a range of 2^35 pages looked at each of them before it was refused`() throws {
    var bench = Bench()
    guard case .domain(let domain) = try bench.apply(.createDomain(.paging)) else { throw Surprise() }
    #expect(bench.refusal(.map(DomainMapping(domain: domain, range: .all, rights: .read))) == .outOfFrames)
    let space = try bench.addressSpace()
    let shared = DomainMapping(domain: domain, range: .all, rights: .read, source: space)
    #expect(bench.refusal(.map(shared)) == .outOfFrames)
  }

  @Test func `an operation on a forked child that the caller guessed trapped while the fork still copied`() throws {
    var (bench, space, _) = try Bench.shared(.invalidateRange) { $0.hold = 1000 }
    try bench.store(space, 0x100, 1)
    let fork = try bench.start(.fork(space))
    let child = AddressSpaceID(rawValue: space.rawValue + 1)
    #expect(bench.machine.spaces.contains(child))
    #expect(bench.refusal(.start(.exit(child))) == .unknownAddressSpace)
    try bench.finish([try bench.onlyDevice()])
    #expect(bench.outcome(fork)?.value == UInt64(child.rawValue))
    try bench.start(.exit(child))
    try bench.finish()
    #expect(bench.machine.spaces.count == 1)
  }

  @Test func `a munmap that waited while a huge page came split it, and the next fault trapped`() throws {
    var bench = Bench { $0.frameCount = 4096 }
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, .invalidateRange)))
    try bench.map(space, 0x100, 1)
    try bench.grant(device, 0x100)
    // It holds the lock until the device completes.
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    let huge = try bench.start(.mmap(space, PageRange(first: 0x200, count: 512), .readWrite, pageSizeLog2: 21))
    let waiting: [OperationID] = [
      try bench.start(.munmap(space, PageRange(first: 0x210, count: 1))),
      try bench.start(.munmap(space, PageRange(first: 0x210, count: 1))),
    ]
    try bench.completeAll(device)
    #expect(bench.outcome(huge)?.status == .success)
    #expect(waiting.map { bench.outcome($0)?.status } == [.areasChanged, .areasChanged])
    let small = OperationRequest.mmap(space, PageRange(first: 0x210, count: 1), .readWrite, pageSizeLog2: 12)
    #expect(bench.refusal(.start(small)) == .overlapsArea)
  }

  @Test func `times and durations at the end of the clock overflowed`() throws {
    var bench = Bench {
      $0.costs = CostModel(); $0.costs.dilationMilli = .max; $0.hold = .max
    }
    let space = try bench.addressSpace()
    try bench.map(space, 0x100, 1)
    try bench.apply(.start(.munmap(space, PageRange(first: 0x100, count: 1))), at: .max)
    bench.run(until: .max)
    #expect(bench.machine.time == Machine.lastMoment)
  }

  // MARK: Wrong results

  @Test func `mprotect skipped the small pages behind a huge leaf, and a device kept its write right`() throws {
    var bench = Bench { $0.frameCount = 4096 }
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, .invalidateRange)))
    try bench.start(.mmap(space, PageRange(first: 0x200, count: 512), .readWrite, pageSizeLog2: 21))
    try bench.map(space, 0x400, 4)
    try bench.grant(device, 0x200)
    try bench.grant(device, 0x401)
    try bench.start(.mprotect(space, PageRange(first: 0x200, count: 516), .read))
    try bench.finish([device])
    #expect(try bench.translate(device, 5, 0x200).rights == .read)
    #expect(try bench.translate(device, 5, 0x401).rights == .read)
  }

  @Test func `an untranslated DMA went to the page that it named and not to its address`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.store(space, 0x100, 11)
    try bench.store(space, 0x101, 22)
    try bench.apply(
      .dma(device, DMARequest(tag: 1, write: false, translated: false, pasid: 5, address: 0x101 << 12, page: 0x100)))
    bench.settle()
    #expect(bench.answers(device).last?.value == 22)
  }

  @Test func `an access to a page refused before it was mapped hid a later give-up`() throws {
    var (bench, space, device) = try Bench.shared(.emptyTable) { $0.hold = 1000 }
    #expect(try bench.request(device, 5, 0x400) == .invalidRequest)
    try bench.map(space, 0x400, 2)
    try bench.store(space, 0x400, 1)
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 2)))
    bench.settle()
    try bench.completeAll(device)
    for _ in 0..<2 {
      _ = try bench.translate(device, 5, 0x400)
      #expect(try bench.request(device, 5, 0x400) == .success)
    }
    try bench.apply(.giveUp(device, 5, 0x400, .read))
    #expect(bench.kinds == [.gaveUp])
    #expect(bench.verdicts.first?.requests == 2)
  }

  @Test func `a granted read ended the count of a struggle for a write on the same page`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.costs.faultService = .constant(1000) }
    try bench.store(space, 0x100, 1)
    try bench.start(.fork(space))
    try bench.finish([device])
    for index in UInt16(0)..<2 {
      try bench.send(device, 0x100, index: index)
      #expect(try bench.translate(device, 5, 0x100, noWrite: true).rights == .read)
    }
    #expect(bench.machine.devices[device].attempts[PageKey(owner: 5, page: 0x100)]?.requests == 2)
    #expect(bench.refusal(.giveUp(device, 5, 0x100, .readWrite)) == nil)
  }

  @Test func `an access that was abandoned because PRI was off, before its first request, had no verdict`() throws {
    var (bench, device) = try benchWithPRIOff()
    try bench.apply(.giveUp(device, 5, 0x105, .readWrite))
    #expect(bench.kinds == [.gaveUp])
    try bench.apply(.giveUp(device, 5, 0x900, .read))
    #expect(bench.kinds == [.gaveUp], "no area covers that page")
  }

  @Test func `after PRI was enabled anew an old group's answer closed a new group of the same index`() throws {
    var bench = Bench {
      $0.frameCount = 12; $0.handlerWorkers = 1
    }
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, .invalidateRange)))
    try bench.map(space, 0x100, 32)
    for index in UInt16(0)..<20 { try bench.send(device, 0x100 + UInt64(index), index: index) }
    try bench.send(device, 0x100, index: 30, last: false)
    while bench.responses(device).last?.code != .responseFailure { bench.turn() }
    #expect(bench.machine.devices[device].groups[30].members == 0, "its last member never comes")
    #expect(bench.machine.devices[device].outstanding > 0)
    #expect(bench.refusal(.enablePRI(device, allocation: 4)) == .priEnabled, "not Stopped")
    bench.settle()
    #expect(bench.machine.devices[device].outstanding == 0)
    try bench.apply(.enablePRI(device, allocation: 4))
    #expect(bench.machine.devices[device].priEnabled)
  }

  @Test func `a device that attached inside a window of the empty table saw the real one`() throws {
    var bench = Bench { $0.hold = 1000 }
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.map(space, 0x100, 16)
    try bench.store(space, 0x100, 1)
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 2)))
    bench.settle()
    try bench.apply(.attach(device, 5, .addressSpace(space, .emptyTable)))
    #expect(try bench.translate(device, 5, 0x100).rights == [])
    try bench.finish([device])
    try bench.store(space, 0x104, 1)
    #expect(try bench.translate(device, 5, 0x104).rights == .readWrite, "E restores the root")
    #expect(bench.machine.spaces[space].emptyTable.count == 0)
  }

  @Test func `a translation after a detach had cut the PASID counted as needless`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.costs.faultService = .constant(1000) }
    try bench.store(space, 0x100, 1)
    try bench.send(device, 0x100, index: 1)
    bench.settle()
    try bench.start(.detach(device, 5))
    #expect(try bench.translate(device, 5, 0x100).rights == [])
    try bench.finish([device])
    #expect(bench.counters.needlessFaults == 0)
    #expect(bench.counters.duplicateFaults == 1)
  }

  @Test func `what one fault of a group had dropped stayed legal until the whole group was answered`() throws {
    var (bench, space, device) = try Bench.shared(.none) { $0.costs.faultService = .constant(1000) }
    try bench.store(space, 0x100, 1)
    let answer = try bench.translate(device, 5, 0x100)
    try bench.start(.fork(space))
    bench.run(until: 1000)
    try bench.send(device, 0x100, index: 1, last: false)
    try bench.send(device, 0x101, index: 1)
    // The first member's COW break is over, the second is in service.
    bench.run(until: bench.machine.time + 1500)
    #expect(bench.responses(device).isEmpty)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress)
    #expect(bench.kinds == [.staleDMA])
  }

  @Test func `a page table was freed after the pages of its batch, not before`() throws {
    var (bench, space, _) = try Bench.shared(.none)
    try bench.store(space, 0x100, 1)
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
    bench.settle()
    #expect(bench.letters.suffix(2) == [.tablesFreed, .framesFreed])
  }

  func benchWithPRIOff() throws -> (Bench, DeviceID) {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.frameCount = 9 }
    for page in UInt64(0x100)..<0x110 {
      try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .touch, address: page << 12)))
      bench.settle()
    }
    #expect(try bench.request(device, 5, 0x10e) == .responseFailure)
    return (bench, device)
  }
}

extension Bench {
  func onlyDevice() throws -> DeviceID {
    guard let id = machine.devices.ids.first else { throw Surprise() }
    return id
  }

  @Test func `members of a group after the first that failed are not handled, and the group has one answer`() throws {
    var bench = Bench()
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, .invalidateRange)))
    try bench.map(space, 0x100, 4)
    for (page, last) in [(PageNumber(0x200), false), (0x100, true)] {
      try bench.apply(
        .pageRequest(device, PageRequest(pasid: 5, page: page, rights: .readWrite, groupIndex: 7, last: last)))
    }
    bench.settle()
    let codes = bench.seen.compactMap { if case .pageResponse(_, let response) = $0 { response.code } else { nil } }
    #expect(codes == [.invalidRequest])
    #expect(bench.counters.neededFaults == 0)
    #expect(bench.counters.refusedFaults == 2)
    #expect(try bench.translate(device, 5, 0x100).rights == [])
  }
}
