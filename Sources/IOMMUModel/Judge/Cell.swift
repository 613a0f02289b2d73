// SPDX-License-Identifier: Apache-2.0

/// One cell of the table operation × column × strategy: what is judged before anything runs, and then tried.
public struct Cell: Sendable {
  /// How much of the address space it takes.
  public enum Size: UInt8, Sendable, CaseIterable {
    /// Less than a gather batch, and all that the page tables on the way map.
    case small
    /// More than a gather batch: C, I and F also run inside S…E.
    case fullBatch
    /// A neighbour uses the page tables on the way too: they stay.
    case sharedTable
    /// Behind the pages lie dirty ones of a file: C, I and F run for all of them before the page-table lock goes.
    case dirtyFile
    /// A page of one user that is write-protected, on hardware that caches rights.
    case upgrade
    /// A huge page of hugetlb.
    case hugePage
    /// 1 GiB of a hugetlbfs file, whose page table another process shares; it unmaps its part as soon as it can.
    case sharedLeaves
    /// A part of it that does not have the page.
    case partOfSharedLeaves
    /// Kernel memory whose page tables are freed at once, whatever the column does.
    case tablesFreedAtOnce
    /// The same by a worker, after I.
    case tablesFreedAfterFlush

    public var name: String {
      switch self {
      case .small: "small"
      case .fullBatch: "full batch"
      case .sharedTable: "shared table"
      case .dirtyFile: "dirty file pages"
      case .upgrade: "upgrade of cached rights"
      case .hugePage: "huge page"
      case .sharedLeaves: "shared PMD table"
      case .partOfSharedLeaves: "part of a shared PMD table"
      case .tablesFreedAtOnce: "tables freed at once"
      case .tablesFreedAfterFlush: "tables freed after I"
      }
    }

    /// Whether the page's table is one that address spaces share.
    public var isOfSharedLeaves: Bool { self == .sharedLeaves || self == .partOfSharedLeaves }
  }
  public var kind: OperationKind
  public var size: Size
  public var column: KernelColumn
  public var strategy: Strategy
  /// The order that somebody wrote for the operation, in the place of the column's own.
  public var order: UserOrder?

  public init(
    _ kind: OperationKind, _ size: Size, _ column: KernelColumn, _ strategy: Strategy, order: UserOrder? = nil
  ) {
    precondition(order == nil || order!.kind == kind && order!.column == column, "an order is for one operation")
    self.kind = kind
    self.size = size
    self.column = column
    self.strategy = strategy
    self.order = order
  }

  /// The setting of its machine.
  public var kernelTableFree: KernelTableFree? {
    size == .tablesFreedAtOnce ? .atOnce : size == .tablesFreedAfterFlush ? .afterFlush : nil
  }

  var steps: [Step] { order?.steps ?? StepLists.list(kind, column, kernelTableFree) }

  /// Whether the column's kernels have the operation.
  public var exists: Bool { !steps.isEmpty }

  /// The rows of the table: operations that change what a sharing device may reach (a mirror's fault does it as a CPU's),
  /// each in the sizes that make a difference.
  public static let rows: [(kind: OperationKind, size: Size)] =
    OperationKind.allCases.filter { ![.mmap, .unmap, .detach, .flushQueue, .kernelMap, .rangeFault].contains($0) }
    .flatMap { kind in sizes(kind).map { (kind, $0) } }

  public static func sizes(_ kind: OperationKind) -> [Size] {
    var sizes: [Size] = [.small]
    if [.munmap, .dontNeed, .exit, .oomReap].contains(kind) { sizes.append(.fullBatch) }
    if [.munmap, .mremap, .kernelUnmap].contains(kind) { sizes.append(.sharedTable) }
    if kind == .munmap { sizes.append(.dirtyFile) }
    if kind == .kernelUnmap { sizes += [.tablesFreedAtOnce, .tablesFreedAfterFlush] }
    if kind == .pageRequestGroup { sizes.append(.upgrade) }
    if [.munmap, .dontNeed, .mprotect, .cpuAccess, .pageRequestGroup].contains(kind) { sizes.append(.hugePage) }
    if [.munmap, .dontNeed, .mprotect, .mremap, .exit].contains(kind) { sizes.append(.sharedLeaves) }
    if [.munmap, .dontNeed, .mprotect, .mremap].contains(kind) { sizes.append(.partOfSharedLeaves) }
    return sizes
  }
}
