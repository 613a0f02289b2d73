// SPDX-License-Identifier: Apache-2.0
// Goal: each row of the operation table fires its letters in the order of its column, under the locks of its column
// (`reference/linux-mm.md` §3). Method: one operation under `invalidate-range`, all durations zero, a device that
// completes at once; after the turn of the first P, which locks are held.
@testable import IOMMUModel
import Testing

@Suite struct OperationTableTests {
  /// S, P, C, F, T, E as in design §4; `.` the flush site, `p` invalidate_page, `c` change_pte, `I` a flush that is
  /// complete, `q` one that waits in the flush queue, `u` tables unlinked, `R` release.
  static func sign(_ letter: OperationStep.Letter) -> Character {
    switch letter {
    case .start: "S"
    case .hold: "h"
    case .entries: "P"
    case .cpuFlush: "C"
    case .flushSite: "."
    case .flushed: "I"
    case .framesFreed: "F"
    case .tablesUnlinked: "u"
    case .tablesFreed: "T"
    case .end: "E"
    case .changePTE: "c"
    case .invalidatePage: "p"
    case .young: "y"
    case .release: "R"
    case .drain: "d"
    case .lockWait: "w"
    case .flushQueued: "q"
    case .upgrade: "g"
    }
  }

  struct Row: CustomTestStringConvertible {
    var kind: OperationKind
    var size: Cell.Size
    var column: KernelColumn
    var letters: String
    /// What is held at the first P: the mmap lock for write or read, or none; and whether the page-table lock stays
    /// beyond the turn.
    var mmapLock: Character
    var tableLock: Bool
    var testDescription: String { "\(kind.name), \(size.name), \(column.name)" }

    init(
      _ kind: OperationKind, _ column: KernelColumn, _ letters: String, _ mmapLock: Character,
      _ tableLock: Bool = false,
      _ size: Cell.Size = .small
    ) {
      (self.kind, self.size, self.column, self.letters) = (kind, size, column, letters)
      (self.mmapLock, self.tableLock) = (mmapLock, tableLock)
    }
  }

