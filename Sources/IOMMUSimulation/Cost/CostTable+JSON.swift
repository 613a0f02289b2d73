// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

extension CostTable {
  /// One JSON object; durations are nanoseconds.
  public var json: String {
    let rows = rows.map { row in
      let shared = zip(Self.strategies, row.shared).map { strategy, costs in
        let list = zip(Self.sharers, costs).map { "\"\($0)\":\(Self.json($1))" }
        return "\"\(strategy.name)\":{\(list.joined(separator: ","))}"
      }
      return "{\"operation\":\"\(row.cell.kind.identifier)\",\"size\":\"\(row.cell.size.name)\","
        + "\"column\":\"\(row.column.name)\",\"noNotifier\":\(row.bare.map(Self.json) ?? "null"),"
        + "\"skipped\":\(Self.json(row.skipped)),\"called\":\(Self.json(row.called)),"
        + "\"strategies\":{\(shared.joined(separator: ","))}}"
    }
    let columns = KernelColumn.allCases.filter { column in self.rows.contains { $0.column == column } }
    let waits = columns.map { column in
      let list = waiting(column).map { wait in
        "{\"strategy\":\"\(wait.strategy)\",\"devices\":\(wait.sharers),"
          + "\"longestUnderPageTableLock\":\(wait.longestUnderPageTableLock),"
          + "\"underPageTableLock\":\(Int(wait.underPageTableLock)),"
          + "\"longestUnderMmapLock\":\(wait.longestUnderMmapLock),\"underMmapLock\":\(Int(wait.underMmapLock)),"
          + "\"all\":\(Int(wait.all)),\"sleepable\":\(Int(wait.sleepable))}"
      }
      return "\"\(column.name)\":[\(list.joined(separator: ","))]"
    }
    return "{\"version\":1,\"runs\":\(runs),\"rows\":[\(rows.joined(separator: ","))],"
      + "\"waiting\":{\(waits.joined(separator: ","))}}"
  }

  private static func json(_ cost: CellCost) -> String {
    func wait(_ wait: CellCost.Wait) -> String { "{\"longest\":\(wait.longest),\"mean\":\(Int(wait.mean))}" }
    return
      "{\"mean\":\(Int(cost.nanoseconds)),\"invalidations\":\(cost.invalidations),\"waiting\":\(wait(cost.waiting)),"
      + "\"underPageTableLock\":\(wait(cost.underPageTableLock)),\"underMmapLock\":\(wait(cost.underMmapLock)),"
      + "\"sleepable\":\(Int(cost.sleepable))}"
  }
}
