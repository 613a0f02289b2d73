// SPDX-License-Identifier: Apache-2.0
// Goal: what is written to a mapped file reaches its storage, comes back from it, and is seen by whom it should.
@testable import IOMMUModel
import Testing

@Suite struct FileTests {
  let area = PageRange(first: 0x100, count: 4)

  /// A device that shares an address space as PASID 5, with four pages of a file at 0x100.
  func shared(
    _ strategy: Strategy = .invalidateRange, isShared: Bool = true, _ change: (inout Settings) -> Void = { _ in }
  ) throws -> (Bench, AddressSpaceID, DeviceID, FileID) {
    var bench = Bench(change)
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, strategy)))
    guard case .file(let file) = try bench.apply(.createFile(pageCount: 8)) else { throw Surprise() }
    try map(&bench, space, file, isShared: isShared)
    return (bench, space, device, file)
  }

  func map(
    _ bench: inout Bench, _ space: AddressSpaceID, _ file: FileID, at first: PageNumber = 0x100,
    from page: PageNumber = 0,
    isShared: Bool = true
  ) throws {
    let mapping = FileMapping(file, firstPage: page, isShared: isShared)
    try bench.start(.mmapFile(space, PageRange(first: first, count: 4), .readWrite, mapping))
    bench.settle()
  }

  func run(_ bench: inout Bench, _ request: OperationRequest, _ device: DeviceID) throws -> OperationOutcome? {
    let id = try bench.start(request)
    try bench.finish([device])
    return bench.outcome(id)
  }

  @Test func `two processes that share a file see each other's writes, at the pages that they mapped`() throws {
    var (bench, space, _, file) = try shared()
    let other = try bench.addressSpace()
    try map(&bench, other, file, at: 0x500, from: 2)
    try bench.store(space, 0x103, 7)
    #expect(try bench.load(other, 0x501) == 7)
    try bench.store(other, 0x500, 8)
    #expect(try bench.load(space, 0x102) == 8)
    #expect(try bench.load(other, 0x502) == 0)
  }

  @Test func `a private mapping reads the file and keeps its own writes to itself, by a fault or by a COW break`()
    throws
  {
    var (bench, space, device, file) = try shared(isShared: false)
    let writer = try bench.addressSpace()
    try map(&bench, writer, file)
    for page in area.first..<area.end { try bench.store(writer, page, page) }
    #expect(try bench.load(space, 0x100) == 0x100)
    let answer = try bench.grant(device, 0x100, noWrite: true)
    #expect(answer.rights == .read)
    for page in [0x100, 0x101] as [PageNumber] {
      let store = OperationRequest.cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: page << 12, value: 9))
      #expect(try run(&bench, store, device)?.status == .success)
      #expect(try bench.load(writer, page) == page)
      #expect(try bench.load(space, page) == 9)
    }
    #expect(bench.verdicts.isEmpty)
  }

  @Test(arguments: KernelColumn.allCases)
  func `writeback cleans what was written, a CPU's and a device's writes alike, and sees the next write`(
    column: KernelColumn
  ) throws {
    var (bench, space, device, file) = try shared { $0.kernel = column }
    try bench.store(space, 0x100, 5)
    let answer = try bench.grant(device, 0x101)
    _ = try bench.dma(device, 5, 0x101, at: answer.physicalAddress, write: 6)
    _ = try bench.load(space, 0x102)
    #expect(try run(&bench, .range(.writeback, space, area), device)?.value == 2)
    #expect(bench.machine.files[file][0].stored.words.map(\.value) == [5])
    #expect(bench.machine.files[file][1].stored.words.map(\.value) == [6])
    #expect(bench.machine.files[file].sorted.allSatisfy { !$0.value.isDirty })
    #expect(try bench.translate(device, 5, 0x101).rights == .read)
    #expect(try run(&bench, .range(.writeback, space, area), device)?.status == .busy)
    try bench.store(space, 0x100, 7)
    #expect(try run(&bench, .range(.writeback, space, area), device)?.value == 1)
    #expect(bench.machine.files[file][0].stored.words.map(\.value) == [7])
    #expect(bench.verdicts.isEmpty)
  }

  @Test(arguments: KernelColumn.allCases)
  func `reclaim writes dirty pages to the file, takes them out of memory, and they come back`(column: KernelColumn)
    throws
  {
    var (bench, space, device, file) = try shared { $0.kernel = column }
    for page in area.first..<area.end { try bench.store(space, page, page) }
    let other = try bench.addressSpace()
    try map(&bench, other, file)
    _ = try bench.load(other, 0x100)
    let free = bench.machine.memory.freeCount
    #expect(try run(&bench, .range(.reclaim, space, area), device)?.value == 3, "another process maps the first page")
    #expect(bench.machine.memory.freeCount == free + 3)
    for page in area.first..<area.end { #expect(try bench.load(other, page) == page) }
    #expect(try bench.grant(device, 0x103).rights == .readWrite)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `a dirty page that is unmapped stays dirty in the page cache, also after the process has gone`() throws {
    var (bench, space, device, file) = try shared()
    try bench.store(space, 0x100, 5)
    try bench.store(space, 0x101, 6)
    let id = try bench.start(.munmap(space, PageRange(first: 0x100, count: 1)))
    try bench.finish([device])
    // The flush comes before E, without a full batch.
    #expect(bench.letters(of: id).prefix(5) == [.start, .entries, .cpuFlush, .flushSite, .flushed])
    #expect(bench.counters.fullBatches == 0)
    #expect(try run(&bench, .exit(space), device)?.status == .success)
    #expect(bench.machine.files[file][0].isDirty && bench.machine.files[file][1].isDirty)
    let other = try bench.addressSpace()
    try map(&bench, other, file)
    #expect(try bench.load(other, 0x100) == 5)
    #expect(try bench.load(other, 0x101) == 6)
  }

  @Test func `a fork leaves shared pages writable for both, and mremap keeps the place in the file`() throws {
    var (bench, space, device, _) = try shared()
    try bench.store(space, 0x101, 5)
    let fork = try run(&bench, .fork(space), device)
    let child = AddressSpaceID(rawValue: UInt32(try #require(fork).value))
    try bench.store(child, 0x101, 6)
    #expect(try bench.load(space, 0x101) == 6)
    #expect(
      try run(&bench, .move(.mremap, space, PageRange(first: 0x101, count: 2), to: 0x700), device)?.status == .success)
    #expect(try bench.load(space, 0x700) == 6)
    try bench.store(child, 0x102, 8)
    #expect(try bench.load(space, 0x701) == 8)
  }

  @Test func `a fault waits for a page that is on its way to the file`() throws {
    var (bench, space, device, file) = try shared(.secondaryTLB) {
      $0.kernel = .now
      $0.costs.end = .constant(1000)
    }
    try bench.store(space, 0x100, 5)
    let reclaim = try bench.start(.range(.reclaim, space, area))
    bench.settle()
    try bench.completeAll(device)
    let load = try bench.start(.cpuAccess(space, CPUAccess(cpu: 1, kind: .load, address: 0x100 << 12)))
    bench.settle()
    #expect(bench.outcome(load) == nil)
    #expect(bench.refusal(.deleteFile(file)) == .fileInUse)
    try bench.finish([device])
    #expect(bench.outcome(reclaim)?.value == 1)
    #expect(bench.outcome(load)?.value == 5)
  }

  @Test func `a file goes when nobody maps it; what does not fit into it or names none is refused`() throws {
    var (bench, space, device, file) = try shared()
    try bench.store(space, 0x100, 5)
    #expect(bench.refusal(.deleteFile(file)) == .fileInUse)
    #expect(try run(&bench, .munmap(space, area), device)?.status == .success)
    let mapping = FileMapping(file, firstPage: 6, isShared: true)
    #expect(bench.refusal(.start(.mmapFile(space, area, .readWrite, mapping))) == .outsideFile)
    let free = bench.machine.memory.freeCount
    try bench.apply(.deleteFile(file))
    #expect(bench.machine.memory.freeCount == free + 1)
    #expect(bench.refusal(.deleteFile(file)) == .unknownFile)
    #expect(bench.refusal(.start(.mmapFile(space, area, .readWrite, mapping))) == .unknownFile)
    #expect(bench.refusal(.createFile(pageCount: 0)) == .emptyRange)
    #expect(bench.refusal(.createFile(pageCount: 257)) == .limitReached)
  }
}
