// SPDX-License-Identifier: Apache-2.0
// Goal: a huge page goes into a device's memory as one and comes back as one; where it cannot, in parts, with all that was
// in it.
@testable import IOMMUModel
import Testing

@Suite struct HugeDeviceMemoryTests {
  let block = PageRange(first: 0x200, count: 512)
  let written: [PageNumber] = [0x200, 0x201, 0x2ff, 0x300, 0x3ff]

  /// A device that shares an address space with one huge page.
  func bench(frames: UInt32 = 2048) throws -> (Bench, AddressSpaceID, DeviceID) {
    var bench = Bench {
      $0.frameCount = frames
      $0.kernel = .now
    }
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, .secondaryTLB)))
    try bench.map(space, block.first, block.count)
    for page in written { try bench.store(space, page, page) }
    #expect(try run(&bench, .range(.collapse, space, block), device)?.value == 512)
    return (bench, space, device)
  }

  func run(_ bench: inout Bench, _ request: OperationRequest, _ device: DeviceID) throws -> OperationOutcome? {
    let id = try bench.start(request)
    try bench.finish([device])
    return bench.outcome(id)
  }

  func expectData(_ bench: inout Bench, _ space: AddressSpaceID, moved: UInt64 = 0, except gone: PageNumber? = nil)
    throws
  {
    for page in written { #expect(try bench.load(space, page &+ moved, cpu: 1) == (page == gone ? 0 : page)) }
  }

  func free(_ bench: Bench) -> Int { bench.machine.memory.freeCount + 512 * bench.machine.memory.freeBlockList.count }

  func entry(_ bench: Bench, _ space: AddressSpaceID, _ page: PageNumber) -> (level: UInt8, isDevicePrivate: Bool) {
    let (position, entry) = bench.machine.locate(bench.machine.spaces[space].root, page)
    return (position.level, entry.isDevicePrivate)
  }

  @Test func `a huge page goes as one inside one S and E, and a touch brings it back as one`() throws {
    var (bench, space, device) = try bench()
    _ = try bench.grant(device, 0x203)
    let free = free(bench)
    let migration = try bench.start(.range(.migrateToDevice, space, block))
    try bench.finish([device])
    #expect(bench.outcome(migration)?.value == 512)
    #expect(
      bench.letters(of: migration) == [
        .start, .entries, .cpuFlush, .flushSite, .flushed, .entries, .end, .entries, .framesFreed,
      ])
    #expect(entry(bench, space, 0x203) == (1, true))
    #expect(try bench.translate(device, 5, 0x203).rights == [])
    #expect(try run(&bench, .range(.migrateToDevice, space, block), device)?.status == .busy)
    let load = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x3ff << 12)))
    try bench.finish([device])
    #expect(bench.letters(of: load) == [.start, .entries, .entries, .end])
    #expect(bench.outcome(load)?.value == 0x3ff)
    #expect(entry(bench, space, 0x203) == (1, false))
    #expect(self.free(bench) == free)
    try expectData(&bench, space)
    #expect(try bench.grant(device, 0x203).sizeLog2 == 21)
    #expect(bench.verdicts.isEmpty)
  }

  @Test(arguments: [PageRange(first: 0x100, count: 512), PageRange(first: 0x300, count: 512)])
  func `a huge page that the range cuts is split, and the part inside goes page by page`(range: PageRange) throws {
    var (bench, space, device) = try bench()
    let count = UInt64(written.count { range.contains($0) })
    #expect(try run(&bench, .range(.migrateToDevice, space, range), device)?.value == 256)
    #expect(bench.machine.spaces[space].deposits.count == 0)
    #expect(written.count { entry(bench, space, $0) == (0, true) } == Int(count))
    try expectData(&bench, space)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `without a free block a huge page is split, and goes page by page`() throws {
    var (bench, space, device) = try bench(frames: 1200)
    #expect(try run(&bench, .range(.migrateToDevice, space, block), device)?.value == 512)
    #expect(bench.machine.spaces[space].deposits.count == 0)
    #expect((block.first..<block.end).allSatisfy { entry(bench, space, $0) == (0, true) })
    try expectData(&bench, space)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `without a free block a touch splits the huge page in the device's memory, and one part comes back`()
    throws
  {
    var (bench, space, device) = try bench(frames: 1700)
    #expect(try run(&bench, .range(.migrateToDevice, space, block), device)?.value == 512)
    // hugetlb takes the block that has become free.
    try bench.start(.mmap(space, PageRange(first: 0x1000, count: 512), .readWrite, pageSizeLog2: 21))
    try bench.store(space, 0x1000, 1)
    let load = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x300 << 12)))
    try bench.finish([device])
    #expect(bench.outcome(load)?.value == 0x300)
    #expect(bench.letters(of: load).filter { $0 == .start }.count == 2, "one for the split, one for the page")
    #expect(entry(bench, space, 0x300) == (0, false))
    #expect((block.first..<block.end).count { entry(bench, space, $0) == (0, true) } == 511)
    #expect(try bench.request(device, 5, 0x201) == .success)
    #expect(try bench.translate(device, 5, 0x201).rights == .readWrite)
    try expectData(&bench, space)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `a page request splits the huge page too, and is answered when its page is there`() throws {
    var (bench, space, device) = try bench(frames: 1700)
    #expect(try run(&bench, .range(.migrateToDevice, space, block), device)?.value == 512)
    try bench.start(.mmap(space, PageRange(first: 0x1000, count: 512), .readWrite, pageSizeLog2: 21))
    try bench.store(space, 0x1000, 1)
    #expect(try bench.request(device, 5, 0x201) == .success)
    #expect(entry(bench, space, 0x201) == (0, false))
    #expect(bench.counters.membersServed == 1)
  }

  @Test func `a fork, an munmap of a part and an mremap split it in the device's memory`() throws {
    var (bench, space, device) = try bench(frames: 4096)
    #expect(try run(&bench, .range(.migrateToDevice, space, block), device)?.value == 512)
    let fork = try run(&bench, .fork(space), device)
    let child = AddressSpaceID(rawValue: UInt32(try #require(fork).value))
    #expect(entry(bench, space, 0x200) == (0, true))
    try bench.store(space, 0x200, 1)
    try expectData(&bench, child)
    #expect(try bench.load(space, 0x200) == 1)

    (bench, space, device) = try self.bench()
    #expect(try run(&bench, .range(.migrateToDevice, space, block), device)?.value == 512)
    #expect(
      try run(&bench, .munmap(space, PageRange(first: 0x300, count: 0x80)), device)?.status == .success)
    #expect(try bench.load(space, 0x2ff) == 0x2ff)
    #expect(try bench.load(space, 0x3ff) == 0x3ff)
    #expect(try run(&bench, .exit(space), device)?.status == .success)
    #expect(free(bench) == 2047)
  }

  @Test(arguments: [0x800, 0x801] as [PageNumber])
  func `mremap takes it along whole where it can`(destination: PageNumber) throws {
    var (bench, space, device) = try bench()
    #expect(try run(&bench, .range(.migrateToDevice, space, block), device)?.value == 512)
    #expect(try run(&bench, .move(.mremap, space, block, to: destination), device)?.status == .success)
    #expect(entry(bench, space, destination) == (destination == 0x800 ? 1 : 0, true))
    try expectData(&bench, space, moved: destination - 0x200)
    #expect(bench.verdicts.isEmpty)
  }

  @Test(arguments: [OperationKind.dontNeed, .numaHint])
  func `who would split a huge page waits until its migration is over`(kind: OperationKind) throws {
    var (bench, space, device) = try bench()
    let gate = try bench.subscribe(space, .gruLike)
    let migration = try bench.start(.range(.migrateToDevice, space, block))
    bench.settle()
    let part = try bench.start(.range(kind, space, PageRange(first: 0x300, count: 1)))
    bench.settle()
    #expect(bench.events(gate).count == 1, "the migration's start alone")
    while bench.outcome(part) == nil {
      try bench.answerAll([gate])
      try bench.finish([device])
    }
    #expect(bench.outcome(migration)?.value == 512)
    #expect(bench.machine.pageLocks.held.isEmpty && bench.machine.tableLocks.held.isEmpty)
    try bench.apply(.unsubscribe(gate))
    try expectData(&bench, space, except: kind == .dontNeed ? 0x300 : nil)
  }

  @Test func `a split that meets a migration behind its start leaves the page alone`() throws {
    var (bench, space, device) = try bench()
    let gate = try bench.subscribe(space, .gruLike)
    let split = try bench.start(.range(.splitPages, space, block))
    bench.settle()
    let migration = try bench.start(.range(.migrateToDevice, space, block))
    bench.settle()
    #expect(bench.events(gate).count == 2)
    while bench.outcome(split) == nil || bench.outcome(migration) == nil {
      try bench.answerAll([gate])
      try bench.finish([device])
    }
    #expect(bench.outcome(split)?.status == .busy)
    #expect(bench.outcome(migration)?.value == 512)
    #expect(entry(bench, space, 0x200) == (1, true))
    try bench.apply(.unsubscribe(gate))
    try expectData(&bench, space)
  }

  @Test func `a zap takes the page from a migration that is under way, and nothing is left behind`() throws {
    var (bench, space, device) = try bench()
    let free = free(bench)
    let gate = try bench.subscribe(space, .gruLike)
    let migration = try bench.start(.range(.migrateToDevice, space, block))
    bench.settle()
    let zap = try bench.start(.dontNeed(space, block))
    bench.settle()
    while bench.outcome(zap) == nil || bench.outcome(migration) == nil {
      try bench.answerAll([gate])
      try bench.finish([device])
    }
    #expect(bench.outcome(migration)?.status == .busy || bench.outcome(migration)?.value == 512)
    #expect(self.free(bench) == free + 513, "the block and the table that was kept for it")
    #expect(try bench.load(space, 0x200) == 0)
  }

  @Test func `the owner of a migration is told of a split before it, as of any other`() throws {
    var (bench, space, device) = try bench()
    let profile = SubscriberProfile(kind: .interval, owner: 7)
    guard case .subscriber(let id, _, _) = try bench.apply(.subscribe(space, profile)) else { throw Surprise() }
    try bench.apply(.takePages(id, .migrateToDevice, PageRange(first: 0x200, count: 1)))
    bench.settle()
    var events: [NotifierEvent] = []
    while bench.faults.isEmpty {
      events += try bench.answerAll([id])
      try bench.finish([device])
    }
    #expect(events.map(\.reason) == [.clear, .migrate])
    #expect(events.map(\.owner) == [0, 7])
    #expect(events.map(\.range.count) == [512, 1])
  }

  @Test func `a driver is handed every page of the block, as parts of one`() throws {
    var (bench, space, device) = try bench()
    let profile = SubscriberProfile(kind: .interval, owner: 7)
    guard case .subscriber(let id, _, _) = try bench.apply(.subscribe(space, profile)) else { throw Surprise() }
    try bench.apply(.takePages(id, .migrateToDevice, block))
    bench.settle()
    try bench.answerAll([id])
    try bench.finish([device])
    let answer = try #require(bench.faults.last)
    #expect(answer.pages.allSatisfy { $0.sizeLog2 == 21 && $0.rights == .readWrite })
    #expect(answer.pages[511].physicalAddress == answer.pages[0].physicalAddress + 511 << 12)
    try bench.install(id, answer)
    try bench.use(id, 0x3ff, answer.pages[511].physicalAddress, write: 9)
    #expect(bench.verdicts.isEmpty)
    let load = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x3ff << 12)))
    bench.settle()
    try bench.answerAll([id])
    #expect(bench.outcome(load)?.value == 9)
    try bench.use(id, 0x3ff, answer.pages[511].physicalAddress)
    #expect(bench.kinds == [.mirrorAfterStart])
  }

  // MARK: Where nothing stands

  @Test func `where nothing stands a device gets an empty block, and a touch finds zeros`() throws {
    var (bench, space, device) = try bench(frames: 4096)
    let empty = PageRange(first: 0x800, count: 512)
    try bench.map(space, 0x7f0, 0x220)
    let migration = try bench.start(.range(.migrateToDevice, space, PageRange(first: 0x7ff, count: 514)))
    try bench.finish([device])
    #expect(bench.outcome(migration)?.value == 514)
    #expect(
      bench.letters(of: migration) == [.start, .entries, .end, .start, .entries, .end, .start, .entries, .end])
    #expect(entry(bench, space, 0x7ff) == (0, true))
    #expect(entry(bench, space, 0x900) == (1, true))
    #expect(entry(bench, space, 0xa00) == (0, true))
    #expect(try bench.load(space, 0x9ff) == 0)
    #expect(entry(bench, space, 0x800) == (1, false))
    #expect(try run(&bench, .munmap(space, empty), device)?.status == .success)
    #expect(try run(&bench, .exit(space), device)?.status == .success)
    #expect(free(bench) == 4095)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `what no process may reach, what is a file's and what no area covers stays empty`() throws {
    var (bench, space, device) = try bench(frames: 4096)
    try bench.start(.mmap(space, PageRange(first: 0x800, count: 4), [], pageSizeLog2: 12))
    guard case .file(let file) = try bench.apply(.createFile(pageCount: 4)) else { throw Surprise() }
    try bench.start(.mmapFile(space, PageRange(first: 0x808, count: 4), .readWrite, FileMapping(file, isShared: false)))
    bench.settle()
    let range = PageRange(first: 0x7f0, count: 0x100)
    #expect(try run(&bench, .range(.migrateToDevice, space, range), device)?.status == .busy)
    try bench.map(space, 0x80c, 1)
    #expect(try run(&bench, .range(.migrateToDevice, space, range), device)?.value == 1)
  }

  @Test(arguments: [PageRange(first: 0x840, count: 1), PageRange(first: 0x800, count: 512)])
  func `a fault that is first in the slot keeps it`(range: PageRange) throws {
    var (bench, space, device) = try bench(frames: 4096)
    try bench.map(space, 0x800, 512)
    let gate = try bench.subscribe(space, .gruLike)
    let migration = try bench.start(.range(.migrateToDevice, space, range))
    bench.settle()
    #expect(bench.events(gate).map(\.range) == [range])
    try bench.store(space, 0x840, 7)
    try bench.answerAll([gate])
    try bench.finish([device])
    #expect(bench.outcome(migration)?.status == .busy)
    #expect(try bench.load(space, 0x840) == 7)
    #expect(free(bench) == 4095 - 512 - 4 - 2, "nothing of it is left but tables")
  }

  @Test func `with few frames the slots that find none stay empty`() throws {
    var (bench, space, device) = try Bench.shared(.secondaryTLB) {
      $0.kernel = .now
      $0.frameCount = 16
    }
    // Of memory that is full, each page would be looked at.
    try bench.map(space, 0x1000, 1 << 34)
    let value = try run(&bench, .range(.migrateToDevice, space, PageRange(first: 0x100, count: 1 << 34)), device)?.value
    #expect(value == 16 - 1 - 4, "frame 0, the root and three tables are no data")
  }

  @Test func `a slot whose page a device may still use stays empty until the flush`() throws {
    var (bench, space, device) = try Bench.shared(.deferredHeld) { $0.kernel = .now }
    let page = PageRange(first: 0x100, count: 1)
    try bench.store(space, 0x100, 1)
    let held = try bench.grant(device, 0x100).physicalAddress
    let zap = try bench.start(.dontNeed(space, page))
    bench.settle()
    #expect(bench.outcome(zap)?.status == .success)
    _ = try bench.dma(device, 5, 0x100, at: held, write: 2)
    let early = try bench.start(.range(.migrateToDevice, space, page))
    bench.settle()
    // Its E asks for a flush of its own, which no time must pass for.
    try bench.completeAll(device)
    #expect(bench.outcome(early)?.status == .busy)
    bench.run(until: bench.machine.time + bench.machine.settings.flushQueueTimeout)
    try bench.finish([device])
    #expect(try run(&bench, .range(.migrateToDevice, space, page), device)?.value == 1)
    let load = OperationRequest.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x100 << 12))
    #expect(try run(&bench, load, device)?.value == 0)
    #expect(bench.verdicts.isEmpty)
  }
}
