// SPDX-License-Identifier: Apache-2.0

/// One step of a memory operation. Step lists are data (`StepLists`); what a step does is in the files beside it.
/// Steps that nobody can see from outside the locks go together with the next one in a turn; the letters of design §4
/// (S, P, C, I, F, T, E) end a turn each.
enum Step: UInt8, CaseIterable {
  case lockRead, lockWrite, unlock
  /// The mmap lock for read, at once or not at all: the operation ends as busy.
  case tryLockRead
  /// From write to read: readers may come beside.
  case downgrade

  // Areas.
  case checkBlocks, insertArea, detachAreas, changeAreas
  /// mremap: makes the tables of the new range, and the new area.
  case insertMovedArea
  /// OOM reap: faults are refused from here on (`MMF_UNSTABLE`).
  case markReaped

  // The letters.
  case start
  case hold
  /// P of a zap, one page-table-lock hold a turn. Goes on at the step after `again` when the range is done, and
  /// at the next step, with the lock held, when the gather batch is full.
  case zap
  /// P of whatever takes rights away and keeps the page: mprotect, NUMA hinting, soft-dirty.
  case protect
  case copyEntries
  /// P of mremap: one table at a time, the lock dropped at once (2014) or held for C and I (now). Goes on behind
  /// `moveAgain` when the range is done.
  case moveEntries, moveEntriesLocked
  case moveAgain
  /// P of hugetlb: leaves the next page table that others share, and goes on behind `unshareAgain` when there is none.
  /// The first keeps the table's lock for C and I; the other goes over all tables at once, and gathers nothing.
  case unshare, unshareSilently
  /// As `unshare`, and changes the rights of huge pages that nobody shares; `…Narrow`: C and I take the range alone.
  case protectHuge, protectHugeNarrow
  case unshareAgain
  /// Clears Accessed bits.
  case clearYoung
  case end
  /// Begins an empty gather (`tlb_gather_mmu`).
  case beginGather
  /// Gathers the whole window where nothing is gathered, for a C or an I of a written order before P or after F.
  case gatherRange
  case unlinkTables
  case cpuFlush
  case flushSite
  /// The flush site of reclaim's batch: I of the whole address space, before C (x86 `arch_tlbbatch_add_pending`).
  case flushSiteWhole
  /// Hooks that are no S, E or flush site.
  case invalidatePage, changePTE, young
  /// T, then F, of everything gathered.
  case free
  /// Goes back to the zap.
  case again

  case release
  case destroySpace

  // Fork.
  case createChild
  /// Takes the next area as the window of S…E; leaves the loop behind `nextAreaAgain` when there is none.
  case nextArea
  case nextAreaAgain

  // Faults.
  case access
  /// A mirror's fault: looks at the whole range, and takes the next page that must be faulted in.
  case collect
  case nextMember
  case service
  /// Under the page-table lock: finds the area and changes the table, or goes on to a COW break, or to `unlock`.
  case resolve
  case lockTable
  case clearEntry
  case setNew
  case unlockTable
  /// The hook for an entry that has gained a right; on hardware that walks again nobody calls it.
  case upgrade
  case unlockAgain
  case respond

  // Huge pages. `nextEdge` and `nextBlock` go on behind their `…Again` when there is none.
  case nextEdge, nextEdgeAgain, nextBlock, nextBlockAgain
  case lockBlock
  /// A split of 2014: nothing changes yet, and C covers the huge page.
  case markSplitting
  /// P of a split: the entry is not present; the small pages' table takes its place.
  case invalidateHuge, fillTable
  /// P of a collapse: the small pages' table goes; the huge page comes.
  case clearTable, setHuge
  case copyBlock
  /// P of a file collapse: a page table goes with all that it maps.
  case retractTable

  // Operations on one page after the other. `nextPage` goes on behind `nextPageAgain` when there is none.
  case nextPage, nextPageAgain
  /// The locks of the page's table and of the table that it will move to, both or none.
  case lockTables
  /// P: the entry goes, if it is still the one that was found.
  case clearPage
  /// P: the entry comes back without the write right, if nobody else uses the page.
  case setReadOnly
  /// P: the entry comes back without the write right.
  case setClean
  /// P: the entry comes back with the page that is kept for both.
  case setShared
  /// P: the entry comes back at the destination.
  case setMoved
  /// P: a migration entry; faults wait for it.
  case setMigration
  case copyPage
  /// P: the page becomes one device's own.
  case setExclusive
  /// P of reclaim: the way to the page is taken away; faults wait.
  case setSwap
  /// Writes what reclaim has unmapped; the swap slots' entries take their places.
  case writeOut
  /// Goes back to the next page when the range has more than one batch.
  case nextBatch
  /// P of MADV_FREE: Dirty and Accessed go.
  case freeLazily
  /// P: the new page in the migration entry's place.
  case remap

  // Kernel memory.
  /// P of vmalloc: frames, tables and entries.
  case mapKernel
  /// The operation returns to its caller; the steps behind it are a worker's.
  case answer

  // Detach.
  case cut
  case drain
  case forget

  // The flush of a queue.
  case takeQueue, freeQueue

  case done
}

extension Step {
  /// What a P does with what it takes away.
  enum Change {
    /// It is gathered, and goes with F and T.
    case gathers
    /// It stays somewhere: the page keeps its frame or gets another, here or elsewhere.
    case keeps
  }
  /// nil: no P.
  var change: Change? {
    switch self {
    case .zap, .unlinkTables: .gathers
    case .protect, .copyEntries, .moveEntries, .moveEntriesLocked, .clearYoung, .clearEntry, .setNew, .clearPage,
      .setReadOnly, .setClean, .setShared, .setMoved, .setMigration, .setExclusive, .setSwap, .writeOut, .freeLazily,
      .remap, .invalidateHuge, .fillTable, .clearTable, .setHuge, .retractTable, .unshare, .unshareSilently,
      .protectHuge, .protectHugeNarrow:
      .keeps
    default: nil
    }
  }
}

extension [Step] {
  /// Whether what the last P before a step took away is gathered for F and T.
  func gathers(before step: Int) -> Bool {
    for index in stride(from: step - 1, through: 0, by: -1) {
      if let change = self[index].change { return change == .gathers }
    }
    return false
  }
}
