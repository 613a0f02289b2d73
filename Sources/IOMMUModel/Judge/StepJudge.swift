// SPDX-License-Identifier: Apache-2.0

/// Reads the verdicts of a cell off its step list, without running anything.
///
/// It follows one page through the list, beside a device that does all that a correct device may do at the worst
/// moment: between two steps it fills its ATC again with whatever the table that the IOMMU sees grants, and uses what it
/// holds until it has completed an invalidation. What the device may hold when a frame or a table is freed, when a new
/// entry becomes visible, and when the operation returns, is the verdict.
public struct StepJudge {
  /// What the cell earns in the worst case.
  public private(set) var verdicts: VerdictSet = []
  /// For each verdict, the steps that lead to it.
  public private(set) var chains: [Explanation] = []

  private let cell: Cell
  private var events: [Explanation.Event] = []

  // What the page's entry grants, and what the device's ATC and a CPU's TLB may hold of the page that was there first.
  private var granted: Rights
  private var held: Rights
  private var heldByCPU = false
  /// The entry was there and is not, or not with all rights.
  private var isDropped = false
  private var isReduced = false
  private var isGathered = false
  private var isFreed = false
  private var isReplaced = false
  /// The IOTLB has the entry as it was before it gained the write right.
  private var withholdsWrite = false
  // The flush queue: whether the last flush went into it, and what it keeps.
  private var holdsBack = false
  private var isQueued = false
  private var isTableQueued = false
  private var keepsFrame = false
  // The tables on the way.
  private var isUnlinked = false
  private var isTableFreed = false
  private var tableCached = true
  /// The page's table is others' alone, who free it as soon as its lock allows; and how far what is gathered reaches.
  private var isUnshared = false
  private var isTableLocked = false
  private var gatherReaches = true
  // Windows.
  private var inEmptyTable = false
  private var isCut = false
  private var lock: Step?
  private var isReaped = false

  public init(_ cell: Cell) {
    self.cell = cell
    // Before a COW break and before KSM puts its page there, the entry is write-protected.
    let isShared = cell.kind == .cpuAccess || cell.kind == .pageRequestGroup || cell.kind == .ksmReplacePage
    // A page of the kernel is no device's and no process's.
    let isKernel = cell.kind == .kernelUnmap
    granted = isKernel ? [] : isShared ? .read : .readWrite
    held = granted
    heldByCPU = cell.kind != .exit && !isKernel
    switch cell.size {
    case .dirtyFile: follow(pass: 1, of: 2)
    case .fullBatch:
      // One page that is zapped with the full batch, and one of those after it.
      var other = self
      follow(pass: 1, of: 2)
      other.follow(pass: 2, of: 2)
      for chain in other.chains where !verdicts.contains(chain.kind) {
        verdicts.insert(chain.kind)
        chains.append(chain)
      }
    default: follow(pass: 1)
    }
  }

  /// - Parameters:
  ///   - pass: the zap, from 1 on, that takes the page.
  ///   - last: the zap that ends the range.
  private mutating func follow(pass: Int, of last: Int = 1) {
    let list = cell.steps
    var index = 0
    var zaps = 0
    while index < list.count {
      let step = list[index]
      switch step {
      case .zap:
        zaps += 1
        // mremap has moved everything away before.
        if zaps == pass && cell.kind != .mremap && !cell.size.isOfSharedLeaves {
          clear("P: clears the entry of the page")
        }
        if zaps == last { index = list.firstIndex(of: .again)! }
      case .unshare where !cell.size.isOfSharedLeaves,
        .protectHuge where !cell.size.isOfSharedLeaves && cell.size != .hugePage,
        .protectHugeNarrow where !cell.size.isOfSharedLeaves && cell.size != .hugePage:
        index = list.firstIndex(of: .unshareAgain)!
      // Only a split finds a huge page.
      case .nextEdge where cell.kind != .splitPages: index = list.firstIndex(of: .nextEdgeAgain)!
      case .again: index = list.firstIndex(of: .zap)! - 1
      case .resolve where cell.size == .upgrade:
        granted = .readWrite
        withholdsWrite = true
        note("P: gives the entry the write right")
        index = list.firstIndex(of: .upgrade)! - 1
      default:
        holdsBack = list.gathers(before: index)
        perform(step)
      }
      if isUnshared && !isTableLocked && tableCached && !isCut {
        book(
          .staleWalk, "walks through the table that it has cached, and that the last who used it has freed", by: .iommu)
      }
      refill()
      index += 1
    }
  }

