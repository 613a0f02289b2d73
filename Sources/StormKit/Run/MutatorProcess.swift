// SPDX-License-Identifier: Apache-2.0
import Foundation
import RPCClient

/// `iommulab mutate`: changes address spaces by the lists that it gets, paced by the accesses that devices have done.
public enum MutatorProcess {
  /// Runs until the lists are done and the parent has read the result.
  public static func run() -> Never {
    let parent = ParentLink()
    do {
      let configuration = try LineJSON.decode(MutatorConfiguration.self, parent.configuration())
      let lanes = try configuration.lanes.map { lane throws(StormFailure) in
        MutatorLane(
          lane, client: try LabClient(configuration.service), machine: configuration.machine,
          totalAccesses: configuration.totalAccesses, parent: parent)
      }
      parent.send("ready")
      parent.waitForStart()
      let start = monotonicNow()
      let waitBefore = SchedulerWait()
      let threads = lanes.map { lane in
        let thread = Thread { lane.run() }
        thread.start()
        return thread
      }
      var result = MutatorResult()
      for lane in lanes { try lane.collect(into: &result) }
      result.wait = CPUWait(
        waited: SchedulerWait().longest(since: waitBefore), elapsed: monotonicNow() - start)
      withExtendedLifetime(threads) {}
      parent.send("result " + LineJSON.encode(result))
    } catch {
      parent.send("error " + LineJSON.encode("\(error)"))
    }
    parent.waitForEnd()
  }
}

/// One list of steps on one address space, on a thread and a connection of its own.
///
/// `@unchecked`: the thread that runs the list is the only one that touches it until `finished` is signalled.
final class MutatorLane: @unchecked Sendable {
  private let lane: MutatorConfiguration.Lane
  private let operations: MemoryOperations
  private let totalAccesses: UInt64
  private let parent: ParentLink
  private let finished = DispatchSemaphore(value: 0)
  private var result = MutatorResult()
  private var failure: StormFailure?
  private var stamp: UInt64
  /// What each of the mutator's own pages must hold.
  private var stored: [UInt64: UInt64] = [:]
  /// Pages of kernel memory that it has mapped. They stay until the next such step: devices walk through their tables.
  private var kernelPages: UInt64 = 0

  init(
    _ lane: MutatorConfiguration.Lane, client: LabClient, machine: String, totalAccesses: UInt64, parent: ParentLink
  ) {
    self.lane = lane
    self.totalAccesses = totalAccesses
    self.parent = parent
    operations = MemoryOperations(client, machine: machine, addressSpace: lane.addressSpace, cpu: lane.cpu)
    // No device writes values with the top bit set.
    stamp = 1 << 63 | UInt64(lane.own.pasid) << 40
  }

  func run() {
    do throws(StormFailure) {
      for (index, step) in lane.steps.enumerated() {
        parent.waitForProgress(totalAccesses * UInt64(index) / UInt64(lane.steps.count))
        try perform(step)
        parent.send("steps \(lane.own.pasid) \(index + 1)")
      }
      try unmapKernel()
    } catch {
      failure = error
      // At once: the other lists wait for this one's progress, and nobody would hear of it.
      parent.send("error " + LineJSON.encode("\(error)"))
    }
    finished.signal()
  }

  /// Waits for the list's end and adds its figures.
  func collect(into sum: inout MutatorResult) throws(StormFailure) {
    finished.wait()
    if let failure { throw failure }
    sum.operations += result.operations
    sum.loadsVerified += result.loadsVerified
    sum.mismatches += result.mismatches
    sum.operationLatency.merge(result.operationLatency)
  }

  private func perform(_ step: MutatorStep) throws(StormFailure) {
    switch step.kind {
    case .dontNeed:
      try measured { () throws(StormFailure) in try operations.dontNeed(step.firstPage, step.pageCount) }
    case .remap:
      try measured { () throws(StormFailure) in try operations.munmap(step.firstPage, step.pageCount) }
      try measured { () throws(StormFailure) in try operations.mmap(step.firstPage, step.pageCount) }
    case .forkAndWrite: try forkAndWrite(step)
    case .recycle: try recycle(step)
    case .verify: try verify(step)
    case .protect:
      try measured { () throws(StormFailure) in try operations.mprotect(step.firstPage, step.pageCount, write: false) }
      try measured { () throws(StormFailure) in try operations.mprotect(step.firstPage, step.pageCount, write: true) }
    case .move:
      let spare = StormPlan.spareFirstPage
      try measured { () throws(StormFailure) in try operations.mremap(step.firstPage, step.pageCount, to: spare) }
      try measured { () throws(StormFailure) in try operations.mremap(spare, step.pageCount, to: step.firstPage) }
    case .numaHint: try measured { () throws(StormFailure) in try operations.numaHint(step.firstPage, step.pageCount) }
    case .clearSoftDirty: try measured { () throws(StormFailure) in try operations.clearSoftDirty() }
    case .clearYoung:
      try measured { () throws(StormFailure) in try operations.clearYoung(step.firstPage, step.pageCount) }
    case .ksmWriteProtect:
      try measured { () throws(StormFailure) in try operations.ksmWriteProtect(step.firstPage, step.pageCount) }
    case .migrate: try measured { () throws(StormFailure) in try operations.migrate(step.firstPage, step.pageCount) }
    case .reclaim: try measured { () throws(StormFailure) in try operations.reclaim(step.firstPage, step.pageCount) }
    case .madviseFree:
      try measured { () throws(StormFailure) in try operations.madviseFree(step.firstPage, step.pageCount) }
    case .deviceMigrate:
      try measured { () throws(StormFailure) in try operations.migrateToDevice(step.firstPage, step.pageCount) }
    case .deviceExclusive:
      try measured { () throws(StormFailure) in try operations.makeDeviceExclusive(step.firstPage, step.pageCount) }
    case .userfaultProtect:
      for protect in [true, false] {
        try measured { () throws(StormFailure) in
          try operations.uffdWriteProtect(step.firstPage, step.pageCount, protect: protect)
        }
      }
    case .file: try useFile(step)
    case .hugePages: try useHugePages(step)
    case .hugetlb: try shareHugeTable()
    case .ksmMerge: try mergePages()
    case .kernelMemory:
      if kernelPages > 0 { return try unmapKernel() }
      let first = StormPlan.kernelFirstPage(ofPASID: lane.own.pasid)
      try measured { () throws(StormFailure) in try operations.kernelMap(first, step.pageCount) }
      kernelPages = step.pageCount
    case .reap: try reap()
    case .userfaultMove: try userfaultMove(step)
    }
  }

