// SPDX-License-Identifier: Apache-2.0

/// The step lists of every operation, one column of `reference/linux-mm.md` §3. An operation that the column's kernels
/// do not have has an empty list.
struct StepLists {
  /// By `OperationKind.rawValue`.
  private let lists: [[Step]]

  /// - Parameter orders: those that somebody wrote, in the place of the column's own.
  init(_ column: KernelColumn, _ tables: KernelTableFree? = nil, orders: [UserOrder] = []) {
    lists = OperationKind.allCases.map { kind in
      orders.last { $0.kind == kind && $0.column == column }?.steps ?? StepLists.list(kind, column, tables)
    }
  }

  subscript(kind: OperationKind) -> [Step] {
    @inline(__always) get { lists[Int(kind.rawValue)] }
  }

  /// C, I and F of a full gather batch, inside S…E, under the page-table lock until I is over.
  private static let batch: [Step] = [.cpuFlush, .flushSite, .unlockTable, .free, .again]
  /// What `tlb_finish_mmu` does.
  private static let finish: [Step] = [.cpuFlush, .flushSite, .free]
  /// unmap_region: E comes before the tables are unlinked; C, I, F and T with tlb_finish_mmu.
  private static func unmapRegion(_ column: KernelColumn) -> [Step] {
    [.start, .hold] + unshare(column) + [.zap] + batch + [.end, .unlinkTables] + finish
  }

  /// What `__unmap_hugepage_range` does with page tables that others share: until 2021 it forgot C, and so I
  /// (CVE-2021-4002); now both come before the lock is given back (`huge_pmd_unshare_flush`).
  private static func unshare(_ column: KernelColumn) -> [Step] {
    switch column {
    case .linux2014: [.unshareSilently]
    case .now: unshareFlushed
    }
  }
  private static let unshareFlushed: [Step] = [.unshare, .cpuFlush, .flushSite, .unlockTable, .unshareAgain]

  /// COW break (`wp_page_copy`), I under the page-table lock.
  private static func copyOnWrite(_ column: KernelColumn) -> [Step] {
    switch column {
    case .linux2014:
      [
        .start, .hold, .lockTable, .clearEntry, .cpuFlush, .flushSite, .changePTE, .setNew, .unlockTable, .end, .free,
      ]
    case .now:
      [.start, .hold, .lockTable, .clearEntry, .cpuFlush, .flushSite, .setNew, .unlockTable, .end, .free]
    }
  }