  static let rows: [Row] = [
    Row(.munmap, .linux2014, "SPEIuC.ITF", "W"),
    Row(.munmap, .now, "SPEIuC.ITF", "R"),
    Row(.exit, .linux2014, "RIPuCTF", "W"),
    Row(.exit, .now, "RIPuCTF", "W"),
    Row(.dontNeed, .linux2014, "SPEIC.IF", "R"),
    Row(.dontNeed, .now, "SPEIC.IF", "R"),
    Row(.oomReap, .now, "SPEIC.IF", "R"),
    Row(.mprotect, .linux2014, "SPEIC", "W"),
    Row(.mprotect, .now, "SPEIC.I", "W"),
    Row(.numaHint, .linux2014, "SPEIC", "R"),
    Row(.numaHint, .now, "SPEIC.I", "R"),
    Row(.clearSoftDirty, .linux2014, "SPEIC", "R"),
    Row(.clearSoftDirty, .now, "SPEIC.I", "W"),
    // The old range is then unmapped: S, no P any more, E, and its table goes.
    Row(.mremap, .linux2014, "SPCEISEIuC.IT", "W"),
    Row(.mremap, .now, "SPC.IEISEIuC.IT", "W", true),
    Row(.fork, .linux2014, "SPEIC", "W"),
    Row(.fork, .now, "SPEIC.I", "W"),
    Row(.cpuAccess, .linux2014, "SPC.IPEIF", "R", true),
    Row(.cpuAccess, .now, "SPC.IPEIF", "R", true),
    Row(.ksmWriteProtect, .linux2014, "SPC.IPEI", "R", true),
    Row(.ksmWriteProtect, .now, "SPC.IPEI", "R", true),
    Row(.ksmReplacePage, .linux2014, "SPC.IPFEI", "R", true),
    Row(.ksmReplacePage, .now, "SPC.IPFEI", "R", true),
    // 2014 as reclaim: C under the lock, invalidate_page behind it. Now I comes first, for the whole address space.
    Row(.migratePages, .linux2014, "PCPpIPF", "-", true),
    Row(.migratePages, .now, "SP.IPEICPF", "-", true),
    Row(.uffdioMove, .now, "SPC.IPEI", "R", true),
    Row(.madviseFree, .now, "SPEIC.I", "R"),
    Row(.uffdWriteProtect, .now, "SPEIC.I", "R"),
    Row(.reclaim, .linux2014, "PCPpIF", "-", true),
    Row(.reclaim, .now, "SP.IPEICF", "-", true),
    // mkclean: 2014 without S and E.
    Row(.writeback, .linux2014, "PCPpI", "-", true),
    Row(.writeback, .now, "SPC.IPEI", "-", true),
    Row(.migrateToDevice, .now, "SPC.IPEIPF", "R", true),
    Row(.makeDeviceExclusive, .now, "SPC.IPEI", "R", true),
    // The small pages go as they are copied, before the huge one comes.
    Row(.collapse, .linux2014, "SPCEIFP", "W", true),
    Row(.collapse, .now, "SPC.IEIFP", "W", true),
    Row(.splitPages, .linux2014, "SCEIP", "-", true),
    Row(.splitPages, .now, "SPC.IPEI", "-", true),
    // The page cache holds the pages still; the table is freed.
    Row(.retractTables, .linux2014, "PCTF", "-", true),
    Row(.retractTables, .now, "SPC.IEITF", "-", true),
    Row(.clearYoung, .linux2014, "PyI", "-"),
    Row(.clearYoung, .now, "PyI", "-"),
    // The bug of 2025, and its fix: a worker flushes before T.
    Row(.kernelUnmap, .linux2014, "PCFuCT", "W"),
    Row(.kernelUnmap, .now, "PCFuC.IT", "W"),
    Row(.kernelUnmap, .now, "PCFuCT", "W", false, .tablesFreedAtOnce),
    Row(.kernelUnmap, .linux2014, "PCFuC.IT", "W", false, .tablesFreedAfterFlush),
    // hugetlb: a zap as any other, COW without change_pte, C and I of a changed right under the lock.
    Row(.munmap, .linux2014, "SPEIC.IF", "W", false, .hugePage),
    Row(.munmap, .now, "SPEIC.IF", "R", false, .hugePage),
    Row(.dontNeed, .linux2014, "SPEIC.IF", "R", false, .hugePage),
    Row(.dontNeed, .now, "SPEIC.IF", "R", false, .hugePage),
    Row(.mprotect, .linux2014, "SPC.IEI", "W", true, .hugePage),
    Row(.mprotect, .now, "SPC.IEI", "W", true, .hugePage),
    Row(.cpuAccess, .linux2014, "SPC.IPEIF", "R", true, .hugePage),
    Row(.cpuAccess, .now, "SPC.IPEIF", "R", true, .hugePage),
    // A table that another process shares is left: by a zap without C and I until 2021, now with both under the lock.
    Row(.munmap, .linux2014, "SPEI", "W", false, .sharedLeaves),
    Row(.munmap, .now, "SPC.IEI", "R", true, .sharedLeaves),
    Row(.dontNeed, .linux2014, "SPEI", "R", false, .sharedLeaves),
    Row(.dontNeed, .now, "SPC.IEI", "R", true, .sharedLeaves),
    Row(.mprotect, .linux2014, "SPC.IEI", "W", true, .sharedLeaves),
    Row(.mprotect, .now, "SPC.IEI", "W", true, .sharedLeaves),
    Row(.mremap, .linux2014, "SPC.IEISEI", "W", true, .sharedLeaves),
    Row(.mremap, .now, "SPC.IEISEI", "W", true, .sharedLeaves),
    Row(.exit, .linux2014, "RIPuCT", "W", false, .sharedLeaves),
    Row(.exit, .now, "RIPuCT", "W", false, .sharedLeaves),
  ]

  static let kernelArea = PageRange(first: PageRange.kernel.first + 0x100, count: 16)

  @Test func `the rows are those of the operation table, in both columns`() {
    for column in KernelColumn.allCases {
      for (kind, size) in Cell.rows where Cell(kind, size, column, .none).exists && kind != .pageRequestGroup {
        guard [.small, .hugePage, .sharedLeaves].contains(size) else { continue }
        let isThere = Self.rows.contains { $0.kind == kind && $0.size == size && $0.column == column }
        #expect(isThere, "\(kind.name), \(size.name), \(column.name)")
      }
    }
  }

