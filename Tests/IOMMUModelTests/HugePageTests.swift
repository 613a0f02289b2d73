// SPDX-License-Identifier: Apache-2.0
// Goal: collapse and split keep what is in memory, every operation takes part of a huge page as it takes small ones, and the
// oracle knows who still reaches what.
@testable import IOMMUModel
import Testing

@Suite struct HugePageTests {
  /// Two blocks of 2 MiB.
  let area = PageRange(first: 0x200, count: 0x400)
  let block = PageRange(first: 0x200, count: 0x200)

  func run(_ bench: inout Bench, _ request: OperationRequest, _ device: DeviceID) throws -> OperationOutcome? {
    let id = try bench.start(request)
    try bench.finish([device])
    return bench.outcome(id)
  }

  /// A device that shares an address space with one huge page, whose first four pages and the last were written.
  func bench(_ strategy: Strategy = .secondaryTLB, _ column: KernelColumn = .now, frames: UInt32 = 2048) throws -> (
    Bench, AddressSpaceID, DeviceID
  ) {
    var bench = Bench {
      $0.frameCount = frames
      $0.recycleOrder = .firstInFirstOut
      $0.kernel = column
    }
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, strategy)))
    try bench.map(space, area.first, area.count)
    for page in written { try bench.store(space, page, page) }
    #expect(try run(&bench, .range(.collapse, space, area), device)?.value == 512, "the second block has no page")
    return (bench, space, device)
  }
  let written: [PageNumber] = [0x200, 0x201, 0x202, 0x203, 0x3ff]

  func expectData(_ bench: inout Bench, _ space: AddressSpaceID, moved: UInt64 = 0, except gone: [PageNumber] = [])
    throws
  {
    for page in written { #expect(try bench.load(space, page &+ moved, cpu: 1) == (gone.contains(page) ? 0 : page)) }
  }

  @Test(arguments: KernelColumn.allCases)
  func `a collapse and a split keep the data, and a device gets a large translation in between`(column: KernelColumn)
    throws
  {
    var (bench, space, device) = try bench(.invalidateRange, column)
    try expectData(&bench, space)
    let large = try bench.grant(device, 0x203)
    #expect(large.sizeLog2 == 21)
    _ = try bench.dma(device, 5, 0x203, at: large.physicalAddress + 3 << 12, write: 7)
    #expect(try run(&bench, .range(.splitPages, space, area), device)?.value == 512)
    #expect(try bench.translate(device, 5, 0x203).sizeLog2 == 12)
    #expect(try bench.load(space, 0x203, cpu: 1) == 7)
    #expect(try run(&bench, .range(.splitPages, space, area), device)?.status == .busy)
    #expect(try run(&bench, .range(.collapse, space, area), device)?.value == 512)
    #expect(try bench.load(space, 0x3ff, cpu: 1) == 0x3ff)
    #expect(bench.verdicts.isEmpty)
  }

  @Test(arguments: KernelColumn.allCases)
  func `an operation that takes part of a huge page splits it first`(column: KernelColumn) throws {
    let part = PageRange(first: 0x202, count: 1)
    for kind in [OperationKind.munmap, .dontNeed, .numaHint] {
      var (bench, space, device) = try bench(.invalidateRange, column)
      let free = bench.machine.memory.freeCount
      #expect(try run(&bench, .range(kind, space, part), device)?.status == .success)
      #expect(bench.machine.spaces[space].deposits.count == 0)
      #expect(bench.machine.memory.freeCount == free + (kind == .numaHint ? 0 : 1))
      if kind == .munmap {
        #expect(try bench.load(space, 0x203, cpu: 1) == 0x203)
      } else {
        try expectData(&bench, space, except: kind == .dontNeed ? [0x202] : [])
      }
      #expect(bench.verdicts.isEmpty)
    }
    var (bench, space, device) = try bench(.invalidateRange, column)
    #expect(try run(&bench, .mprotect(space, part, .read), device)?.status == .success)
    let store = OperationRequest.cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: 0x202 << 12, value: 9))
    #expect(try run(&bench, store, device)?.status == .accessDenied)
    try bench.store(space, 0x201, 0x201)
    try expectData(&bench, space)
  }

  @Test(arguments: [0xa00, 0xa01] as [PageNumber])
  func `mremap moves a huge page whole where it can, and in parts where it must`(destination: PageNumber) throws {
    var (bench, space, device) = try bench()
    #expect(try run(&bench, .move(.mremap, space, block, to: destination), device)?.status == .success)
    #expect(bench.machine.spaces[space].deposits.count == (destination == 0xa00 ? 1 : 0))
    try expectData(&bench, space, moved: destination - 0x200)
    #expect(try run(&bench, .munmap(space, PageRange(first: destination, count: 512)), device)?.status == .success)
    #expect(bench.machine.spaces[space].deposits.count == 0)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `fork splits, both have the data, and an exit frees everything`() throws {
    var (bench, space, device) = try bench()
    let fork = try run(&bench, .fork(space), device)
    let child = AddressSpaceID(rawValue: UInt32(try #require(fork).value))
    try bench.store(space, 0x200, 1)
    try expectData(&bench, child)
    #expect(try run(&bench, .exit(space), device)?.status == .success)
    #expect(try run(&bench, .exit(child), device)?.status == .success)
    #expect(bench.machine.memory.freeCount == 2048 - 1)
  }

  @Test func `parts that were split and freed come together again when a collapse finds no other block`() throws {
    var (bench, space, device) = try bench(frames: 1200)
    for _ in 0..<3 {
      #expect(try run(&bench, .range(.splitPages, space, area), device)?.value == 512)
      for page in written {
        #expect(try run(&bench, .range(.migratePages, space, PageRange(first: page, count: 1)), device)?.value == 1)
      }
      #expect(try run(&bench, .dontNeed(space, PageRange(first: 0x210, count: 0x1e0)), device)?.status == .success)
      #expect(try run(&bench, .dontNeed(space, PageRange(first: 0x204, count: 0xc)), device)?.status == .success)
      #expect(try run(&bench, .dontNeed(space, PageRange(first: 0x3f0, count: 0xf)), device)?.status == .success)
      #expect(try run(&bench, .range(.collapse, space, area), device)?.value == 512)
      try expectData(&bench, space)
    }
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `a large translation stays good after a split, and is stale for the one page that is then taken away`()
    throws
  {
    var (bench, space, device) = try bench(.none)
    let large = try bench.grant(device, 0x200)
    #expect(large.sizeLog2 == 21)
    #expect(try run(&bench, .range(.splitPages, space, block), device)?.value == 512)
    for page in written {
      _ = try bench.dma(device, 5, page, at: large.physicalAddress + (page - 0x200) << 12, write: 1)
    }
    #expect(bench.verdicts.isEmpty)
    #expect(try run(&bench, .dontNeed(space, PageRange(first: 0x201, count: 1)), device)?.status == .success)
    _ = try bench.dma(device, 5, 0x203, at: large.physicalAddress + 3 << 12, write: 1)
    #expect(bench.verdicts.isEmpty)
    _ = try bench.dma(device, 5, 0x201, at: large.physicalAddress + 1 << 12, write: 1)
    #expect(bench.kinds == [.staleDMA])
    // The page comes back, in the same frame: another life, of which the translation knows nothing.
    try bench.store(space, 0x201, 5, cpu: 1)
    _ = try bench.dma(device, 5, 0x201, at: large.physicalAddress + 1 << 12, write: 1)
    #expect(bench.kinds == [.staleDMA, .staleDMA])
  }

  @Test func `a retraction takes the table of a shared file's pages, and the pages come back out of the page cache`()
    throws
  {
    for column in KernelColumn.allCases {
      var bench = Bench {
        $0.frameCount = 2048
        $0.kernel = column
      }
      let space = try bench.addressSpace()
      let device = try bench.device()
      try bench.apply(.attach(device, 5, .addressSpace(space, .secondaryTLB)))
      guard case .file(let file) = try bench.apply(.createFile(pageCount: 512)) else { throw Surprise() }
      try bench.start(.mmapFile(space, block, .readWrite, FileMapping(file, isShared: true)))
      bench.settle()
      for page in written { try bench.store(space, page, page) }
      let answer = try bench.grant(device, 0x200)
      #expect(try run(&bench, .range(.retractTables, space, block), device)?.value == 512)
      #expect(try run(&bench, .range(.retractTables, space, block), device)?.status == .busy)
      if column == .linux2014 {
        // CVE-2022-48991: the device has not been told, and the IOMMU walks through the freed table.
        _ = try bench.translate(device, 5, 0x210)
        _ = try bench.dma(device, 5, 0x200, at: answer.physicalAddress)
        #expect(bench.kinds.contains(.staleWalk) && bench.kinds.contains(.staleDMA))
      } else {
        #expect(try bench.translate(device, 5, 0x210).rights == [])
        #expect(bench.verdicts.isEmpty)
      }
      try expectData(&bench, space)
      #expect(bench.machine.files[file][0].isDirty)
    }
  }
}