  static func list(_ kind: OperationKind, _ column: KernelColumn, _ tables: KernelTableFree? = nil) -> [Step] {
    switch kind {
    case .mmap:
      return [.lockWrite, .insertArea, .unlock, .done]
    case .munmap:
      // do_munmap: areas leave first; since 4.20 the rest runs under the lock for read.
      let begin = [.lockWrite, .checkBlocks] + splitEdges(column) + [.detachAreas]
      return begin + (column == .now ? [.downgrade] : []) + unmapRegion(column) + [.unlock, .done]
    case .dontNeed:
      return [.lockRead, .checkBlocks] + splitEdges(column) + [.start, .hold] + unshare(column) + [.zap] + batch + [
        .end
      ]
        + finish + [.unlock, .done]
    case .mprotect:
      return [.lockWrite, .checkBlocks] + splitEdges(column) + [.changeAreas]
        + changeProtection(column, changeHuge(column)) + [.unlock, .done]
    case .numaHint:
      return [.lockRead] + splitEdges(column) + changeProtection(column) + [.unlock, .done]
    case .clearSoftDirty:
      return [column == .now ? .lockWrite : .lockRead] + changeProtection(column) + [.unlock, .done]
    case .mremap:
      return [.lockWrite, .checkBlocks] + splitEdges(column) + [.insertMovedArea, .start, .hold]
        + unshareFlushed + movePageTables(column) + [.detachAreas, .beginGather] + [.start, .hold, .zap] + batch
        + [.end, .unlinkTables] + finish + [.unlock, .done]
    case .fork:
      return [
        .lockWrite, .createChild,
      ] + splitEdges(column) + [
        .nextArea, .start, .hold, .copyEntries, .end, .nextAreaAgain,
        .cpuFlush,
      ] + (column == .now ? [.flushSite] : []) + [.unlock, .done]
    case .exit:
      // The subscriber is gone after `release`: no S, no E, no I.
      return [
        .lockWrite, .release, .detachAreas, .unshareSilently,
        .zap, .cpuFlush, .unlockTable, .free, .again,
        .unlinkTables, .cpuFlush, .free, .destroySpace, .done,
      ]
    case .oomReap:
      guard column == .now else { return [] }
      return [.tryLockRead, .markReaped, .start, .hold, .zap] + batch + [.end] + finish + [.unlock, .done]
    case .madviseFree:
      guard column == .now else { return [] }
      return [
        .lockRead, .checkBlocks, .start, .hold, .freeLazily, .end, .cpuFlush, .flushSite, .unlock, .done,
      ]
    case .uffdWriteProtect:
      guard column == .now else { return [] }
      return [.lockRead] + splitEdges(column) + changeProtection(column) + [.unlock, .done]
    case .reclaim:
      return reclaim(column)
    case .writeback:
      return writeback(column)
    case .collapse:
      return collapse(column)
    case .splitPages:
      return splitEdges(column) + [.done]
    case .retractTables:
      return retractTables(column)
    case .migrateToDevice:
      // migrate_vma: setup, the driver's copy, finalize.
      guard column == .now else { return [] }
      return [.lockRead] + splitEdges(column) + [
        .nextPage, .start, .hold, .lockTable, .clearPage, .cpuFlush, .flushSite, .setMigration, .unlockTable,
        .end, .copyPage, .remap, .free, .nextPageAgain, .unlock, .done,
      ]
    case .makeDeviceExclusive:
      guard column == .now else { return [] }
      return [
        .lockRead, .nextPage, .start, .hold, .lockTable, .clearPage, .cpuFlush, .flushSite, .setExclusive, .unlockTable,
        .end, .nextPageAgain, .unlock, .done,
      ]
    case .clearYoung:
      // x86 clears Accessed without C, and so without I (3.15 on).
      return [.clearYoung, .young, .done]
    case .ksmWriteProtect:
      return ksm([.setReadOnly], column)
    case .ksmReplacePage:
      // put-old comes before E, under the page-table lock.
      return ksm([.setShared, .free], column)
    case .migratePages:
      return migrate(column)
    case .uffdioMove:
      guard column == .now else { return [] }
      return [
        .lockRead, .nextPage, .start, .hold, .lockTables, .clearPage, .cpuFlush, .flushSite, .setMoved, .unlockTable,
        .end, .nextPageAgain, .unlock, .done,
      ]
    case .cpuAccess:
      return [.access, .lockRead, .service, .resolve] + copyOnWrite(column) + [.upgrade, .unlockAgain, .done]
    case .rangeFault:
      return [.collect, .lockRead, .service, .resolve] + copyOnWrite(column) + [.upgrade, .unlockAgain, .done]
    case .pageRequestGroup:
      return [.nextMember, .lockRead, .service, .resolve] + copyOnWrite(column) + [
        .upgrade, .unlockAgain, .respond, .done,
      ]
    case .kernelMap:
      return [.lockWrite, .mapKernel, .unlock, .done]
    case .kernelUnmap:
      return kernelUnmap(tables ?? column.kernelTableFree)
    case .unmap:
      // Strict unmap of a PAGING domain: entries, tables, I with completion, then the frames.
      return [
        .lockWrite, .zap, .flushSite, .unlockTable, .free, .again,
        .unlinkTables, .flushSite, .free, .unlock, .done,
      ]
    case .flushQueue:
      return [.takeQueue, .flushSite, .freeQueue, .done]
    case .detach:
      return [.cut, .flushSite, .drain, .forget, .done]
    }
  }

  /// change_protection. No I of its own in 2014: what E* runs must do.
  private static func changeProtection(_ column: KernelColumn, _ huge: [Step] = []) -> [Step] {
    [.start, .hold] + huge + [.protect, .end, .cpuFlush] + (column == .now ? [.flushSite] : [])
  }

  /// hugetlb_change_protection: C and I under the lock, in both columns.
  private static func changeHuge(_ column: KernelColumn) -> [Step] {
    [column == .now ? .protectHuge : .protectHugeNarrow, .cpuFlush, .flushSite, .unlockTable, .unshareAgain]
  }