  private func unmapKernel() throws(StormFailure) {
    guard kernelPages > 0 else { return }
    let (first, count) = (StormPlan.kernelFirstPage(ofPASID: lane.own.pasid), kernelPages)
    try measured { () throws(StormFailure) in try operations.kernelUnmap(first, count) }
    kernelPages = 0
  }

  private func forkAndWrite(_ step: MutatorStep) throws(StormFailure) {
    var child = ""
    try measured { () throws(StormFailure) in child = try operations.fork() }
    for page in step.firstPage..<step.firstPage + step.pageCount { try store(page) }
    let childID = child
    try measured { () throws(StormFailure) in try operations.exit(child: childID) }
  }

  /// The child of a fork loses its pages at once; the parent keeps its own.
  private func reap() throws(StormFailure) {
    var child = ""
    try measured { () throws(StormFailure) in child = try operations.fork() }
    let childID = child
    try measured { () throws(StormFailure) in try operations.oomReap(childID) }
    try measured { () throws(StormFailure) in try operations.exit(child: childID) }
  }

  /// The pages go to the spare place, which is mapped for it, and come back.
  private func userfaultMove(_ step: MutatorStep) throws(StormFailure) {
    let spare = StormPlan.spareFirstPage
    // One page at least is in memory, and this process's alone.
    stored[step.firstPage] = try store(step.firstPage)
    try measured { () throws(StormFailure) in try operations.mmap(spare, step.pageCount) }
    try measured { () throws(StormFailure) in try operations.uffdioMove(step.firstPage, step.pageCount, to: spare) }
    try measured { () throws(StormFailure) in try operations.uffdioMove(spare, step.pageCount, to: step.firstPage) }
    try measured { () throws(StormFailure) in try operations.munmap(spare, step.pageCount) }
  }

  /// A file is written through a mapping, by writeback and by reclaim; what comes back is compared.
  private func useFile(_ step: MutatorStep) throws(StormFailure) {
    let first = StormPlan.spareFirstPage
    var file = ""
    try measured { () throws(StormFailure) in
      file = try operations.createFile(StormPlan.hugePageCount)
      try operations.mmap(first, StormPlan.hugePageCount, file: file, shared: true)
    }
    let pages = first..<first + step.pageCount
    var expected: [UInt64: UInt64] = [:]
    for page in pages { expected[page] = try store(page) }
    try measured { () throws(StormFailure) in try operations.writeback(first, step.pageCount) }
    expected[first] = try store(first)
    try measured { () throws(StormFailure) in try operations.retractTables(first, StormPlan.hugePageCount) }
    try verify(expected)
    try measured { () throws(StormFailure) in try operations.reclaim(first, step.pageCount) }
    try verify(expected)
    try usePrivately(file, step.pageCount, expected)
    // Dirty pages of a file: the unmap flushes before it lets go of the page-table lock.
    for page in pages { try store(page) }
    try measured { () throws(StormFailure) in
      try operations.munmap(first, StormPlan.hugePageCount)
      try operations.deleteFile(file)
    }
  }

  /// A private mapping of a file takes its contents over, and leaves them to the shared one as they are.
  private func usePrivately(
    _ file: String, _ pageCount: UInt64, _ contents: [UInt64: UInt64]
  ) throws(StormFailure) {
    let first = StormPlan.spareFirstPage
    let own = first + StormPlan.hugePageCount
    try measured { () throws(StormFailure) in try operations.mmap(own, pageCount, file: file, shared: false) }
    var expected = contents
    for page in own..<own + pageCount { expected[page] = contents[page - StormPlan.hugePageCount] }
    try verify(expected)
    for page in own..<own + pageCount { expected[page] = try store(page) }
    try verify(expected)
    try measured { () throws(StormFailure) in try operations.munmap(own, pageCount) }
  }

