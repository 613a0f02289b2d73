// SPDX-License-Identifier: Apache-2.0
// Goal: what each memory operation does to pages, data and areas, beside its order, which OperationTableTests hold.
@testable import IOMMUModel
import Testing

@Suite struct MemoryOperationTests {
  let area = PageRange(first: 0x100, count: 16)

  func outcome(_ bench: inout Bench, _ request: OperationRequest, _ devices: [DeviceID] = []) throws
    -> OperationOutcome?
  {
    let id = try bench.start(request)
    try bench.finish(devices)
    return bench.outcome(id)
  }

  @Test(arguments: KernelColumn.allCases)
  func `mremap moves data over table borders, and the old addresses are gone`(column: KernelColumn) throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.kernel = column }
    // 0x100… lies in one table; 0x5fa… lies in two.
    for page in area.first..<area.end where page % 3 != 0 { try bench.store(space, page, page * 7) }
    #expect(try outcome(&bench, .move(.mremap, space, area, to: 0x5fa), [device])?.status == .success)
    for page in area.first..<area.end {
      #expect(try bench.load(space, page - 0x100 + 0x5fa) == (page % 3 != 0 ? page * 7 : 0))
    }
    let gone = try outcome(&bench, .cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x100 << 12)), [device])
    #expect(gone?.status == .accessDenied)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `mremap of part of an area cuts it, and is refused onto another area, onto itself and to a hole`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.store(space, 0x104, 4)
    try bench.store(space, 0x10f, 15)
    #expect(
      try outcome(&bench, .move(.mremap, space, PageRange(first: 0x104, count: 4), to: 0x400), [device])?.status
        == .success)
    #expect(try bench.load(space, 0x400) == 4)
    #expect(try bench.load(space, 0x10f) == 15)
    #expect(
      bench.machine.spaces[space].areas.list.map(\.range) == [
        PageRange(first: 0x100, count: 4), PageRange(first: 0x108, count: 8), PageRange(first: 0x400, count: 4),
      ])
    #expect(bench.refusal(.start(.move(.mremap, space, PageRange(first: 0x100, count: 4), to: 0x402))) == .overlapsArea)
    #expect(
      bench.refusal(.start(.move(.mremap, space, PageRange(first: 0x100, count: 4), to: 0x102))) == .overlapsSource)
    #expect(
      bench.refusal(.start(.move(.mremap, space, PageRange(first: 0x104, count: 4), to: 0x500))) == .noAreaInRange)
    #expect(
      bench.refusal(.start(.move(.mremap, space, PageRange(first: 0x100, count: 4), to: PageRange.all.end - 2)))
        == .rangeOutsideAddressSpace)
  }

  @Test func `mremap moves a huge page by whole blocks only`() throws {
    var bench = Bench { $0.frameCount = 4096 }
    let space = try bench.addressSpace()
    try bench.start(.mmap(space, PageRange(first: 0x200, count: 0x200), .readWrite, pageSizeLog2: 21))
    bench.settle()
    try bench.store(space, 0x203, 9)
    let whole = PageRange(first: 0x200, count: 0x200)
    #expect(
      bench.refusal(.start(.move(.mremap, space, PageRange(first: 0x200, count: 0x100), to: 0x1000))) == .splitsHugePage
    )
    #expect(bench.refusal(.start(.move(.mremap, space, whole, to: 0x1010))) == .misaligned)
    #expect(try outcome(&bench, .move(.mremap, space, whole, to: 0x1000))?.status == .success)
    #expect(try bench.load(space, 0x1003) == 9)
  }

  @Test func `a NUMA hint takes all rights, and a fault brings back those that were there`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    let answer = try bench.grant(device, 0x100)
    #expect(try outcome(&bench, .range(.numaHint, space, area), [device])?.status == .success)
    #expect(try bench.translate(device, 5, 0x100).rights == [])
    #expect(try bench.request(device, 5, 0x100) == .success)
    #expect(try bench.translate(device, 5, 0x100).physicalAddress == answer.physicalAddress)
    #expect(try bench.translate(device, 5, 0x100).rights == .readWrite)
    #expect(bench.counters.needlessFaults == 0)
  }

  @Test func `a soft-dirty clear takes the write right of every page, and leaves pages without rights as they are`()
    throws
  {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.map(space, 0x9000, 2)
    for page in [0x100, 0x9000, 0x9001] as [PageNumber] { try bench.store(space, page, 1) }
    #expect(try outcome(&bench, .mprotect(space, PageRange(first: 0x9001, count: 1), []), [device])?.status == .success)
    #expect(try outcome(&bench, .space(.clearSoftDirty, space), [device])?.status == .success)
    #expect(try bench.translate(device, 5, 0x100).rights == .read)
    #expect(try bench.translate(device, 5, 0x9000).rights == .read)
    #expect(try bench.translate(device, 5, 0x9001).rights == [])
    #expect(try bench.request(device, 5, 0x100) == .success)
    #expect(try bench.translate(device, 5, 0x100).rights == .readWrite)
  }

  @Test func `a young clear counts the pages that were used, once each`() throws {
    var (bench, space, device) = try Bench.shared(.secondaryTLB) { $0.kernel = .now }
    for page in [0x100, 0x101, 0x102] as [PageNumber] { _ = try bench.load(space, page) }
    #expect(try outcome(&bench, .range(.clearYoung, space, area))?.value == 3)
    #expect(try outcome(&bench, .range(.clearYoung, space, area))?.value == 0)
    // What the ATC holds, the Accessed bit does not see: SVA drivers have no young hook any more.
    let answer = try bench.grant(device, 0x101)
    #expect(try outcome(&bench, .range(.clearYoung, space, area))?.value == 1)
    _ = try bench.dma(device, 5, 0x101, at: answer.physicalAddress)
    #expect(try outcome(&bench, .range(.clearYoung, space, area))?.value == 0)
  }

  @Test func `the OOM reaper takes every page, refuses faults from then on, and gives up where the lock is held`()
    throws
  {
    var (bench, space, device) = try Bench.shared(.secondaryTLB) {
      $0.kernel = .now
      $0.costs.end = .constant(1000)
    }
    for page in [0x100, 0x105] as [PageNumber] { try bench.store(space, page, page) }
    let before = bench.machine.memory.freeCount
    let protect = try bench.start(.mprotect(space, area, .read))
    let busy = try bench.start(.space(.oomReap, space))
    #expect(bench.outcome(busy)?.status == .busy)
    try bench.finish([device])
    #expect(bench.outcome(protect)?.status == .success)
    #expect(try outcome(&bench, .space(.oomReap, space), [device])?.status == .success)
    #expect(bench.machine.memory.freeCount == before + 2)
    #expect(try bench.request(device, 5, 0x100) == .invalidRequest)
    let load = try outcome(&bench, .cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x100 << 12)))
    #expect(load?.status == .accessDenied)
    #expect(try outcome(&bench, .exit(space), [device])?.status == .success)
  }

  @Test(arguments: KernelColumn.allCases)
  func `migration gives pages fresh frames with the same data, and passes over shared ones`(column: KernelColumn) throws
  {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.kernel = column }
    for page in area.first..<area.first + 4 { try bench.store(space, page, page) }
    let old = try bench.grant(device, 0x101).physicalAddress
    #expect(try outcome(&bench, .range(.migratePages, space, area), [device])?.value == 4)
    #expect(try bench.translate(device, 5, 0x101).physicalAddress != old)
    for page in area.first..<area.first + 4 { #expect(try bench.load(space, page) == page) }
    #expect(try outcome(&bench, .fork(space), [device])?.status == .success)
    #expect(try outcome(&bench, .range(.migratePages, space, area), [device])?.status == .busy)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `a fault, a fork, an mprotect and a second migration wait for a page under migration`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.costs.frameFree = .constant(1000) }
    try bench.store(space, 0x100, 42)
    let migration = try bench.start(.range(.migratePages, space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    try bench.completeAll(device)
    #expect(bench.outcome(migration) == nil, "the copy takes time")
    #expect(try bench.translate(device, 5, 0x100).rights == [])
    let load = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x100 << 12)))
    let other = try bench.start(.range(.migratePages, space, PageRange(first: 0x100, count: 1)))
    let fork = try bench.start(.fork(space))
    bench.settle()
    #expect(bench.outcome(load) == nil)
    #expect(bench.outcome(fork) == nil)
    #expect(bench.outcome(other)?.status == .busy)
    try bench.finish([device])
    #expect(bench.outcome(migration)?.value == 1)
    #expect(bench.outcome(load)?.value == 42)
    #expect(bench.outcome(fork)?.status == .success)
  }

  @Test func `a munmap takes a migration entry away, and the copy goes unused`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.costs.frameFree = .constant(1000) }
    try bench.store(space, 0x100, 42)
    let before = bench.machine.memory.freeCount
    let migration = try bench.start(.range(.migratePages, space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    try bench.completeAll(device)
    let unmap = try bench.start(.munmap(space, area))
    try bench.finish([device])
    #expect(bench.outcome(unmap)?.status == .success)
    #expect(bench.outcome(migration)?.value == 0)
    // The page, and the table of the area.
    #expect(bench.machine.memory.freeCount >= before + 1)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `an exit waits for who works on the page table without the mmap lock`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.store(space, 0x100, 42)
    let migration = try bench.start(.range(.migratePages, space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    let first = bench.owed(device)[0].itag
    let exit = try bench.start(.exit(space))
    bench.settle()
    // The flush of `release` is completed, that of the migration not yet.
    for invalidation in bench.owed(device) where invalidation.itag != first {
      try bench.apply(.complete(device, itagVector: 1 << UInt32(invalidation.itag)))
    }
    bench.settle()
    #expect(bench.letters(of: exit).contains(.framesFreed))
    #expect(bench.outcome(exit) == nil)
    try bench.finish([device])
    #expect(bench.outcome(migration)?.value == 0)
    #expect(bench.outcome(exit)?.status == .success)
    #expect(!bench.machine.spaces.contains(space))
  }

  @Test func `an exit that waits for its own flush is not woken by another operation's end`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.store(space, 0x100, 42)
    let migration = try bench.start(.range(.migratePages, space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    let first = bench.owed(device)[0].itag
    let exit = try bench.start(.exit(space))
    bench.settle()
    // The migration ends while the flush of `release` is owed. A wake-up now trapped: random commands, release build.
    try bench.apply(.complete(device, itagVector: 1 << UInt32(first)))
    bench.settle()
    #expect(bench.outcome(migration)?.status == .success)
    #expect(bench.outcome(exit) == nil)
    try bench.finish([device])
    #expect(bench.outcome(exit)?.status == .success)
  }

  @Test func `a walk that went on before a page under migration is not woken by that page's release`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) {
      $0.costs.frameFree = .constant(1000)
      $0.costs.entry = .constant(100)
    }
    for page in [0x100, 0x101] as [PageNumber] { try bench.store(space, page, page) }
    bench.run(until: bench.machine.time + 100)
    let second = PageRange(first: 0x101, count: 1)
    let migration = try bench.start(.range(.migratePages, space, second))
    bench.settle()
    while !bench.letters(of: migration).contains(.invalidatePage) {
      bench.run(until: bench.machine.time + 100)
      try bench.completeAll(device)
    }
    // The hint has done 0x100 and stands before the migration entry, when a zap takes that away.
    let hint = try bench.start(.range(.numaHint, space, PageRange(first: 0x100, count: 2)))
    bench.settle()
    #expect(bench.letters(of: hint).contains(.entries))
    try bench.start(.dontNeed(space, second))
    bench.run(until: bench.machine.time + 100)
    let vector = bench.owed(device).filter { $0.range.contains(0x100) }
    #expect(!vector.isEmpty, "the hint waits for its flush while the page is released")
    bench.run(until: bench.machine.time + 5000)
    #expect(bench.outcome(migration)?.value == 0)
    #expect(bench.outcome(hint) == nil)
    try bench.finish([device])
    #expect(bench.outcome(hint)?.status == .success)
  }

  @Test func `KSM makes equal pages one frame, a write breaks them apart, and different pages stay`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    let other = try bench.addressSpace()
    try bench.map(other, 0x100, 16)
    for (page, value) in [(0x100, 5), (0x101, 6)] as [(PageNumber, UInt64)] { try bench.store(space, page, value) }
    for (page, value) in [(0x100, 5), (0x101, 7)] as [(PageNumber, UInt64)] { try bench.store(other, page, value) }
    #expect(
      try outcome(&bench, .ksmReplacePage(space, area, keeper: other, keeperFirst: 0x100), [device])?.status == .busy)
    #expect(try outcome(&bench, .range(.ksmWriteProtect, space, area), [device])?.value == 2)
    #expect(try outcome(&bench, .range(.ksmWriteProtect, other, area), [device])?.value == 2)
    let free = bench.machine.memory.freeCount
    #expect(try outcome(&bench, .ksmReplacePage(space, area, keeper: other, keeperFirst: 0x100), [device])?.value == 1)
    #expect(bench.machine.memory.freeCount == free + 1)
    #expect(try bench.load(space, 0x100) == 5)
    #expect(try bench.load(space, 0x101) == 6)
    let store = OperationRequest.cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: 0x100 << 12, value: 8))
    #expect(try outcome(&bench, store, [device])?.status == .success)
    #expect(try bench.load(other, 0x100) == 5)
    #expect(try bench.load(space, 0x100) == 8)
  }

  @Test
  func `UFFDIO_MOVE moves a page to an absent one of the same address space, and passes over what it cannot move`()
    throws
  {
    var (bench, space, device) = try Bench.shared(.secondaryTLB) { $0.kernel = .now }
    try bench.map(space, 0x2000, 16)
    for page in [0x100, 0x101] as [PageNumber] { try bench.store(space, page, page) }
    try bench.store(space, 0x2001, 1)
    let move = OperationRequest.move(.uffdioMove, space, PageRange(first: 0x100, count: 2), to: 0x2000)
    #expect(try outcome(&bench, move, [device])?.value == 1)
    #expect(try bench.load(space, 0x2000) == 0x100)
    #expect(try bench.load(space, 0x101) == 0x101)
    #expect(try bench.load(space, 0x2001) == 1)
    #expect(try bench.load(space, 0x100) == 0)
    #expect(try outcome(&bench, move, [device])?.status == .busy)
  }

  @Test func `an operation that a kernel does not have is refused`() throws {
    var (bench, space, _) = try Bench.shared(.invalidateRange)
    #expect(bench.refusal(.start(.space(.oomReap, space))) == .notInThisKernel)
    #expect(bench.refusal(.start(.move(.uffdioMove, space, area, to: 0x2000))) == .notInThisKernel)
  }

  // MARK: The historic empty tables

  /// Two DONTNEEDs of one address space, the second one above the gather batch; once `open` has come, the device asks
  /// for its page, and uses what it is given after the pages have been freed.
  func overlap(_ strategy: Strategy, second: Nanoseconds, open: Nanoseconds) throws -> [VerdictKind] {
    var (bench, space, device) = try Bench.shared(strategy) {
      $0.gatherBatch = 2
      $0.hold = 1000
      $0.costs.end = .constant(100)
    }
    for page in [0x100, 0x101, 0x108] as [PageNumber] { try bench.store(space, page, page) }
    let began = bench.machine.time
    try bench.start(.dontNeed(space, PageRange(first: 0x108, count: 1)))
    bench.settle()
    try bench.completeAll(device)
    bench.run(until: began + second)
    let zap = Command.start(.dontNeed(space, PageRange(first: 0x100, count: 2)))
    guard case .operation(let id) = try bench.apply(zap, at: began + second) else { throw Surprise() }
    bench.settle()
    try bench.completeAll(device)
    bench.run(until: began + open)
    try bench.completeAll(device)
    let answer = try bench.translate(device, 5, 0x100)
    while !bench.letters(of: id).contains(.framesFreed) { bench.turn() }
    if !answer.rights.isEmpty { _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 1) }
    return bench.kinds
  }

  @Test func `an uncounted empty table re-opens at the first E of two windows: stale; a counted one does not`() throws {
    #expect(try overlap(.emptyTableUncounted, second: 300, open: 1200) == [.staleDMA])
    #expect(try overlap(.emptyTableRacy, second: 300, open: 1200) == [])
    #expect(try overlap(.emptyTable, second: 300, open: 1200) == [])
  }

  @Test func `the counter without a lock is restored over a new S: stale; with its lock it is not`() throws {
    #expect(try overlap(.emptyTableRacy, second: 1050, open: 1200) == [.staleDMA])
    #expect(try overlap(.emptyTable, second: 1050, open: 1200) == [])
  }
}
