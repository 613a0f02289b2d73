// SPDX-License-Identifier: Apache-2.0
// Goal: what a reading of the model found that a client could have stopped the service with, stays mended.
@testable import IOMMUModel
import Testing

@Suite struct ServiceRegressionTests {
  @Test func `a write of a mirror to a small page where a huge one stands now traps nothing`() throws {
    var bench = Bench {
      $0.kernel = .now
      $0.frameCount = 4096
    }
    let space = try bench.addressSpace()
    guard case .file(let file) = try bench.apply(.createFile(pageCount: 2)) else { throw Surprise() }
    let area = PageRange(first: 0x3ff, count: 2)
    try bench.start(.mmapFile(space, area, .readWrite, FileMapping(file, isShared: true)))
    bench.settle()
    for page in [0x3ff, 0x400] as [PageNumber] { try bench.store(space, page, page) }
    let mirror = try bench.subscribe(space, .kvmLike)
    guard let fault = try bench.fault(mirror, 0x3ff) else { throw Surprise() }
    try bench.install(mirror, fault)
    // Writeback holds no mmap lock, and keeps what it has dropped legal until it returns: here it never does.
    let writeback = try bench.start(.range(.writeback, space, area))
    bench.settle()
    func answer(_ page: PageNumber) throws {
      while let event = bench.events(mirror).first(where: { $0.range.contains(page) }) {
        try bench.apply(.answer(mirror, NotifierAnswer(number: event.number)))
        bench.settle()
      }
    }
    try answer(0x3ff)
    #expect(bench.events(mirror).contains { $0.range.contains(0x400) })
    let unmap = try bench.start(.munmap(space, PageRange(first: 0x3ff, count: 1)))
    bench.settle()
    try answer(0x3ff)
    #expect(bench.outcome(unmap)?.status == .success && bench.outcome(writeback) == nil)
    try bench.start(.mmap(space, PageRange(first: 0x200, count: 0x200), .readWrite, pageSizeLog2: 21))
    bench.settle()
    try bench.store(space, 0x3ff, 7)
    try bench.install(mirror, fault)
    _ = try bench.use(mirror, 0x3ff, fault.pages[0].physicalAddress, write: 9)
    #expect(try bench.load(space, 0x3ff, cpu: 1) == 7, "it reached the old frame alone")
    #expect(bench.counters.unexplainedCorruptions == 0)
  }

  @Test(arguments: [OperationKind.collapse, .retractTables])
  func `a collapse over a whole address space looks at the tables that are there`(kind: OperationKind) throws {
    var bench = Bench {
      $0.frameCount = 4096
      $0.kernel = .now
    }
    let space = try bench.addressSpace()
    try bench.map(space, 0x200, 0x200)
    try bench.map(space, 1 << 34, 1 << 33)
    for page in [0x200, 1 << 34, 3 << 33 - 1] as [PageNumber] { try bench.store(space, page, 5) }
    let id = try bench.start(.range(kind, space, .all))
    bench.settle()
    #expect(bench.outcome(id)?.status == (kind == .collapse ? .success : .busy))
    let taken: UInt64 = kind == .collapse ? 3 * 512 : 0
    #expect(bench.outcome(id)?.value == taken)
    for page in [0x200, 1 << 34, 3 << 33 - 1] as [PageNumber] { #expect(try bench.load(space, page) == 5) }
  }

  @Test func `an mremap of half the address space that holds a huge page looks at the tables that are there`() throws {
    var bench = Bench { $0.frameCount = 4096 }
    let space = try bench.addressSpace()
    try bench.map(space, 0, 1 << 33)
    try bench.store(space, 5, 5)
    try bench.start(.range(.collapse, space, PageRange(first: 0, count: 512)))
    bench.settle()
    let id = try bench.start(.move(.mremap, space, PageRange(first: 0, count: 1 << 33), to: 1 << 34))
    bench.settle()
    #expect(bench.outcome(id)?.status == .success)
    #expect(try bench.load(space, 1 << 34 + 5) == 5)
  }

  @Test func `kernel memory is mapped in ranges that one turn can look at`() throws {
    var bench = Bench { $0.frameCount = 1 << 20 }
    let range = PageRange(first: PageRange.kernel.first, count: 65_537)
    for kind in [OperationKind.kernelMap, .kernelUnmap] {
      #expect(bench.refusal(.start(.kernel(kind, range))) == .limitReached)
    }
  }

  @Test func `an order that lets a notifier refuse what is already gone is a mistake`() {
    #expect(throws: UserOrder.Mistake.self) {
      try UserOrder(.oomReap, .now, letters: ["P", "S", "E", "C", "I", "F"])
    }
  }
}
