// SPDX-License-Identifier: Apache-2.0

/// Mapping and unmapping of kernel memory: vmalloc, vunmap and vfree.
extension Machine {
  /// A range of whole pages in the kernel's half.
  @inline(__always)
  func require(kernel range: PageRange) throws(Refusal) {
    guard range.count > 0 else { throw Refusal(.emptyRange, .byteCount) }
    guard range.first >= PageRange.kernel.first, range.first < PageRange.kernel.end,
      range.count <= PageRange.kernel.end - range.first
    else { throw Refusal(.rangeOutsideKernelHalf, [.address, .byteCount], figure: PageRange.kernel.first << 12) }
    // One turn looks at every page.
    guard range.count <= Self.kernelRangeLimit else {
      throw Refusal(.limitReached, .byteCount, figure: Self.kernelRangeLimit << 12)
    }
  }
  private static let kernelRangeLimit: UInt64 = 65_536

  @inline(__always)
  func validate(kernel kind: OperationKind, _ range: PageRange) throws(Refusal) {
    try require(kernel: range)
    if kind == .kernelMap {
      // First, because it bounds the search for mapped pages.
      guard hasFrames(kernel: range) else {
        throw Refusal(.outOfFrames, .byteCount, figure: UInt64(memory.freeCount))
      }
      if let page = mappedKernelPage(range) {
        throw Refusal(.overlapsMapping, [.address, .byteCount], figure: page << 12)
      }
    } else {
      for page in range.first..<range.end where kernel.references.find(page, level: 0)?.held != true {
        throw Refusal(.notMapped, [.address, .byteCount], figure: page << 12)
      }
    }
  }

  /// Whether frames are free for the pages, and for the most tables that they can need.
  @inline(__always)
  private func hasFrames(kernel range: PageRange) -> Bool {
    let count = range.count
    let tables = 1 + (count >> 9 + 2) + (count >> 18 + 2) + (count >> 27 + 2)
    return UInt64(memory.freeCount) >= count + tables
  }

  @inline(__always)
  private func mappedKernelPage(_ range: PageRange) -> PageNumber? {
    (range.first..<range.end).first { kernel.references.find($0, level: 0)?.held == true }
  }

  /// P of vmalloc: fresh zeroed frames, readable and writable by the supervisor alone.
  mutating func mapKernel(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let range = operation.range
    // Others may have been here while the operation waited for the lock.
    guard hasFrames(kernel: range) else {
      operation.status = .outOfMemory
      return .through
    }
    guard mappedKernelPage(range) == nil else {
      operation.status = .areasChanged
      return .through
    }
    for page in range.first..<range.end {
      makeKernelRootEntry(page)
      let table = makeTables(kernel.root, page, level: 0)!
      let frame = memory.allocate(.data)!
      let entry = PageTableEntry.kernelLeaf(frame)
      memory.store(table, walker.format.index(page, level: 0), entry.bits)
      kernel.references.hold(
        page, level: 0,
        Reference(
          frame: frame, generation: memory.generation(frame), rights: entry.rights, held: true, changedTurn: turn))
    }
    report(.entries, operation, range, &effects)
    return .next(after: cost(settings.costs.entry, times: Int(range.count)))
  }

  /// The root entry for a page, in the kernel's root and in every other.
  private mutating func makeKernelRootEntry(_ page: PageNumber) {
    if kernel.root == 0 { kernel.root = memory.allocate(.table)! }
    let index = walker.format.index(page, level: walker.format.levelCount - 1)
    guard memory.load(kernel.root, index) == 0 else { return }
    let entry = PageTableEntry.table(memory.allocate(.table)!)
    memory.store(kernel.root, index, entry.bits)
    for id in spaces.ids { memory.store(spaces[id].root, index, entry.bits) }
  }

  /// A new root has the kernel's half from the beginning.
  mutating func copyKernelHalf(to root: FrameNumber) {
    guard kernel.root != 0 else { return }
    for index in KernelHalf.rootEntries {
      let entry = memory.load(kernel.root, index)
      if entry != 0 { memory.store(root, index, entry) }
    }
  }

  /// The caller has its answer here; what is left of the list is a worker's.
  mutating func answer(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    effects.append(.operation(outcome(of: operation)))
    operation.isAnswered = true
    return .next(after: 0)
  }
}

extension PageTableEntry {
  /// A 4 KiB leaf of the supervisor (Linux `PAGE_KERNEL`). The entries above it allow user accesses, as those of
  /// `pmd_populate_kernel` and its like do.
  static func kernelLeaf(_ frame: FrameNumber) -> PageTableEntry {
    PageTableEntry(bits: leaf(frame, .readWrite, level: 0).bits & ~user)
  }
}
