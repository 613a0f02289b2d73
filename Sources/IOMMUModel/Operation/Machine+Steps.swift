// SPDX-License-Identifier: Apache-2.0

/// Which function performs each step of a step list.
extension Machine {
  mutating func perform(_ step: Step, _ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    switch step {
    case .lockRead: lock(&operation, .read, &effects)
    case .lockWrite: lock(&operation, .write, &effects)
    case .unlock: unlock(&operation)
    case .checkBlocks: checkBlocks(&operation)
    case .insertArea: insertArea(&operation)
    case .detachAreas: detachAreas(&operation)
    case .changeAreas: changeAreas(&operation)
    case .start: start(&operation, &effects)
    case .hold: hold(&operation, &effects)
    case .zap: zap(&operation, &effects)
    case .protect: protect(&operation, &effects)
    case .copyEntries: copyEntries(&operation, &effects)
    case .end: runSite(.end, &operation, &effects)
    case .unlinkTables: unlinkTables(&operation, &effects)
    case .cpuFlush: cpuFlush(&operation, &effects)
    case .flushSite: runSite(.flushSite, &operation, &effects)
    case .free: free(&operation, &effects)
    case .again: back(to: .zap, or: .zap, operation)
    case .release: runSite(nil, &operation, &effects)
    case .destroySpace: destroySpace(&operation)
    case .createChild: createChild(&operation)
    case .nextArea: nextArea(&operation)
    case .nextAreaAgain: back(to: .nextArea, or: .nextArea, operation)
    case .access: access(&operation, &effects)
    case .collect: collect(&operation, &effects)
    case .nextMember: nextMember(&operation, &effects)
    case .service: service(&operation)
    case .resolve: resolve(&operation, &effects)
    case .lockTable: lockTable(&operation)
    case .clearEntry: clearEntry(&operation, &effects)
    case .setNew: setNew(&operation, &effects)
    case .unlockTable: unlockTable(&operation)
    case .upgrade: upgrade(&operation, &effects)
    case .unlockAgain: unlockAgain(&operation)
    case .respond: respond(&operation, &effects)
    case .cut: cut(&operation, &effects)
    case .drain: drain(&operation, &effects)
    case .forget: forget(&operation)
    case .beginGather: beginGather(&operation)
    case .gatherRange: gatherRange(&operation)
    case .tryLockRead: tryLockRead(&operation)
    case .downgrade: downgrade(&operation)
    case .insertMovedArea: insertMovedArea(&operation)
    case .markReaped: markReaped(&operation)
    case .moveEntries: moveEntries(&operation, &effects, keepLocks: false)
    case .moveEntriesLocked: moveEntries(&operation, &effects, keepLocks: true)
    case .unshare: unshareTable(&operation, &effects, .locked)
    case .unshareSilently: unshareTable(&operation, &effects, .silent)
    case .protectHuge: unshareTable(&operation, &effects, .locked, protects: true)
    case .protectHugeNarrow: unshareTable(&operation, &effects, .lockedNarrow, protects: true)
    case .unshareAgain: unshareAgain(operation)
    case .moveAgain: back(to: .moveEntries, or: .moveEntriesLocked, operation)
    case .clearYoung: clearYoung(&operation, &effects)
    case .flushSiteWhole: flushWhole(&operation, &effects)
    case .invalidatePage: runSite(.invalidatePage, &operation, &effects)
    // hugetlb has no such hook.
    case .changePTE: operation.fault.level > 0 ? .through : runSite(.changePTE, &operation, &effects)
    case .young: runSite(.young, &operation, &effects)
    case .nextPage: nextPage(&operation)
    case .nextPageAgain: back(to: .nextPage, or: .nextPage, operation)
    case .lockTables: lockTables(&operation)
    case .clearPage: clearPage(&operation, &effects)
    case .setReadOnly: setReadOnly(&operation, &effects)
    case .setShared: setShared(&operation, &effects)
    case .setMoved: setMoved(&operation, &effects)
    case .setMigration: setMigration(&operation, &effects)
    case .nextEdge: nextEdge(&operation)
    case .nextEdgeAgain: back(to: .nextEdge, or: .nextEdge, operation)
    case .nextBlock: nextBlock(&operation)
    case .nextBlockAgain: back(to: .nextBlock, or: .nextBlock, operation)
    case .lockBlock: lockBlock(&operation)
    case .markSplitting: markSplitting(&operation)
    case .invalidateHuge: invalidateHuge(&operation, &effects)
    case .fillTable: fillTable(&operation, &effects)
    case .clearTable: clearTable(&operation, &effects)
    case .setHuge: setHuge(&operation, &effects)
    case .copyBlock: copyBlock(&operation)
    case .retractTable: retractTable(&operation, &effects)
    case .setExclusive: setExclusive(&operation, &effects)
    case .setClean: setClean(&operation, &effects)
    case .setSwap: setSwap(&operation, &effects)
    case .writeOut: writeOut(&operation)
    case .nextBatch: nextBatch(&operation)
    case .freeLazily: freeLazily(&operation, &effects)
    case .copyPage: copyPage(&operation)
    case .remap: remap(&operation, &effects)
    case .takeQueue: takeQueue(&operation)
    case .freeQueue: freeQueue(&operation, &effects)
    case .mapKernel: mapKernel(&operation, &effects)
    case .answer: answer(&operation, &effects)
    case .done: .finished
    }
  }

  @inline(__always)
  private mutating func start(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    widenWindow(&operation)
    return runSite(.start, &operation, &effects)
  }

  @inline(__always)
  private func unshareAgain(_ operation: Operation) -> StepOutcome {
    .go(to: lists[operation.kind].firstIndex { [.unshare, .protectHuge, .protectHugeNarrow].contains($0) }!)
  }

  /// A loop of the list goes round.
  @inline(__always)
  private func back(to first: Step, or second: Step, _ operation: Operation) -> StepOutcome {
    .go(to: lists[operation.kind].firstIndex { $0 == first || $0 == second }!)
  }

  /// A loop of the list is over.
  @inline(__always)
  func leave(_ loop: Step, _ operation: Operation) -> StepOutcome {
    .go(to: lists[operation.kind].firstIndex(of: loop)! + 1)
  }
}