  private func useHugePages(_ step: MutatorStep) throws(StormFailure) {
    let first = StormPlan.spareFirstPage
    let count = StormPlan.hugePageCount
    try measured { () throws(StormFailure) in try operations.mmap(first, count) }
    var expected: [UInt64: UInt64] = [:]
    for page in first..<first + step.pageCount { expected[page] = try store(page) }
    try measured { () throws(StormFailure) in try operations.collapse(first, count) }
    try verify(expected)
    expected[first] = try store(first)
    try measured { () throws(StormFailure) in try operations.splitPages(first, count) }
    try verify(expected)
    try measured { () throws(StormFailure) in try operations.munmap(first, count) }
  }

  /// A child shares a page table of a hugetlbfs file; the parent leaves it and takes it again, and what either has written
  /// is compared.
  private func shareHugeTable() throws(StormFailure) {
    let (first, count) = (StormPlan.hugetlbFirstPage, StormPlan.hugeTablePageCount)
    var file = ""
    try measured { () throws(StormFailure) in
      file = try operations.createFile(count, pageSize: StormPlan.hugePageCount << 12)
      try operations.mmap(first, count, file: file, shared: true)
    }
    stamp += 1
    if try operations.storeHuge(first << 12, stamp) {
      var expected = [first: stamp]
      var child = ""
      try measured { () throws(StormFailure) in child = try operations.fork() }
      let ofChild = MemoryOperations(operations.client, machine: operations.machine, addressSpace: child, cpu: lane.cpu)
      try verify(expected, ofChild)
      try measured { () throws(StormFailure) in try operations.mprotect(first, StormPlan.hugePageCount, write: false) }
      try measured { () throws(StormFailure) in try operations.mprotect(first, StormPlan.hugePageCount, write: true) }
      try verify(expected)
      stamp += 1
      if try ofChild.storeHuge((first + StormPlan.hugePageCount) << 12, stamp) {
        expected[first + StormPlan.hugePageCount] = stamp
      }
      try measured { () throws(StormFailure) in try operations.dontNeed(first, StormPlan.hugePageCount) }
      try verify(expected)
      try measured { () throws(StormFailure) in try operations.munmap(first, count) }
      try verify(expected, ofChild)
      try measured { () throws(StormFailure) in try operations.exit(child: ofChild.addressSpace) }
    } else {
      try measured { () throws(StormFailure) in try operations.munmap(first, count) }
    }
    try measured { () throws(StormFailure) in try operations.deleteFile(file) }
  }

  /// The pages come to the spare place when nobody may write to them any more: mirrors would make them different.
  private func mergePages() throws(StormFailure) {
    let first = StormPlan.spareFirstPage
    let origin = first + StormPlan.hugePageCount
    try measured { () throws(StormFailure) in try operations.mmap(origin, 2) }
    stamp += 1
    for page in [origin, origin + 1] { try operations.store(page << 12, stamp) }
    var expected = [first: stamp, first + 1: stamp]
    try measured { () throws(StormFailure) in try operations.mprotect(origin, 2, write: false) }
    try measured { () throws(StormFailure) in try operations.mremap(origin, 2, to: first) }
    try measured { () throws(StormFailure) in try operations.ksmWriteProtect(first, 2) }
    try measured { () throws(StormFailure) in try operations.ksmReplacePage(first, keptAt: first + 1) }
    try verify(expected)
    try measured { () throws(StormFailure) in try operations.mprotect(first, 2, write: true) }
    expected[first] = try store(first)
    try verify(expected)
    try measured { () throws(StormFailure) in try operations.munmap(first, 2) }
  }

  private func verify(
    _ expected: [UInt64: UInt64], _ other: MemoryOperations? = nil
  ) throws(StormFailure) {
    for (page, value) in expected.sorted(by: { $0.key < $1.key }) {
      result.loadsVerified += 1
      if try (other ?? operations).load(page << 12) != value { result.mismatches += 1 }
    }
  }

  private func recycle(_ step: MutatorStep) throws(StormFailure) {
    try measured { () throws(StormFailure) in try operations.dontNeed(step.firstPage, step.pageCount) }
    for page in step.firstPage..<step.firstPage + step.pageCount {
      stored[page] = 0
      stored[page] = try store(page)
    }
  }

  private func verify(_ step: MutatorStep) throws(StormFailure) {
    try verify(stored.filter { $0.key >= step.firstPage && $0.key < step.firstPage + step.pageCount })
  }

  /// Stores a word that nobody else stores, at the start of the page.
  @discardableResult
  private func store(_ page: UInt64) throws(StormFailure) -> UInt64 {
    stamp += 1
    try operations.store(page << 12, stamp)
    return stamp
  }

  private func measured(_ body: () throws(StormFailure) -> Void) throws(StormFailure) {
    let start = monotonicNow()
    try body()
    result.operations += 1
    result.operationLatency.record(monotonicNow() - start)
  }
}