  private mutating func perform(_ step: Step) {
    switch step {
    case .lockRead, .lockWrite, .tryLockRead: lock = step
    case .downgrade: lock = .lockRead
    case .unlock: lock = nil
    case .markReaped: isReaped = true
    case .start:
      if cell.strategy.emptyTable != .none {
        inEmptyTable = true
        flush("S: the PASID points to an empty table")
        // Who needs a page in here is told that it is not there. Its request waits while the lock is held for write.
        if lock != .lockWrite && !isReaped {
          book(.gaveUp, "asks for pages that are there, and is told that they are not")
        }
      } else {
        site(.start, "S")
      }
    case .end:
      if cell.strategy.emptyTable != .none {
        inEmptyTable = false
        flush("E: the PASID points to the table again")
      } else {
        site(.end, "E")
      }
    case .freeLazily:
      // The rights stay; only what the table remembers of the page's use goes.
      isGathered = true
      note("P: clears Dirty and Accessed")
    case .protect where cell.size.isOfSharedLeaves: break
    case .protect where cell.size == .hugePage && cell.steps.contains(.unshareAgain): break
    case .unshare, .unshareSilently, .protectHuge, .protectHugeNarrow: changeHuge(step)
    case .unlockTable: isTableLocked = false
    case .unshareAgain: isGathered = false
    case .protect, .copyEntries:
      granted = cell.kind == .numaHint ? [] : .read
      isReduced = true
      isGathered = true
      note("P: takes the write right away")
    case .clearEntry, .clearPage: clear("P: clears the entry of the page")
    case .moveEntries, .moveEntriesLocked: if !cell.size.isOfSharedLeaves { clear("P: moves the entry of the page") }
    case .remap where cell.kind == .migrateToDevice: note("P: sets an entry that says where the page is")
    case .setNew, .setShared, .remap: replace()
    case .invalidateHuge:
      granted = []
      isReduced = true
      isGathered = true
      note("P: the huge page's entry is not present")
    case .markSplitting: isGathered = true
    case .fillTable:
      granted = .readWrite
      isReduced = false
      note("P: the small pages' table takes the entry's place, with the same frames")
    case .clearTable: clear("P: clears the entry that leads to the page's table")
    case .retractTable:
      clear("P: clears the entry that leads to the page's table")
      isUnlinked = true
      // A read fault brings a page of a file back without the write right.
      isReduced = true
    case .setHuge: replace()
    case .setExclusive:
      // The page stays where it is, without rights for anybody else.
      isDropped = false
      isReduced = true
      note("P: sets an entry that is one device's own")
    case .setReadOnly, .setClean:
      isDropped = false
      isReduced = true
      granted = .read
      note("P: sets the entry again, without the write right")
    case .beginGather: isGathered = false
    case .gatherRange: isGathered = true
    case .unlinkTables:
      // Of an exit, nothing stays.
      let stays: [Cell.Size] = [.sharedTable, .hugePage, .sharedLeaves, .partOfSharedLeaves]
      if stays.contains(cell.size) && cell.kind != .exit { break }
      isUnlinked = true
      isGathered = true
      isTableQueued = false
      note("unlinks the page's table")
    case .cpuFlush:
      if isGathered {
        heldByCPU = false
        note("C: flushes the CPUs' TLBs")
      }
    case .flushSite, .flushSiteWhole: if isGathered { site(.flushSite, "the flush site") }
    case .invalidatePage: if isGathered { site(.invalidatePage, "invalidate_page") }
    // hugetlb has no such hook.
    case .changePTE: if isGathered && cell.size != .hugePage { site(.changePTE, "change_pte") }
    case .young: break
    case .free: free()
    case .upgrade: if withholdsWrite { site(.upgrade, "the hook for an upgrade") }
    case .release:
      if cell.strategy.release {
        isCut = true
        flush("release: the PASID is cut")
      }
    case .answer: note("the caller is answered, and a worker goes on")
    case .done, .unlockAgain: end()
    default: break
    }
  }

  // MARK: What happens to the page

  private mutating func clear(_ what: String) {
    // A flush that was queued before may have run.
    isQueued = false
    granted = []
    isDropped = true
    isGathered = true
    note(what)
  }

  /// P of hugetlb: a table that others share is left, and what nobody shares loses the right.
  private mutating func changeHuge(_ step: Step) {
    isTableLocked = [.unshare, .protectHuge, .protectHugeNarrow].contains(step)
    guard cell.size.isOfSharedLeaves else {
      guard isTableLocked else { return }
      granted = .read
      isReduced = true
      isGathered = true
      return note("P: takes the write right away")
    }
    let gathered = isGathered
    clear("P: clears the entry that leads to the page's table, which another process shares")
    isUnshared = true
    isGathered = step == .unshareSilently ? gathered : true
    gatherReaches = step != .protectHugeNarrow || cell.size == .sharedLeaves
    // A fault brings it back with the new rights.
    isReduced = cell.kind == .mprotect && cell.size == .sharedLeaves
  }

  private mutating func replace() {
    // Another page: what the table grants from here on is legal.
    isReplaced = true
    note("P: sets the entry to another frame")
    if !held.isEmpty && !isFreed { book(.splitView, "uses the old page while a CPU uses the new one") }
  }

