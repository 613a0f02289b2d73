// SPDX-License-Identifier: Apache-2.0

/// One step of a memory operation. Step lists are data (`Programs`); what a step does is in `Machine+Steps`.
/// Steps that nobody can see from outside the locks go together with the next one in a turn; the letters of design §4
/// (S, P, C, I, F, T, E) end a turn each.
enum Step: UInt8 {
  case lockRead, lockWrite, unlock

  // Areas.
  case checkBlocks, insertArea, detachAreas, changeAreas

  // The letters.
  case start
  case hold
  /// P of a zap, one page-table-lock hold a turn. Goes on at the step after `again` when the range is done, and
  /// at the next step, with the lock held, when the gather batch is full.
  case zap
  case protect
  case copyEntries
  case end
  case unlinkTables
  case cpuFlush
  case flushSite
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
  case nextMember
  case service
  /// Under the page-table lock: finds the area and changes the table, or goes on to a COW break, or to `unlock`.
  case resolve
  case lockTable
  case clearEntry
  case setNew
  case unlockTable
  case unlockAgain
  case respond

  // Detach.
  case cut
  case drain
  case forget

  case done
}

/// The step lists, 2014 column of `reference/linux-mm.md` §3 (Linux 3.19–4.12).
struct Programs {
  /// By `OperationKind.rawValue`.
  let lists: [[Step]]

  init() {
    lists = OperationKind.allCases.map(Programs.list)
  }

  /// COW break (4.1 `wp_page_copy`): S clear C I change_pte set-new E* put-old, I under the page-table lock.
  private static let copyOnWrite: [Step] = [
    .start, .hold, .lockTable, .clearEntry, .cpuFlush, .flushSite, .setNew, .unlockTable, .end, .free,
  ]

  static func list(_ kind: OperationKind) -> [Step] {
    switch kind {
    case .mmap:
      [.lockWrite, .insertArea, .unlock, .done]
    case .munmap:
      // do_munmap: areas leave first; E before the tables are unlinked; C, I, F and T come with tlb_finish_mmu.
      [
        .lockWrite, .checkBlocks, .detachAreas, .start, .hold,
        .zap, .cpuFlush, .flushSite, .unlockTable, .free, .again,
        .end, .unlinkTables, .cpuFlush, .flushSite, .free, .unlock, .done,
      ]
    case .dontNeed:
      [
        .lockRead, .checkBlocks, .start, .hold,
        .zap, .cpuFlush, .flushSite, .unlockTable, .free, .again,
        .end, .cpuFlush, .flushSite, .free, .unlock, .done,
      ]
    case .mprotect:
      // No I of its own in 2014: what E* runs must do.
      [.lockWrite, .checkBlocks, .changeAreas, .start, .hold, .protect, .end, .cpuFlush, .unlock, .done]
    case .fork:
      [
        .lockWrite, .createChild,
        .nextArea, .start, .hold, .copyEntries, .end, .nextAreaAgain,
        .cpuFlush, .unlock, .done,
      ]
    case .exit:
      // The subscriber is gone after `release`: no S, no E, no I.
      [
        .lockWrite, .release, .detachAreas,
        .zap, .cpuFlush, .unlockTable, .free, .again,
        .unlinkTables, .cpuFlush, .free, .destroySpace, .done,
      ]
    case .cpuAccess:
      [.access, .lockRead, .service, .resolve] + copyOnWrite + [.unlockAgain, .done]
    case .pageRequestGroup:
      [.nextMember, .lockRead, .service, .resolve] + copyOnWrite + [.unlockAgain, .respond, .done]
    case .unmap:
      // Strict unmap of a PAGING domain: entries, tables, I with completion, then the frames.
      [
        .lockWrite, .zap, .flushSite, .unlockTable, .free, .again,
        .unlinkTables, .flushSite, .free, .unlock, .done,
      ]
    case .detach:
      [.cut, .flushSite, .drain, .forget, .done]
    }
  }
}
