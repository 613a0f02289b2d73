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

    public var name: String {
      switch self {
      case .small: "small"
      case .fullBatch: "full batch"
      case .sharedTable: "shared table"
      case .dirtyFile: "dirty file pages"
      case .upgrade: "upgrade of cached rights"
      }
    }
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

  var steps: [Step] { order?.steps ?? StepLists.list(kind, column) }

  /// Whether the column's kernels have the operation.
  public var exists: Bool { !steps.isEmpty }

  /// The sizes of an operation that make a difference.
  public static func sizes(_ kind: OperationKind) -> [Size] { rows.filter { $0.kind == kind }.map(\.size) }

  /// The rows of the table: operations that change what a sharing device may reach (a mirror's fault does it as a CPU's), large ones also with a full batch.
  public static let rows: [(kind: OperationKind, size: Size)] =
    OperationKind.allCases.filter { ![.mmap, .unmap, .detach, .flushQueue, .kernelMap, .rangeFault].contains($0) }
    .flatMap { kind in
      [(kind, Size.small)] + (gathers.contains(kind) ? [(kind, .fullBatch)] : [])
        + (unlinks.contains(kind) ? [(kind, .sharedTable)] : [])
        + (kind == .munmap ? [(kind, .dirtyFile)] : [])
        + (kind == .pageRequestGroup ? [(kind, .upgrade)] : [])
    }
  private static let unlinks: [OperationKind] = [.munmap, .mremap, .kernelUnmap]
  private static let gathers: [OperationKind] = [.munmap, .dontNeed, .exit, .oomReap]
}
