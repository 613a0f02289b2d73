// SPDX-License-Identifier: Apache-2.0
// Goal: address spaces that map the same 1 GiB of a hugetlbfs file share its page table, keep the data, and leave the table
// in time. What breaks it: an entry that only one of them is told of, a table that goes before the last user has flushed.
@testable import IOMMUModel
import Testing

@Suite struct SharedTableTests {
  static let block = PageRange(first: 1 << 18, count: 1 << 18)
  let first = block.first

  struct Scene {
    var bench: Bench
    var spaces: [AddressSpaceID]
    var device: DeviceID
    var file: FileID

    mutating func run(_ request: OperationRequest) throws -> OperationOutcome? {
      let id = try bench.start(request)
      try bench.finish([device])
      return bench.outcome(id)
    }

    /// The table of huge pages on the way to the block; nil: there is none.
    func table(_ index: Int, _ page: PageNumber = SharedTableTests.block.first) -> FrameNumber? {
      let space = bench.machine.spaces[spaces[index]]
      let position = bench.machine.locate(space.root, page).position
      return position.level == 1 ? position.table : nil
    }
    var holders: UInt32 { table(1).map { bench.machine.memory[$0].references } ?? 0 }

    /// What the oracle says of the way through the first space's PASID, after everybody else has let go.
    mutating func use(_ page: PageNumber, at address: UInt64) throws -> [VerdictKind] {
      // Another huge page: no IOTLB has it.
      _ = try bench.translate(device, 5, page + 512)
      _ = try bench.dma(device, 5, page, at: address)
      return bench.kinds
    }
  }