  private mutating func free() {
    guard isGathered else { return }
    if isUnlinked && isTableQueued {
      note("T: the page's table goes into the flush queue")
      isUnlinked = false
      // It stays, and the flush that frees it reaches the walk cache before.
      tableCached = false
    }
    if isUnlinked {
      note("T: frees the page's table")
      if tableCached && !isCut { book(.staleWalk, "walks through the freed table that it has cached", by: .iommu) }
      isUnlinked = false
      isTableFreed = true
      tableCached = false
    }
    // A COW break only puts its reference back: the child still holds the frame.
    let freesFrame =
      isDropped && !isFreed && !isUnshared
      && ![.cpuAccess, .pageRequestGroup, .mremap, .retractTables].contains(cell.kind)
    if freesFrame && isQueued && cell.strategy.deferral == .held {
      isFreed = true
      keepsFrame = true
      note("F: the page goes into the flush queue")
      if heldByCPU { book(.staleCPU, "uses the page that its TLB still holds, when the queue has freed it", by: .cpu) }
    } else if freesFrame {
      isFreed = true
      note("F: frees the page")
      if !held.isEmpty { book(.staleDMA, "uses the freed page that its ATC still holds") }
      if heldByCPU { book(.staleCPU, "uses the freed page that its TLB still holds", by: .cpu) }
    }
    isGathered = false
  }

  private mutating func end() {
    note("the operation returns")
    if withholdsWrite { book(.gaveUp, "is told Success each time, and the IOTLB answers without the write right") }
    // A CPU that broke COW uses its new page before anything else: a split view, as above.
    if isDropped && !held.isEmpty && !keepsFrame && cell.kind != .cpuAccess {
      book(.staleDMA, "uses the page that the operation has taken away")
    }
    if isReduced && held.contains(.write) {
      book(.writeAfterProtect, "writes to the page that was protected")
    }
  }

  // MARK: Flushes

  private mutating func site(_ site: Strategy.Sites, _ name: String) {
    guard cell.strategy.sites.contains(site) else {
      let isLacking = (isDropped || isReduced) && !held.isEmpty
      return note("\(name): nothing is flushed", isLacking ? .missing : .step)
    }
    isQueued = false
    // The kernel's I waits in no address space's queue.
    switch cell.kind == .kernelUnmap ? .none : cell.strategy.deferral {
    case .lazy: isQueued = true
    case .held: isQueued = holdsBack
    case .none: break
    }
    isTableQueued = isQueued
    if isQueued { return note("\(name): I waits in the flush queue") }
    // S…E of 2014 is as wide as the range, whatever else goes with a table.
    let isOutside = cell.size == .partOfSharedLeaves && cell.column == .linux2014
    flush("\(name): I", reaches: site == .flushSite ? gatherReaches : !isOutside)
  }

  /// - Parameter reaches: whether the page is in the range of what runs I.
  private mutating func flush(_ what: String, reaches: Bool = true) {
    note(what, to: .iommu)
    tableCached = false
    withholdsWrite = false
    let range = PageRange(first: 0, count: Machine.hugePageCount)
    if cell.strategy.flushesATC && (reaches || cell.strategy.reach.takes(range) == .all) {
      if !held.isEmpty { note("an invalidation, and its completion", from: .iommu, to: .device) }
      held = []
    }
  }

  /// Between two steps: the CPU uses the page again, and the device asks again. An exiting process runs on no CPU.
  private mutating func refill() {
    if !granted.isEmpty && !isReplaced && cell.kind != .exit { heldByCPU = true }
    guard !inEmptyTable, !isCut else { return }
    if !isUnlinked && !isTableFreed && !isUnshared { tableCached = true }
    let more = granted.subtracting(held)
    guard !isReplaced, !more.isEmpty else { return }
    held.formUnion(granted)
    note("the device fills its ATC again", from: .iommu, to: .device)
  }

  // MARK: The story

  /// Lanes of the story; raw values are their places.
  private enum Lane: Int { case operation, iommu, device, cpu }

  private var lanes: [Explanation.Lane] {
    let known = Strategy.named.first { $0.strategy == cell.strategy }?.name
    return [
      .init(.operation, cell.kind.name, detail: cell.size == .small ? "" : cell.size.name),
      .init(.iommu, "the IOMMU", detail: known.map { "strategy \($0)" } ?? "a strategy of its own"),
      .init(.device, "the device", detail: "with its ATC"), .init(.cpu, "a CPU", detail: "with its TLB"),
    ]
  }

  private mutating func note(
    _ text: String, _ kind: Explanation.Event.Kind = .step, from: Lane = .operation, to: Lane? = nil
  ) {
    let event = Explanation.Event(
      at: nil, kind: kind, from: from.rawValue, to: (to ?? from).rawValue, text: text)
    if events.last != event { events.append(event) }
  }

  private mutating func book(_ kind: VerdictKind, _ what: String, by lane: Lane = .device) {
    guard !verdicts.contains(kind) else { return }
    verdicts.insert(kind)
    let end = Explanation.Event(
      at: nil, kind: .verdict, from: lane.rawValue, to: lane.rawValue, text: "\(what): \(kind.name)")
    let who = lanes[lane.rawValue].name
    let sentence = "\(who.prefix(1).uppercased())\(who.dropFirst()) \(what)."
    chains.append(Explanation(kind, sentence, lanes, events + [end]))
  }
}
