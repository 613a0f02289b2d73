// SPDX-License-Identifier: Apache-2.0
// Goal: what the step lists promise is what the machine does. Method: every cell of operation × column × strategy is
// judged from its list alone, then tried beside devices that do their worst, and the two must agree, safe cells
// included. What breaks it: any letter that is moved in a list, any site that a strategy loses.
import Foundation
import IOMMUModel
import IOMMUSimulation
import Testing

@Suite struct CellTests {
  struct Row: CustomTestStringConvertible, Sendable {
    var kind: OperationKind
    var size: Cell.Size
    var column: KernelColumn
    var testDescription: String { "\(kind.name), \(size.name), \(column.name)" }
  }
  static let rows = KernelColumn.allCases.flatMap { column in
    Cell.rows.map { Row(kind: $0.kind, size: $0.size, column: column) }
      .filter { Cell($0.kind, $0.size, column, .none).exists }
  }

  @Test(arguments: rows)
  func `every cell earns the verdicts that its step list allows, and no other`(row: Row) {
    for (name, strategy) in Strategy.named {
      let cell = Cell(row.kind, row.size, row.column, strategy)
      let trials = CellTrial.all(cell)
      for trial in trials { #expect(trial.isDone, "\(name): \(String(describing: trial.outcome))") }
      let tried = trials.reduce(into: VerdictSet()) { $0.formUnion($1.verdicts) }
      let judged = StepJudge(cell).verdicts
      #expect(tried == judged, "\(name): tried \(tried.text), judged \(judged.text)")
      #expect(trials.allSatisfy { $0.counters.unexplainedCorruptions == 0 }, "\(name): corruption without a verdict")
      if strategy.emptyTable == .none && !judged.contains(.gaveUp) {
        #expect(trials.allSatisfy { $0.counters.needlessFaults == 0 }, "\(name): a needless fault")
      }
    }
  }

  @Test func `the committed table is the one that the step lists give`() throws {
    let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("docs/expected-verdicts.md")
    let committed = try String(contentsOf: file, encoding: .utf8)
    #expect(
      committed == VerdictTable.markdown, "write it anew with: iommulab judge --table > docs/expected-verdicts.md")
  }
}