  @Test(arguments: rows)
  func `the letters come in the column's order, and P under the column's locks`(row: Row) throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) {
      $0.kernel = row.column
      $0.kernelTableFree = Cell(row.kind, row.size, row.column, .none).kernelTableFree
      $0.frameCount = 4096
    }
    var area = PageRange(first: 0x100, count: 16)
    if [.collapse, .splitPages, .retractTables].contains(row.kind) { area = PageRange(first: 0x200, count: 512) }
    // Where nothing stands, a device would get an empty page.
    if row.kind == .migrateToDevice { area.count = 1 }
    let other = try bench.addressSpace()
    switch row.size {
    case .hugePage:
      area = PageRange(first: 0x200, count: 512)
      try bench.start(.mmap(space, area, .readWrite, pageSizeLog2: 21))
    case .sharedLeaves:
      area = SharedTableTests.block
      guard case .file(let file) = try bench.apply(.createFile(pageCount: area.count, pageSizeLog2: 21)) else {
        throw Surprise()
      }
      for each in [other, space] {
        try bench.start(.mmapFile(each, area, .readWrite, FileMapping(file, isShared: true)))
        bench.settle()
        try bench.store(each, area.first, 3)
      }
    default: if area.first != 0x100 { try bench.map(space, area.first, area.count) }
    }
    bench.settle()
    try bench.store(space, area.first, 3)
    switch row.kind {
    case .cpuAccess: try bench.start(.fork(space))
    case .ksmReplacePage:
      try bench.map(other, 0x100, 16)
      try bench.store(other, 0x100, 3)
      try bench.start(.range(.ksmWriteProtect, space, area))
      try bench.start(.range(.ksmWriteProtect, other, area))
    case .uffdioMove: try bench.map(space, 0x2000, 16)
    case .splitPages: try bench.start(.range(.collapse, space, area))
    case .writeback, .retractTables:
      guard case .file(let file) = try bench.apply(.createFile(pageCount: area.count)) else { throw Surprise() }
      try bench.start(.munmap(space, area))
      try bench.finish([device])
      try bench.start(.mmapFile(space, area, .readWrite, FileMapping(file, isShared: true)))
      bench.settle()
      try bench.store(space, area.first, 3)
    case .kernelUnmap: try bench.start(.kernel(.kernelMap, Self.kernelArea))
    default: break
    }
    try bench.finish([device])
    if row.kind == .clearYoung { _ = try bench.load(space, 0x100, cpu: 1) }

    let request: OperationRequest =
      switch row.kind {
      case .cpuAccess: .cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: area.first << 12, value: 9))
      case .ksmReplacePage: .ksmReplacePage(space, area, keeper: other, keeperFirst: 0x100)
      case let kind where OperationKind.ofRanges.contains(kind): .range(kind, space, area)
      case let kind where OperationKind.ofRights.contains(kind): .protect(kind, space, area, .read)
      case let kind where OperationKind.ofSpaces.contains(kind): .space(kind, space)
      // Clear of the old tables, so that mremap frees one.
      case let kind where OperationKind.ofMoves.contains(kind):
        .move(kind, space, area, to: row.size == .sharedLeaves ? 4 << 18 : kind == .mremap ? 0x2010 : 0x2000)
      case .kernelUnmap: .kernel(.kernelUnmap, Self.kernelArea)
      default: throw Surprise()
      }
    let id = try bench.start(request)
    var held: (mmap: Character, table: Bool)?
    while bench.outcome(id) == nil {
      if held == nil, bench.letters(of: id).contains(.entries) {
        let lock = row.kind == .kernelUnmap ? bench.machine.kernel.lock : bench.machine.spaces[space].lock
        held = (lock.writer != .none ? "W" : lock.readers > 0 ? "R" : "-", !bench.machine.tableLocks.held.isEmpty)
      }
      let vector = bench.owed(device).reduce(UInt32(0)) { $0 | 1 << UInt32($1.itag) }
      if vector != 0 { try bench.apply(.complete(device, itagVector: vector)) }
      bench.turn()
    }
    try bench.finish([device])
    #expect(bench.outcome(id)?.status == .success)
    #expect(String(bench.letters(of: id).map(Self.sign)) == row.letters)
    #expect(held?.mmap == row.mmapLock)
    #expect(held?.table == row.tableLock)
    #expect(bench.verdicts.isEmpty)
    #expect(bench.machine.tableLocks.held.isEmpty && bench.machine.pageLocks.held.isEmpty)
  }
}
