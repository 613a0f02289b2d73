// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// The cost question of the 2014 thread: what every operation takes without a notifier, with notifiers of which none needs
/// the call, and with devices that share the address space, under every strategy. As Markdown it is what is committed as
/// `docs/operation-costs.md`.
public struct CostTable: Sendable {
  /// Devices that share the address space.
  public static let sharers = [1, 8, 64]
  /// Strategies that flush anything; under the others no notifier needs the call.
  public static var strategies: [(name: String, strategy: Strategy)] {
    Strategy.named.filter { !$0.strategy.sites.isEmpty || $0.strategy.emptyTable != .none }
  }

  public struct Row: Sendable {
    public let cell: (kind: OperationKind, size: Cell.Size)
    public let column: KernelColumn
    /// Nobody has registered a notifier; nil: only a device makes the operation happen.
    public let bare: CellCost?
    /// A device has, and needs none of the calls: the caller sees so and skips them, or it calls.
    public let skipped: CellCost
    public let called: CellCost
    /// By strategy, then by `sharers`.
    public let shared: [[CellCost]]

    public init(_ kind: OperationKind, _ size: Cell.Size, _ column: KernelColumn, runs: UInt64) {
      cell = (kind, size)
      self.column = column
      let idle = Cell(kind, size, column, Strategy(sites: [], release: false))
      bare = kind == .pageRequestGroup ? nil : CellCost(idle, sharers: 0, callsHooks: false, runs: runs)
      skipped = CellCost(idle, sharers: 1, callsHooks: false, runs: runs)
      called = CellCost(idle, sharers: 1, runs: runs)
      shared = CostTable.strategies.map { _, strategy in
        CostTable.sharers.map { CellCost(Cell(kind, size, column, strategy), sharers: $0, runs: runs) }
      }
    }

    public var name: String { cell.size == .small ? cell.kind.name : "\(cell.kind.name), \(cell.size.name)" }
  }

  public let runs: UInt64
  public let rows: [Row]

  /// - Parameter kinds: whose rows; nil: all.
  public init(columns: [KernelColumn] = KernelColumn.allCases, kinds: [OperationKind]? = nil, runs: UInt64 = Self.runs)
  {
    self.runs = runs
    rows = columns.flatMap { column in
      Cell.rows.filter { kinds?.contains($0.kind) ?? true }
        .filter { Cell($0.kind, $0.size, column, .none).exists }
        .map { Row($0.kind, $0.size, column, runs: runs) }
    }
  }

  /// Seeds of each figure of the committed table.
  public static let runs: UInt64 = 50

  // MARK: Waiting for I

  /// What the operations of a column wait for I under a strategy, one of each.
  public struct Waiting: Sendable {
    public let strategy: String
    public let sharers: Int
    /// Longest of one site, and the sum over one of each operation; nanoseconds.
    public var longestUnderPageTableLock: Nanoseconds = 0
    public var longestUnderMmapLock: Nanoseconds = 0
    public var underPageTableLock: Double = 0
    public var underMmapLock: Double = 0
    public var all: Double = 0
    public var sleepable: Double = 0
  }

  public func waiting(_ column: KernelColumn) -> [Waiting] {
    Self.strategies.indices.flatMap { strategy in
      Self.sharers.indices.map { sharers in
        var sum = Waiting(strategy: Self.strategies[strategy].name, sharers: Self.sharers[sharers])
        for row in rows where row.column == column {
          let cost = row.shared[strategy][sharers]
          sum.longestUnderPageTableLock = max(sum.longestUnderPageTableLock, cost.underPageTableLock.longest)
          sum.longestUnderMmapLock = max(sum.longestUnderMmapLock, cost.underMmapLock.longest)
          sum.underPageTableLock += cost.underPageTableLock.mean
          sum.underMmapLock += cost.underMmapLock.mean
          sum.all += cost.waiting.mean
          sum.sleepable += cost.sleepable
        }
        return sum
      }
    }
  }
}
