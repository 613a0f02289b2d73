// SPDX-License-Identifier: Apache-2.0
// Goal: domains, large pages, memory and the machine as a value. Method: short scenes, and equal state hashes.
@testable import IOMMUModel
import Testing

@Suite struct MachineTests {
  // MARK: Domains

  @Test func `PAGING maps fresh and pinned frames, strictly, and a pinned page survives its process's munmap`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.store(space, 0x100, 41)
    guard case .domain(let domain) = try bench.apply(.createDomain(.paging)) else { throw Surprise() }
    let pinned = DomainMapping(
      domain: domain, range: PageRange(first: 0x10, count: 1), rights: .read, source: space, sourceFirst: 0x100)
    try bench.apply(.map(pinned))
    #expect(bench.refusal(.map(pinned)) == .overlapsMapping)
    #expect(
      bench.refusal(
        .map(
          DomainMapping(
            domain: domain, range: PageRange(first: 0x20, count: 2), rights: .read, source: space, sourceFirst: 0x100)))
        == .noAreaInRange, "the second page has no frame")
    try bench.apply(.attach(device, 0, .domain(domain)))
    try bench.issue(device, 0x10, pasid: 0)
    try bench.issue(device, 0x10, write: 1, pasid: 0)
    try bench.issue(device, 0x11, pasid: 0)
    bench.settle()
    #expect(bench.answers(device).map(\.status) == [.success, .refused, .refused])
    #expect(bench.answers(device)[0].value == 41)
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
    try bench.finish([device])
    try bench.issue(device, 0x10, pasid: 0)
    bench.settle()
    #expect(bench.answers(device).last?.value == 41)
    #expect(bench.kinds == [])
    let answer = try bench.translate(device, 0, 0x10)
    try bench.start(.unmap(domain, PageRange(first: 0x10, count: 1)))
    try bench.finish([device])
    _ = try bench.dma(device, 0, 0x10, at: answer.physicalAddress)
    #expect(bench.kinds == [.usedAfterCompletion])
  }

  @Test func `IDENTITY answers with the address itself, BLOCKED refuses all, and neither is judged stale`() throws {
    var bench = Bench()
    let device = try bench.device()
    guard case .domain(let identity) = try bench.apply(.createDomain(.identity)) else { throw Surprise() }
    guard case .domain(let blocked) = try bench.apply(.createDomain(.blocked)) else { throw Surprise() }
    try bench.apply(.attach(device, 1, .domain(identity)))
    try bench.apply(.attach(device, 2, .domain(blocked)))
    #expect(bench.refusal(.attach(device, 2, .domain(identity))) == .pasidTaken)
    let answer = try bench.translate(device, 1, 0x80)
    #expect(answer.physicalAddress == 0x80 << 12)
    #expect(try bench.translate(device, 1, 256).rights == [], "beyond memory")
    #expect(try bench.dma(device, 1, 0x80, at: 0x80 << 12, write: 3).status == .success)
    #expect(try bench.translate(device, 2, 0x80).status == .unsupportedRequest)
    #expect(try bench.dma(device, 2, 0x80, at: 0x80 << 12).status == .refused)
    #expect(try bench.dma(device, 1, 0x80, at: 1 << 40).status == .unsupportedRequest)
    try bench.issue(device, 0x80, pasid: 3)
    bench.settle()
    #expect(bench.answers(device).last?.status == .refused, "nothing is attached there")
    #expect(bench.kinds == [.forgedTranslation], "the address beyond memory, which it was never given")
    #expect(bench.refusal(.start(.unmap(identity, PageRange(first: 0, count: 1)))) == .wrongDomainKind)
  }

  @Test func `a device never writes into a page table, whatever it was granted`() throws {
    var bench = Bench()
    let space = try bench.addressSpace()
    let device = try bench.device()
    guard case .domain(let identity) = try bench.apply(.createDomain(.identity)) else { throw Surprise() }
    try bench.apply(.attach(device, 1, .domain(identity)))
    let root = UInt64(bench.machine.spaces[space].root)
    #expect(try bench.translate(device, 1, root).rights == .readWrite)
    #expect(try bench.dma(device, 1, root, at: root << 12, write: 3).status == .blocked)
    #expect(bench.machine.memory.load(FrameNumber(root), 0) == 0)
  }

  // MARK: Large pages

  @Test(arguments: [UInt8(21), 30]) func `a large leaf is faulted in, granted whole, used inside, and not split`(
    sizeLog2: UInt8
  ) throws {
    let pages = UInt64(1) << UInt64(sizeLog2 - 12)
    var bench = Bench { $0.frameCount = UInt32(pages) * 2 + 64 }
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, .invalidateRange)))
    #expect(
      bench.refusalCheap(.start(.mmap(space, PageRange(first: 8, count: pages), .readWrite, pageSizeLog2: sizeLog2)))
        == .misaligned)
    try bench.startCheap(.mmap(space, PageRange(first: pages, count: pages), .readWrite, pageSizeLog2: sizeLog2))
    let page = pages + 0x123
    try bench.applyCheap(
      .pageRequest(device, PageRequest(pasid: 5, page: page, rights: .readWrite, groupIndex: 1, last: true)))
    try bench.applyCheap(.translate(device, TranslationRequest(tag: 1, pasid: 5, page: page, noWrite: false)))
    guard case .translation(_, let answer)? = bench.seen.last else { throw Surprise() }
    #expect(answer.sizeLog2 == sizeLog2)
    #expect(answer.physicalAddress % (pages << 12) == 0)
    #expect(bench.machine.caches.translations.slots.contains { bench.machine.caches.translations.entry(at: $0) != nil })
    for offset in [UInt64(0), 0x123, pages - 1] {
      try bench.applyCheap(
        .dma(
          device,
          DMARequest(
            tag: 1, write: true, translated: true, pasid: 5, address: answer.physicalAddress + offset << 12,
            page: pages + offset, value: offset + 7)))
      let load = CPUAccess(cpu: 0, kind: .load, address: (pages + offset) << 12)
      let id = try bench.startCheap(.cpuAccess(space, load))
      #expect(bench.outcome(id)?.value == offset + 7)
    }
    #expect(bench.kinds == [])
    for part in [PageRange(first: pages, count: 1), PageRange(first: pages + 1, count: pages - 1)] {
      #expect(bench.refusalCheap(.start(.munmap(space, part))) == .splitsHugePage)
      #expect(bench.refusalCheap(.start(.dontNeed(space, part))) == .splitsHugePage)
      #expect(bench.refusalCheap(.start(.mprotect(space, part, .read))) == .splitsHugePage)
    }
    let munmap = try bench.startCheap(.munmap(space, PageRange(first: pages, count: pages)))
    #expect(bench.owed(device).map(\.sizeLog2) == [sizeLog2])
    #expect(bench.counters.liveHits == 1)
    while bench.outcome(munmap) == nil {
      try bench.applyCheap(.complete(device, itagVector: .max))
    }
    try bench.applyCheap(
      .dma(
        device,
        DMARequest(tag: 1, write: true, translated: true, pasid: 5, address: answer.physicalAddress, page: pages)))
    #expect(bench.kinds == [.usedAfterCompletion])
    #expect(bench.machine.memory.isFree(FrameNumber(answer.physicalAddress >> 12) + 0x123))
  }

  @Test func `a COW break of a 2 MiB page copies all of it`() throws {
    var bench = Bench { $0.frameCount = 2048 }
    let space = try bench.addressSpace()
    try bench.start(.mmap(space, PageRange(first: 512, count: 512), .readWrite, pageSizeLog2: 21))
    try bench.store(space, 512, 1)
    try bench.store(space, 1023, 2)
    let fork = try bench.start(.fork(space))
    bench.settle()
    let child = AddressSpaceID(rawValue: UInt32(try #require(bench.outcome(fork)).value))
    try bench.store(space, 600, 3)
    #expect(try [bench.load(space, 512), bench.load(space, 600), bench.load(space, 1023)] == [1, 3, 2])
    #expect(try [bench.load(child, 512), bench.load(child, 600), bench.load(child, 1023)] == [1, 0, 2])
  }

  // MARK: Memory

  @Test(arguments: RecycleOrder.allCases) func `frames come back in the order that was set`(order: RecycleOrder) throws
  {
    var bench = Bench { $0.recycleOrder = order }
    let space = try bench.addressSpace()
    try bench.map(space, 0x100, 32)
    func frame(_ page: PageNumber) -> FrameNumber { bench.machine.spaces[space].references.find(page, level: 0)!.frame }
    for page in UInt64(0x100)..<0x120 { try bench.store(space, page, 1) }
    let freed = (UInt64(0x100)..<0x108).map(frame)
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 8)))
    bench.settle()
    for page in UInt64(0x100)..<0x108 { try bench.store(space, page, 1) }
    let given = (UInt64(0x100)..<0x108).map(frame)
    switch order {
    case .lastInFirstOut: #expect(given == freed.reversed())
    case .firstInFirstOut: #expect(given == freed)
    case .random:
      #expect(given.sorted() == freed.sorted())
      #expect(given != freed && given != freed.reversed())
    }
  }

  @Test func `a write that nobody accounts for is found when its frame is freed, and has no explanation`() throws {
    var (bench, space, _) = try Bench.shared(.none)
    try bench.store(space, 0x100, 1)
    let frame = bench.machine.spaces[space].references.find(0x100, level: 0)!.frame
    bench.machine.memory.storeUnaccounted(frame, 3, 0xbad)
    bench.effects.removeAll()
    _ = try bench.machine.apply(
      .start(.dontNeed(space, PageRange(first: 0x100, count: 1))), at: 0, into: &bench.effects)
    bench.machine.run(until: 0, limit: 1000, into: &bench.effects)
    #expect(bench.effects.counters.corruptedFrames == 1)
    #expect(bench.effects.counters.unexplainedCorruptions == 1)
    bench.machine.memory.storeUnaccounted(frame, 5, 0xbad)
    bench.effects.removeAll()
    try bench.store(space, 0x100, 2)
    #expect(bench.counters.corruptedFrames == 1, "in its free time, too")
  }

  @Test(arguments: OracleAction.allCases) func `a wrong write is recorded, and then performed, blocked or poisoned`(
    action: OracleAction
  ) throws {
    var (bench, space, device) = try Bench.shared(.none) { $0.oracleAction = action }
    let answer = try bench.grant(device, 0x100)
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    let write = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 77)
    let read = try bench.dma(device, 5, 0x100, at: answer.physicalAddress)
    #expect(bench.kinds == [.staleDMA, .staleDMA])
    try bench.store(space, 0x101, 1)
    #expect(bench.counters.corruptedFrames == (action == .perform ? 1 : 0))
    #expect(bench.counters.unexplainedCorruptions == 0)
    #expect(write.status == (action == .block ? .blocked : .success))
    #expect(read.value == (action == .perform ? 77 : action == .poison ? 0xdead_beef_dead_beef : 0))
  }

  // MARK: A value

  /// A machine in the middle of things: pending steps, owed invalidations, faults in service, DMA in flight.
  func busy() throws -> (Bench, AddressSpaceID, DeviceID) {
    var (bench, space, device) = try Bench.shared(.invalidateRange) {
      $0.costs = CostModel()
      $0.hold = 500
    }
    bench.run(until: 100_000)
    try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .touch, address: 0x100 << 12, pageCount: 12)))
    bench.run(until: 300_000)
    let answer = try bench.translate(device, 5, 0x100)
    try bench.issue(device, 0x100, at: answer.physicalAddress, write: 1)
    try bench.issue(device, 0x101, write: 1)
    try bench.send(device, 0x10e, index: 1)
    try bench.start(.fork(space))
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
    return (bench, space, device)
  }

  @Test func `run(until:limit:) equals repeated single turns, wherever it is cut`() throws {
    let (start, _, _) = try busy()
    var whole = start.machine
    var effects = Effects()
    let turns = whole.run(until: .max, limit: .max, into: &effects)
    #expect(turns > 10)
    var single = start.machine
    var more = Effects()
    for _ in 0..<turns { single.applyNext(at: single.nextDue()!, into: &more) }
    #expect(single.stateHash() == whole.stateHash())
    #expect(more.list == effects.list && more.verdicts == effects.verdicts)
    for limit in 1..<turns {
      var cut = start.machine
      var parts = Effects()
      while cut.run(until: .max, limit: limit, into: &parts) == limit {}
      #expect(cut.stateHash() == whole.stateHash())
      #expect(parts.list == effects.list && parts.verdicts == effects.verdicts)
    }
    var named = start.machine
    var byName = Effects()
    while let next = named.enabledTurns().first {
      #expect(named.apply(pending: next.sequence, at: next.due, into: &byName))
    }
    #expect(named.stateHash() == whole.stateHash())
    #expect(!named.apply(pending: 1, at: 0, into: &byName))
  }

  @Test func `a sum of counters adds every counter that has a name, and all of them have one`() {
    var sum = Counters()
    var more = Counters()
    for (index, (_, path)) in Counters.named.enumerated() {
      sum[keyPath: path] = UInt64(index)
      more[keyPath: path] = UInt64(1000 * index + 1)
    }
    sum.add(more)
    for (index, (name, path)) in Counters.named.enumerated() {
      #expect(sum[keyPath: path] == UInt64(1001 * index + 1), "\(name)")
    }
    #expect(Counters.named.count == MemoryLayout<Counters>.size / MemoryLayout<UInt64>.size)
  }

  @Test func `a copy of a machine is another machine`() throws {
    let (start, space, device) = try busy()
    let before = start.machine.stateHash()
    var copy = start
    try copy.finish([device])
    try copy.start(.exit(space))
    try copy.finish([device])
    #expect(start.machine.stateHash() == before)
    var again = start
    try again.finish([device])
    try again.start(.exit(space))
    try again.finish([device])
    #expect(again.machine.stateHash() == copy.machine.stateHash())
  }

  @Test func `a refused command of every kind leaves state and time as they were`() throws {
    var (bench, space, device) = try busy()
    let ghost = DeviceID(rawValue: 0x7_0001)
    let nowhere = AddressSpaceID(rawValue: 0x7_0001)
    let no = DomainID(rawValue: 0x7_0001)
    let range = PageRange(first: 0x100, count: 1)
    let wide = PageRange(first: 1 << 35, count: 1)
    let endless = PageRange(first: 1, count: .max)
    let cases: [(Command, Refusal.Reason)] = [
      (.start(.munmap(nowhere, range)), .unknownAddressSpace),
      (.start(.munmap(space, PageRange(first: 1, count: 0))), .emptyRange),
      (.start(.munmap(space, wide)), .rangeOutsideAddressSpace),
      (.start(.dontNeed(space, endless)), .rangeOutsideAddressSpace),
      (.start(.dontNeed(space, PageRange(first: 0x900, count: 1))), .noAreaInRange),
      (.start(.mmap(space, range, .read, pageSizeLog2: 12)), .overlapsArea),
      (.start(.mmap(space, PageRange(first: 0x900, count: 1), .read, pageSizeLog2: 13)), .misaligned),
      (.start(.cpuAccess(space, CPUAccess(cpu: 9, kind: .load, address: 0))), .cpuOutOfRange),
      (.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 4))), .misaligned),
      (.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: .max & ~7))), .rangeOutsideAddressSpace),
      (.start(.unmap(no, range)), .unknownDomain), (.start(.detach(device, 6)), .pasidNotAttached),
      (.destroyDomain(no), .unknownDomain),
      (.map(DomainMapping(domain: no, range: range, rights: .read)), .unknownDomain),
      (.registerDevice(DeviceProfile(rid: 8)), .ridTaken),
      (.registerDevice(DeviceProfile(rid: 9, ats: false)), .atsDisabled),
      (.registerDevice(DeviceProfile(rid: 9, priAllocation: 0)), .allocationTooLarge),
      (.removeDevice(ghost), .unknownDevice),
      (.attach(device, 5, .addressSpace(space, .none)), .pasidTaken),
      (.attach(device, 1 << 20, .domain(no)), .pasidOutOfRange),
      (.enablePRI(device, allocation: 1), .priEnabled),
      (.translate(ghost, TranslationRequest(tag: 0, pasid: 0, page: 0, noWrite: true)), .unknownDevice),
      (.dma(device, DMARequest(tag: 0, write: true, translated: true, pasid: 0, address: 4, page: 0)), .misaligned),
      (.complete(ghost, itagVector: 1), .unknownDevice), (.giveUp(device, 5, 0x100, .read), .retriesLeft),
    ]
    for (command, reason) in cases { #expect(bench.refusal(command) == reason, "\(command)") }
  }
}

/// Without the check of the whole structure, which looks at every frame: for machines of many frames.
extension Bench {
  mutating func applyCheap(_ command: Command) throws {
    effects.removeAll()
    _ = try machine.apply(command, at: machine.time, into: &effects)
    settleCheap()
  }
  @discardableResult
  mutating func startCheap(_ request: OperationRequest) throws -> OperationID {
    effects.removeAll()
    guard case .operation(let id) = try machine.apply(.start(request), at: machine.time, into: &effects) else {
      throw Surprise()
    }
    settleCheap()
    return id
  }
  private mutating func settleCheap() {
    machine.run(until: machine.time, limit: 1_000_000, into: &effects)
    seen += effects.list
    verdicts += effects.verdicts
    counters.add(effects.counters)
  }
  mutating func refusalCheap(_ command: Command) -> Refusal.Reason? {
    do throws(Refusal) {
      _ = try machine.apply(command, at: machine.time, into: &effects)
      return nil
    } catch {
      return error.reason
    }
  }
}