  /// move_page_tables: one C for all before E (2014), C and I for each table under both locks (now).
  private static func movePageTables(_ column: KernelColumn) -> [Step] {
    switch column {
    case .linux2014: [.moveEntries, .moveAgain, .cpuFlush, .end]
    case .now: [.moveEntriesLocked, .cpuFlush, .flushSite, .unlockTable, .moveAgain, .end]
    }
  }

  /// write_protect_page and replace_page: S clear C I set, `change_pte` before the entry is set until 2024.
  private static func ksm(_ set: [Step], _ column: KernelColumn) -> [Step] {
    let hook: [Step] = column == .linux2014 ? [.changePTE] : []
    return [.lockRead, .nextPage, .start, .hold, .lockTable, .clearPage, .cpuFlush, .flushSite] + hook + set
      + [.unlockTable, .end, .nextPageAgain, .unlock, .done]
  }

  /// shrink_folio_list. 2014 takes one page at a time, with `invalidate_page` behind the page-table lock; now I comes
  /// at once and for the whole address space, and C for all pages of the batch before they are written.
  private static func reclaim(_ column: KernelColumn) -> [Step] {
    switch column {
    case .linux2014:
      [
        .nextPage, .lockTable, .clearPage, .cpuFlush, .setSwap, .unlockTable, .invalidatePage, .writeOut, .free,
        .nextPageAgain, .done,
      ]
    case .now:
      [
        .nextPage, .start, .hold, .lockTable, .clearPage, .flushSiteWhole, .setSwap, .unlockTable, .end, .nextPageAgain,
        .cpuFlush, .writeOut, .free, .nextBatch, .done,
      ]
    }
  }

  /// Splits each huge page that the operation asks for. 2014 flushes before the table comes (`split_huge_page`), now
  /// between the two changes of the entry (`__split_huge_pmd`).
  private static func splitEdges(_ column: KernelColumn) -> [Step] {
    switch column {
    case .linux2014:
      [
        .nextEdge, .start, .hold, .markSplitting, .cpuFlush, .end, .lockTable, .fillTable, .unlockTable, .nextEdgeAgain,
      ]
    case .now:
      [
        .nextEdge, .start, .hold, .lockTable, .invalidateHuge, .cpuFlush, .flushSite, .fillTable, .unlockTable, .end,
        .nextEdgeAgain,
      ]
    }
  }

  /// collapse_huge_page, with the mmap lock for write. The small pages go as they are copied.
  private static func collapse(_ column: KernelColumn) -> [Step] {
    [.lockWrite, .nextBlock, .start, .hold, .lockBlock, .clearTable, .cpuFlush] + (column == .now ? [.flushSite] : [])
      + [.end, .copyBlock, .free, .setHuge, .unlockTable, .nextBlockAgain, .unlock, .done]
  }

  /// retract_page_tables. Until December 2022 without S, I and E (CVE-2022-48991).
  private static func retractTables(_ column: KernelColumn) -> [Step] {
    switch column {
    case .linux2014: [.nextBlock, .lockBlock, .retractTable, .cpuFlush, .unlockTable, .free, .nextBlockAgain, .done]
    case .now:
      [
        .nextBlock, .start, .hold, .lockBlock, .retractTable, .cpuFlush, .flushSite, .unlockTable, .end, .free,
        .nextBlockAgain, .done,
      ]
    }
  }

  /// page_mkclean, then the write.
  private static func writeback(_ column: KernelColumn) -> [Step] {
    switch column {
    case .linux2014:
      [
        .nextPage, .lockTable, .clearPage, .cpuFlush, .setClean, .unlockTable, .invalidatePage, .writeOut,
        .nextPageAgain, .done,
      ]
    case .now:
      [
        .nextPage, .start, .hold, .lockTable, .clearPage, .cpuFlush, .flushSite, .setClean, .unlockTable, .end,
        .writeOut, .nextPageAgain, .done,
      ]
    }
  }

  private static func migrate(_ column: KernelColumn) -> [Step] {
    switch column {
    case .linux2014:
      [
        .nextPage, .lockTable, .clearPage, .cpuFlush, .setMigration, .unlockTable, .invalidatePage,
        .copyPage, .remap, .free, .nextPageAgain, .done,
      ]
    case .now:
      [
        .nextPage, .start, .hold, .lockTable, .clearPage, .flushSiteWhole, .setMigration, .unlockTable, .end,
        .cpuFlush, .copyPage, .remap, .free, .nextPageAgain, .done,
      ]
    }
  }
}