  /// Processes that map a hugetlbfs file of 2 GiB, or a part of it; a device shares the first.
  func scene(
    _ column: KernelColumn = .now, _ strategy: Strategy = .secondaryTLB, processes: Int = 2, frames: UInt32 = 4096,
    area: PageRange = SharedTableTests.block, isShared: Bool = true
  ) throws -> Scene {
    var bench = Bench {
      $0.kernel = column
      $0.frameCount = frames
    }
    let spaces = try (0..<processes).map { _ in try bench.addressSpace() }
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(spaces[0], strategy)))
    guard case .file(let file) = try bench.apply(.createFile(pageCount: 2 << 18, pageSizeLog2: 21)) else {
      throw Surprise()
    }
    for space in spaces {
      try bench.start(.mmapFile(space, area, .readWrite, FileMapping(file, isShared: isShared)))
      bench.settle()
    }
    // A neighbour keeps the tables above.
    try bench.map(spaces[0], 0x100, 1)
    try bench.store(spaces[0], 0x100, 1)
    return Scene(bench: bench, spaces: spaces, device: device, file: file)
  }

  @Test func `a fault takes the table of another process, and what either adds to it both have`() throws {
    var scene = try scene(processes: 3)
    try scene.bench.store(scene.spaces[1], first, 7)
    #expect(try scene.bench.load(scene.spaces[0], first) == 7)
    #expect(scene.table(0) == scene.table(1))
    #expect(scene.holders == 2)
    // The other's page needs no fault here: the table is the same.
    try scene.bench.store(scene.spaces[0], first + 512, 8)
    scene.bench.machine.checkInvariants()
    #expect(try scene.bench.translate(scene.device, 5, first + 512).sizeLog2 == 21)
    #expect(try scene.bench.load(scene.spaces[1], first + 512) == 8)
    #expect(try scene.bench.load(scene.spaces[2], first + 512) == 8)
    #expect(scene.holders == 3)
    scene.bench.machine.checkInvariants()
    for space in scene.spaces { #expect(try scene.run(.exit(space))?.status == .success) }
    #expect(try scene.bench.apply(.deleteFile(scene.file)) == .none)
    #expect(scene.bench.machine.memory.freeBlockList.count == 2)
    #expect(scene.bench.machine.memory.freeCount == 4096 - 1 - 2 * 512)
    #expect(scene.bench.verdicts.isEmpty)
  }

  @Test func `nobody shares a private mapping, a part of 1 GiB, another place of the file, or other rights`() throws {
    var own = try scene(isShared: false)
    for space in own.spaces { try own.bench.store(space, first, 7) }
    #expect(own.table(0) != own.table(1))
    #expect(try own.bench.load(own.spaces[0], first + 512) == 0, "a private page of the file is read in place")

    var part = try scene(area: PageRange(first: first, count: 1 << 17))
    for space in part.spaces { try part.bench.store(space, first, 7) }
    #expect(part.table(0) != part.table(1))

    for (rights, offset) in [(Rights.read, UInt64(0)), (.readWrite, 1 << 18)] {
      var scene = try scene()
      let other = try scene.bench.addressSpace()
      try scene.bench.start(
        .mmapFile(other, Self.block, rights, FileMapping(scene.file, firstPage: offset, isShared: true)))
      try scene.bench.store(scene.spaces[0], first, 7)
      #expect(try scene.bench.load(other, first) == (offset == 0 ? 7 : 0))
      #expect(scene.table(0).map { scene.bench.machine.memory[$0].references } == 1)
      scene.bench.machine.checkInvariants()
    }
  }

  @Test(arguments: KernelColumn.allCases)
  func `a child shares its parent's table from its first fault on`(column: KernelColumn) throws {
    var scene = try scene(column, processes: 1)
    try scene.bench.store(scene.spaces[0], first, 7)
    let child = AddressSpaceID(rawValue: UInt32(try #require(try scene.run(.fork(scene.spaces[0]))).value))
    scene.spaces.append(child)
    #expect(scene.table(1) == nil)
    try scene.bench.store(child, first, 9)
    #expect(scene.table(0) == scene.table(1))
    #expect(try scene.bench.load(scene.spaces[0], first, cpu: 1) == 9, "shared memory is not copied")
    scene.bench.machine.checkInvariants()
  }

  @Test(arguments: KernelColumn.allCases)
  func `munmap, DONTNEED, mprotect and mremap leave a shared table whole, and the others keep theirs`(
    column: KernelColumn
  ) throws {
    let part = PageRange(first: first, count: 512)
    for kind in [OperationKind.munmap, .dontNeed, .mprotect, .mremap] {
      var scene = try scene(column, .invalidateRange)
      for (index, space) in scene.spaces.enumerated() {
        for page in [first, first + 512] { try scene.bench.store(space, page, page + UInt64(index)) }
      }
      #expect(scene.holders == 2)
      let request: OperationRequest =
        switch kind {
        case .mprotect: .mprotect(scene.spaces[0], part, .read)
        case .mremap: .move(.mremap, scene.spaces[0], part, to: 4 << 18)
        default: .range(kind, scene.spaces[0], part)
        }
      #expect(try scene.run(request)?.status == .success, "\(kind)")
      #expect(scene.table(0) == nil, "\(kind)")
      #expect(scene.holders == 1)
      scene.bench.machine.checkInvariants()
      #expect(try scene.bench.load(scene.spaces[1], first, cpu: 1) == first + 1)
      // What lies beside the part comes back by a fault.
      #expect(try scene.bench.load(scene.spaces[0], first + 512, cpu: 1) == first + 513)
      let gone = try scene.bench.load(scene.spaces[0], kind == .mremap ? 4 << 18 : first, cpu: 1)
      #expect(gone == (kind == .munmap ? 0 : first + 1), "\(kind)")
      let outcome = try scene.run(
        .cpuAccess(scene.spaces[0], CPUAccess(cpu: 0, kind: .store, address: first << 12, value: 1)))
      #expect(outcome?.status == (kind == .dontNeed ? .success : .accessDenied), "\(kind)")
      // Only a DONTNEED leaves areas that can share again.
      #expect(scene.holders == (kind == .dontNeed ? 2 : 1))
      scene.bench.machine.checkInvariants()
      #expect(scene.bench.verdicts.isEmpty, "\(kind): \(scene.bench.kinds)")
    }
  }

  @Test func `2014: what munmap leaves without C and I, the last user frees under a walk cache`() throws {
    for (column, kinds) in [(KernelColumn.linux2014, [VerdictKind.staleWalk, .staleDMA]), (.now, [])] {
      var scene = try scene(column)
      for space in scene.spaces { try scene.bench.store(space, first, 7) }
      let address = try scene.bench.grant(scene.device, first).physicalAddress
      #expect(try scene.run(.munmap(scene.spaces[0], Self.block))?.status == .success)
      #expect(try scene.run(.munmap(scene.spaces[1], Self.block))?.status == .success)
      let used = column == .now ? [] : try scene.use(first, at: address)
      #expect(used == kinds)
      #expect(scene.bench.owed(scene.device).isEmpty)
    }
  }

  @Test func `the last user waits for the flush of who has left the table`() throws {
    var scene = try scene(.now)
    for space in scene.spaces { try scene.bench.store(space, first, 7) }
    let leaving = try scene.bench.start(.munmap(scene.spaces[0], Self.block))
    scene.bench.settle()
    #expect(scene.bench.owed(scene.device).count == 1, "I is on its way to the device")
    let freeing = try scene.bench.start(.munmap(scene.spaces[1], Self.block))
    scene.bench.settle()
    #expect(scene.bench.outcome(freeing) == nil, "the table is locked")
    try scene.bench.completeAll(scene.device)
    try scene.bench.finish([scene.device])
    #expect(scene.bench.outcome(leaving)?.status == .success)
    #expect(scene.bench.outcome(freeing)?.status == .success)
    #expect(scene.bench.verdicts.isEmpty)
  }

  @Test func `who leaves a table waits for the flush of who left it before, with a third that keeps it`() throws {
    var scene = try scene(.now, processes: 3)
    for space in scene.spaces { try scene.bench.store(space, first, 7) }
    let leaving = try scene.bench.start(.munmap(scene.spaces[0], Self.block))
    scene.bench.settle()
    let next = try scene.bench.start(.munmap(scene.spaces[1], Self.block))
    scene.bench.settle()
    #expect(scene.bench.outcome(next) == nil && scene.bench.outcome(leaving) == nil)
    try scene.bench.finish([scene.device])
    #expect(scene.bench.outcome(next)?.status == .success)
    #expect(try scene.bench.load(scene.spaces[2], first) == 7)
    scene.bench.machine.checkInvariants()
  }

  @Test func `an empty table of other rights is not shared, nor one whose entries lack a right that the area has`()
    throws
  {
    var empty = try scene(processes: 1)
    try empty.bench.store(empty.spaces[0], first, 7)
    #expect(try empty.run(.dontNeed(empty.spaces[0], Self.block))?.status == .success)
    let reader = try empty.bench.addressSpace()
    try empty.bench.start(.mmapFile(reader, Self.block, .read, FileMapping(empty.file, isShared: true)))
    #expect(try empty.bench.load(reader, first) == 7)
    empty.spaces.append(reader)
    #expect(empty.holders == 1)

    var protected = try scene()
    try protected.bench.store(protected.spaces[0], first, 7)
    for rights in [Rights.read, .readWrite] {
      #expect(try protected.run(.mprotect(protected.spaces[0], Self.block, rights))?.status == .success)
    }
    try protected.bench.store(protected.spaces[1], first, 8)
    #expect(protected.holders == 1)
    #expect(try protected.bench.load(protected.spaces[0], first, cpu: 1) == 8)
    protected.bench.machine.checkInvariants()
  }

  @Test func `S and E of today cover the whole table, those of 2014 the range alone`() throws {
    let part = PageRange(first: first + 512, count: 512)
    for (column, window) in [(KernelColumn.linux2014, part), (.now, Self.block)] {
      var scene = try scene(column, .invalidateRange)
      for space in scene.spaces { try scene.bench.store(space, first, 7) }
      let id = try scene.bench.start(.dontNeed(scene.spaces[0], part))
      try scene.bench.finish([scene.device])
      let seen = scene.bench.seen.compactMap { effect -> PageRange? in
        guard case .step(let step) = effect, step.operation == id, [.start, .end].contains(step.letter) else {
          return nil
        }
        return step.range
      }
      #expect(seen == [window, window], "\(column.name)")
    }
  }

  @Test func `OOM reap and soft-dirty pass over what others share`() throws {
    for request in [OperationKind.oomReap, .clearSoftDirty] {
      var scene = try scene()
      for space in scene.spaces { try scene.bench.store(space, first, 7) }
      #expect(try scene.run(.space(request, scene.spaces[0]))?.status == .success)
      #expect(scene.holders == 2)
      scene.bench.machine.checkInvariants()
      #expect(try scene.bench.load(scene.spaces[1], first, cpu: 1) == 7)
    }
  }

  @Test func `a copy of a private huge page of a file is the process's own`() throws {
    var scene = try scene(isShared: false)
    #expect(try scene.bench.load(scene.spaces[0], first) == 0)
    _ = try scene.run(.cpuAccess(scene.spaces[0], CPUAccess(cpu: 0, kind: .store, address: first << 12, value: 5)))
    #expect(try scene.bench.load(scene.spaces[0], first, cpu: 1) == 5)
    #expect(try scene.bench.load(scene.spaces[1], first) == 0)
    #expect(scene.bench.verdicts.isEmpty)
    scene.bench.machine.checkInvariants()
  }

  @Test func `hugetlbfs gives no more huge pages than there are, and takes whole ones`() throws {
    var scene = try scene(frames: 1200)
    try scene.bench.store(scene.spaces[0], first, 1)
    let outcome = try scene.run(
      .cpuAccess(scene.spaces[0], CPUAccess(cpu: 0, kind: .store, address: (first + 512) << 12, value: 1)))
    #expect(outcome?.status == .outOfMemory)
    #expect(scene.bench.refusal(.createFile(pageCount: 513, pageSizeLog2: 21)) == .misaligned)
    #expect(scene.bench.refusal(.createFile(pageCount: 512, pageSizeLog2: 30)) == .misaligned)
    #expect(scene.bench.refusal(.createFile(pageCount: 1 << 30, pageSizeLog2: 21)) == .limitReached)
    let mapping = FileMapping(scene.file, isShared: true)
    let odd = PageRange(first: 0x100, count: 512)
    #expect(scene.bench.refusal(.start(.mmapFile(scene.spaces[0], odd, .readWrite, mapping))) == .misaligned)
    #expect(
      scene.bench.refusal(.start(.munmap(scene.spaces[0], PageRange(first: first, count: 1)))) == .splitsHugePage)
  }
}
