// SPDX-License-Identifier: Apache-2.0
// Goal: the kernel's half of the page tables is everybody's, no device may use it, and its tables are freed as in Linux:
// too early until 2025 (CVE-2025-71089, -71202), after a flush of every shared address space since. Method: a device
// that asks for kernel pages, which it is denied, and what it reaches through the tables that stay in the walk cache.
@testable import IOMMUModel
import Testing

@Suite struct KernelMapTests {
  static let area = PageRange(first: PageRange.kernel.first + 0x100, count: 16)
  /// One table of its own for each of its pages' neighbours: the end of one 2 MiB block and the begin of the next.
  static let straddling = PageRange(first: PageRange.kernel.first + 0x5f0, count: 0x20)

  @discardableResult
  private func map(_ bench: inout Bench, _ range: PageRange = area) throws -> OperationOutcome? {
    let id = try bench.start(.kernel(.kernelMap, range))
    bench.settle()
    return bench.outcome(id)
  }

  private func unmap(_ bench: inout Bench, _ range: PageRange = area) throws -> OperationID {
    let id = try bench.start(.kernel(.kernelUnmap, range))
    bench.settle()
    return id
  }

  // MARK: The kernel's half

  @Test func `a device is denied a page of the kernel, and the tables on the way are cached`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange)
    #expect(try map(&bench)?.status == .success)
    for noWrite in [true, false] {
      let answer = try bench.translate(device, 5, Self.area.first, noWrite: noWrite)
      #expect(answer.status == .success && answer.rights.isEmpty && answer.page == Self.area.first)
    }
    let tables = bench.machine.caches.walks.slots.compactMap { bench.machine.caches.walks.entry(at: $0) }
    #expect(tables.count == 3, "every table below the root")
    #expect(
      bench.machine.caches.translations.slots.allSatisfy { bench.machine.caches.translations.entry(at: $0) == nil })
    // A fault is no way to it either, and its DMA is refused.
    #expect(try bench.request(device, 5, Self.area.first, .read) == .invalidRequest)
    try bench.issue(device, Self.area.first)
    try bench.finish()
    #expect(bench.answers(device).map(\.status) == [.refused])
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `no Accessed bit is set in a table of the kernel, because no access is allowed`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try map(&bench)
    _ = try bench.translate(device, 5, Self.area.first)
    let (position, leaf) = bench.machine.locate(bench.machine.spaces[space].root, Self.area.first)
    #expect(leaf.bits & (PageTableEntry.user | PageTableEntry.accessed) == 0 && leaf.isWritable && leaf.isPresent)
    #expect(position == bench.machine.locate(bench.machine.kernel.root, Self.area.first).position)
  }

  @Test func `address spaces that are there, that are made later and that are forked have the same tables`() throws {
    var bench = Bench()
    let before = try bench.addressSpace()
    try map(&bench)
    let after = try bench.addressSpace()
    let fork = try bench.start(.fork(before))
    try bench.finish()
    let child = AddressSpaceID(rawValue: UInt32(bench.outcome(fork)!.value))
    let table = bench.machine.locate(bench.machine.kernel.root, Self.area.first).position.table
    for space in [before, after, child] {
      #expect(bench.machine.locate(bench.machine.spaces[space].root, Self.area.first).position.table == table)
    }
    // A second top-level entry comes to all of them.
    let far = PageRange(first: PageRange.kernel.first + 1 << 27, count: 1)
    try map(&bench, far)
    for space in [before, after, child] {
      #expect(bench.machine.locate(bench.machine.spaces[space].root, far.first).entry.isPresent)
      try bench.start(.exit(space))
      try bench.finish()
    }
    // The kernel's root, two tables that it points to, two of each level below, and the pages.
    #expect(bench.machine.memory.freeCount == 255 - 1 - 2 - 2 - 2 - 17)
  }

  @Test func `an unmap frees the pages and the tables that are empty, and never what a root points to`() throws {
    var bench = Bench()
    let all = bench.machine.memory.freeCount
    try map(&bench, Self.straddling)
    #expect(bench.machine.memory.freeCount == all - 5 - 0x20)
    // The first table goes with its pages; the second is in use.
    let first = PageRange(first: Self.straddling.first, count: 0x10)
    _ = try unmap(&bench, first)
    #expect(bench.machine.memory.freeCount == all - 4 - 0x10)
    _ = try unmap(&bench, PageRange(first: first.end, count: 0x10))
    #expect(bench.machine.memory.freeCount == all - 2)
    #expect(bench.counters.tablesFreed == 3 && bench.counters.framesFreed == 0x20)
    try map(&bench, Self.straddling)
    #expect(bench.machine.memory.freeCount == all - 5 - 0x20)
  }

  @Test func `the very last pages of the address space can be mapped, walked and unmapped`() throws {
    for column in KernelColumn.allCases {
      var (bench, _, device) = try Bench.shared(.invalidateRange) { $0.kernel = column }
      let last = PageRange(first: PageRange.kernel.end - 2, count: 2)
      try map(&bench, last)
      #expect(try bench.translate(device, 5, last.first + 1).rights.isEmpty)
      let id = try unmap(&bench, last)
      try bench.finish([device])
      #expect(bench.outcome(id)?.status == .success)
    }
  }

  // MARK: The bug and its fix

  @Test func `2014 frees a table that the walk cache knows, and the next walk goes through it`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange) { $0.kernel = .linux2014 }
    try map(&bench)
    _ = try bench.translate(device, 5, Self.area.first)
    let table = bench.machine.locate(bench.machine.kernel.root, Self.area.first).position.table
    let id = try unmap(&bench)
    #expect(bench.owed(device).isEmpty, "never an I")
    #expect(try bench.translate(device, 5, Self.area.first).rights.isEmpty)
    let verdict = try #require(bench.verdicts.first)
    #expect(bench.kinds == [.staleWalk] && verdict.frame == table && verdict.via == .walkCache)
    #expect(verdict.freed.operation == id && verdict.freed.kind == .kernelUnmap)
    let text = Explanation(verdict, device: "device 8")
    #expect(
      text.sentence.hasPrefix("The IOMMU walked for page 0xffff800000100000 through a page table in frame "))
    #expect(text.sentence.contains("that kernel unmap #\(id.number) had freed"))
  }

  @Test func `2014 lets a device through a kernel address into whatever the freed table has become`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) {
      $0.kernel = .linux2014
      $0.recycleOrder = .lastInFirstOut
    }
    let victim = try bench.addressSpace()
    try bench.map(victim, 0x100, 4)
    try bench.store(victim, 0x100, 0x5ec)
    // So that the process needs no table of its own any more.
    try bench.store(space, 0x100, 0)
    let secret = bench.machine.locate(bench.machine.spaces[victim].root, 0x100).entry.frame
    try map(&bench)
    _ = try bench.translate(device, 5, Self.area.first)
    let table = bench.machine.locate(bench.machine.kernel.root, Self.area.first).position.table
    _ = try unmap(&bench)
    // The table's frame becomes a page of the process, which writes an entry of its own there.
    var page: PageNumber = 0x101
    repeat {
      try bench.store(space, page, 0)
      page += 1
    } while bench.machine.locate(bench.machine.spaces[space].root, page - 1).entry.frame != table && page < 0x110
    #expect(bench.machine.locate(bench.machine.spaces[space].root, page - 1).entry.frame == table)
    let index = UInt64(Self.area.first & 511)
    try bench.start(
      .cpuAccess(
        space,
        CPUAccess(
          cpu: 0, kind: .store, address: (page - 1) << 12 + index * 8,
          value: PageTableEntry.leaf(secret, .readWrite, level: 0).bits)))
    bench.settle()
    let answer = try bench.translate(device, 5, Self.area.first, noWrite: true)
    #expect(answer.rights == .readWrite && answer.physicalAddress == UInt64(secret) << 12)
    #expect(try bench.dma(device, 5, Self.area.first, at: answer.physicalAddress).value == 0x5ec)
    #expect(bench.kinds == [.staleWalk, .staleWalk])
    #expect(bench.counters.unexplainedCorruptions == 0)
  }

  @Test func `now a worker flushes every shared address space before the tables go, and the caller does not wait`()
    throws
  {
    var (bench, _, device) = try Bench.shared(.secondaryTLB) { $0.kernel = .now }
    // Another address space under the same PASID of another device, and one that flushes nowhere.
    let other = try bench.addressSpace()
    let second = try bench.device(rid: 9)
    try bench.apply(.attach(second, 5, .addressSpace(other, .invalidateRange)))
    let deaf = try bench.device(rid: 10)
    try bench.apply(.attach(deaf, 5, .addressSpace(other, .none)))
    try map(&bench)
    for each in [device, second] { _ = try bench.translate(each, 5, Self.area.first) }
    let free = bench.machine.memory.freeCount
    let id = try unmap(&bench)
    #expect(bench.outcome(id)?.status == .success)
    #expect(bench.counters.framesFreed == 16 && bench.counters.tablesFreed == 0)
    #expect(bench.machine.kernel.lock.writer == .none, "the worker holds no lock")
    for each in [device, second] {
      let owed = bench.owed(each)
      #expect(owed.map(\.range) == [.kernel] && owed.map(\.pasid) == [5])
    }
    #expect(bench.owed(deaf).isEmpty)
    try bench.completeAll(device)
    #expect(bench.counters.tablesFreed == 0, "one still owes")
    try bench.completeAll(second)
    #expect(bench.counters.tablesFreed == 2 && bench.machine.memory.freeCount == free + 18)
    for each in [device, second] { _ = try bench.translate(each, 5, Self.area.first) }
    #expect(bench.verdicts.isEmpty)
    let outcomes = bench.seen.filter { if case .operation(let outcome) = $0 { outcome.operation == id } else { false } }
    #expect(outcomes.count == 1, "the caller is answered once")
  }

  @Test func `a table that is unlinked and not yet freed may be walked until the worker's flush`() throws {
    var (bench, _, device) = try Bench.shared(.secondaryTLB) { $0.kernel = .now }
    try map(&bench)
    _ = try bench.translate(device, 5, Self.area.first)
    let id = try unmap(&bench)
    #expect(bench.outcome(id) != nil && !bench.owed(device).isEmpty)
    #expect(try bench.translate(device, 5, Self.area.first).rights.isEmpty)
    try bench.completeAll(device)
    #expect(try bench.translate(device, 5, Self.area.first).rights.isEmpty)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `the fix does nothing for a strategy without the flush site`() throws {
    var (bench, _, device) = try Bench.shared(.emptyTable) { $0.kernel = .now }
    try map(&bench)
    _ = try bench.translate(device, 5, Self.area.first)
    _ = try unmap(&bench)
    _ = try bench.translate(device, 5, Self.area.first)
    #expect(bench.kinds == [.staleWalk])
  }

  @Test func `a flush of the whole address space takes the kernel's tables out of the walk cache`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.kernel = .linux2014 }
    try map(&bench)
    _ = try bench.translate(device, 5, Self.area.first)
    try bench.start(.detach(device, 5))
    try bench.finish([device])
    try bench.apply(.attach(device, 5, .addressSpace(space, .invalidateRange)))
    _ = try unmap(&bench)
    _ = try bench.translate(device, 5, Self.area.first)
    #expect(bench.verdicts.isEmpty)
  }

  // MARK: Requests

  @Test func `ranges outside the kernel's half, over what is mapped, or of what is not, are refused`() throws {
    var bench = Bench()
    try map(&bench)
    func refusal(_ kind: OperationKind, _ first: PageNumber, _ count: UInt64) -> Refusal.Reason? {
      var bench = bench
      return bench.refusal(.start(.kernel(kind, PageRange(first: first, count: count))))
    }
    for kind in OperationKind.ofKernel {
      #expect(refusal(kind, Self.area.first, 0) == .emptyRange)
      #expect(refusal(kind, 0x100, 1) == .rangeOutsideKernelHalf)
      #expect(refusal(kind, PageRange.all.end, 1) == .rangeOutsideKernelHalf)
      #expect(refusal(kind, PageRange.kernel.first - 1, 2) == .rangeOutsideKernelHalf)
      #expect(refusal(kind, PageRange.kernel.end - 1, 2) == .rangeOutsideKernelHalf)
      #expect(refusal(kind, PageRange.kernel.end, 1) == .rangeOutsideKernelHalf)
      #expect(refusal(kind, Self.area.first, .max) == .rangeOutsideKernelHalf)
    }
    #expect(refusal(.kernelMap, Self.area.end - 1, 2) == .overlapsMapping)
    #expect(refusal(.kernelMap, Self.area.end, 250) == .outOfFrames)
    #expect(refusal(.kernelMap, PageRange.kernel.first, 1 << 15) == .outOfFrames)
    #expect(refusal(.kernelUnmap, Self.area.first, 17) == .notMapped)
    #expect(refusal(.kernelUnmap, PageRange.kernel.first, 1 << 15) == .notMapped)
  }

  @Test func `who waits for the kernel's lock finds what others have done meanwhile`() throws {
    var bench = Bench { $0.costs.entry = .constant(1000) }
    let large = PageRange(first: Self.straddling.first, count: 100)
    let other = PageRange(first: Self.area.end, count: 4)
    for range in [Self.area, other] {
      try bench.start(.kernel(.kernelMap, range))
      try bench.finish()
    }
    let operations = try [
      OperationRequest.kernel(.kernelUnmap, Self.area), .kernel(.kernelUnmap, other), .kernel(.kernelUnmap, other),
      .kernel(.kernelMap, large), .kernel(.kernelMap, large),
      .kernel(.kernelMap, PageRange(first: large.end, count: 150)),
    ].map { try bench.start($0) }
    #expect(operations.dropFirst().allSatisfy { bench.outcome($0) == nil }, "they wait")
    try bench.finish()
    #expect(
      operations.map { bench.outcome($0)?.status } == [
        .success, .success, .success, .success, .areasChanged, .outOfMemory,
      ])
    #expect(bench.counters.framesFreed == 20)
  }

  @Test func `an address that is not canonical is not walked`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange)
    try map(&bench)
    for page in [PageRange.all.end, PageRange.kernel.first - 1, PageRange.kernel.end, PageNumber.max] {
      #expect(try bench.translate(device, 5, page).rights.isEmpty)
    }
    #expect(bench.counters.walks == 0)
  }
}
