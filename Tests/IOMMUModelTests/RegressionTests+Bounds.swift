// SPDX-License-Identifier: Apache-2.0
// Goal and method: as RegressionTests; here what a caller could make grow without end.
@testable import IOMMUModel
import Testing

extension RegressionTests {
  @Test func `munmap and mprotect in the middle of areas passed the limit of areas`() throws {
    var bench = Bench { $0.limits.areasPerAddressSpace = 4 }
    let space = try bench.addressSpace()
    try bench.map(space, 0x100, 64)
    func page(_ number: PageNumber) -> PageRange { PageRange(first: number, count: 1) }
    try bench.start(.munmap(space, page(0x110)))
    try bench.start(.mprotect(space, page(0x100), .read))
    try bench.start(.mprotect(space, page(0x13f), .read))
    bench.settle()
    #expect(bench.machine.spaces[space].areas.list.count == 4)
    #expect(bench.refusal(.start(.munmap(space, page(0x120)))) == .limitReached)
    #expect(bench.refusal(.start(.mprotect(space, page(0x120), .read))) == .limitReached)
    #expect(bench.refusal(.start(.mprotect(space, page(0x101), .read))) == .limitReached)
    // What cuts nothing, or leaves as many, is still possible.
    #expect(bench.refusal(.start(.mprotect(space, page(0x100), .readWrite))) == nil)
    #expect(bench.refusal(.start(.munmap(space, page(0x101)))) == nil)
    bench.settle()
    #expect(bench.machine.spaces[space].areas.list.count == 4)
    #expect(bench.refusal(.start(.exit(space))) == nil)
  }

  @Test func `operations that waited for the lock together passed the limit of areas`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.limits.areasPerAddressSpace = 2 }
    try bench.grant(device, 0x100)
    try bench.start(.mprotect(space, PageRange(first: 0x100, count: 16), .read))
    bench.settle()
    let waiting: [OperationID] = [
      try bench.start(.mmap(space, PageRange(first: 0x200, count: 1), .read, pageSizeLog2: 12)),
      try bench.start(.mmap(space, PageRange(first: 0x300, count: 1), .read, pageSizeLog2: 12)),
      try bench.start(.munmap(space, PageRange(first: 0x108, count: 1))),
      try bench.start(.mprotect(space, PageRange(first: 0x108, count: 8), .readWrite)),
    ]
    try bench.finish([device])
    #expect(waiting.map { bench.outcome($0)?.status } == [.success, .outOfMemory, .outOfMemory, .outOfMemory])
    #expect(bench.machine.spaces[space].areas.list.count == 2)
  }

  @Test func `completions behind a DMA that does not land were kept without end`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange) { $0.costs.dmaLanding = .constant(1000) }
    try bench.issue(device, 0x100)
    for _ in 0..<Device.completionsPostedLimit { try bench.apply(.complete(device, itagVector: 1)) }
    #expect(bench.refusal(.complete(device, itagVector: 1)) == .limitReached)
    bench.run(until: 1000)
    #expect(bench.counters.unexpectedCompletions == UInt64(Device.completionsPostedLimit))
    #expect(bench.refusal(.complete(device, itagVector: 1)) == nil)
  }

  @Test func `grants of pages that a device had completed away were kept without end`() {
    var table = GrantTable()
    for page in UInt64(0)..<100_000 {
      let grant = Grant(
        frame: FrameNumber(page), generation: 1, level: 0, rights: .readWrite, via: .walk, throughFreedTable: false,
        order: 2 * page, at: 0)
      table.issue(grant, pasid: 5, page: page)
      // The device keeps every hundredth.
      if page % 100 != 0 {
        table.retire(5, PageRange(first: page, count: 1), before: 2 * page + 1)
      }
    }
    #expect(table.sorted.count < 20_000)
    for page in UInt64(0)..<100_000 where page % 100 == 0 {
      #expect(table.claimed(5, page, FrameNumber(page), .write)?.1.retired == false)
    }
    #expect(table.claimed(5, 99_999, 99_999, .write)?.1.retired == true, "the newest are known")
  }

  @Test func `page requests that are never translated again were kept without end`() throws {
    var bench = Bench { $0.pageRequestQueueCapacity = 32 }
    let other = try bench.device()
    let device = try bench.device(rid: 9)
    for index in UInt16(0)..<32 { try bench.send(other, 0x100, index: index) }
    // Nothing runs meanwhile: the queue is full, and overflow answers each at once.
    var effects = Effects()
    for page in UInt64(0)..<UInt64(Attempt.limit) + 10 {
      _ = try bench.machine.apply(
        .pageRequest(device, PageRequest(pasid: 5, page: page, rights: .read, groupIndex: 2, last: true)), at: 0,
        into: &effects)
    }
    #expect(bench.machine.devices[device].attempts.count <= Attempt.limit)
    #expect(bench.machine.devices[device].attempts[PageKey(owner: 5, page: UInt64(Attempt.limit))] != nil)
  }
}

/// What callers start may wait for what the machine starts itself, which needs a slot for an operation too.
extension RegressionTests {
  /// A machine that takes no operation more: zaps of single pages, which wait for the device.
  private static func full(_ strategy: Strategy, _ effects: inout Effects) throws -> (Bench, DeviceID) {
    var (bench, space, device) = try Bench.shared(strategy) { $0.frameCount = 16_384 }
    try bench.map(space, 0x200, 6000)
    try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .touch, address: 0x200 << 12, pageCount: 6000)))
    bench.settle()
    for page in UInt64(0x200)..<0x200 + 5000 {
      let zap = OperationRequest.dontNeed(space, PageRange(first: page, count: 1))
      guard (try? bench.machine.apply(.start(zap), at: bench.machine.time, into: &effects)) != nil else { break }
    }
    #expect(bench.machine.operationCount == bench.machine.operationLimit)
    return (bench, device)
  }

  @Test func `zaps that took every slot waited for a flush that got none`() throws {
    var effects = Effects()
    var (bench, device) = try Self.full(.deferredHeld, &effects)
    for _ in 0..<100 where bench.machine.operationCount > 0 {
      bench.machine.run(until: bench.machine.time + FlushQueueTests.timeout, limit: .max, into: &effects)
      let vector = bench.owed(device).reduce(UInt32(0)) { $0 | 1 << UInt32($1.itag) }
      if vector != 0 {
        _ = try bench.machine.apply(.complete(device, itagVector: vector), at: bench.machine.time, into: &effects)
      }
    }
    #expect(bench.machine.operationCount == 0, "every zap has returned")
  }

  @Test func `operations that wait for a device left its page requests no slot`() throws {
    var effects = Effects()
    var (bench, device) = try Self.full(.invalidateRange, &effects)
    bench.settle()
    #expect(bench.machine.operationCount == bench.machine.operationLimit)
    #expect(try bench.request(device, 5, 0x1900) != nil, "the page request is answered")
  }
}
