// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import IOMMUModel
import IOMMUSimulation

struct JudgeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "judge",
    abstract: "What an operation's order of steps may earn under a strategy, before anything runs.",
    discussion: """
      The verdicts are read off the step list, for a correct device that does its worst; then the cell is tried on a small \
      machine, and the two must agree. Without --operation and --strategy, every cell of the column is judged.

      Exit codes: 0 judged, 1 the trial found something else than the list allows, 2 usage.
      """)

  @Option(help: ArgumentHelp("The operation; one of \(Self.operations).", valueName: "name")) var operation: String?
  @Option(help: ArgumentHelp("The strategy; see iommulab strategy list.", valueName: "name")) var strategy: String?
  @Option(help: "The kernels: 2014 or now.") var column = KernelColumn.now.name
  @Flag(help: "Print the table of all cells of both columns, as Markdown.") var table = false
  @Flag(help: "Print one JSON object.") var json = false

  private static var operations: String {
    var seen: [String] = []
    for (kind, _) in Cell.rows where !seen.contains(kind.identifier) { seen.append(kind.identifier) }
    return seen.joined(separator: ", ")
  }

  func run() throws {
    if table {
      print(VerdictTable.markdown, terminator: "")
      return
    }
    guard let column = KernelColumn.named(column) else {
      throw ValidationError(
        "--column: '\(column)' is none of \(KernelColumn.allCases.map(\.name).joined(separator: ", "))")
    }
    let rows = try chosenRows()
    let strategies = try chosenStrategies()
    let single = operation != nil && strategy != nil
    var judged: [JudgedCell] = []
    for (kind, size) in rows {
      for (name, strategy) in strategies {
        let cell = Cell(kind, size, column, strategy)
        if cell.exists { judged.append(JudgedCell(cell, strategy: name)) }
      }
    }
    if judged.isEmpty {
      throw ValidationError("--operation: '\(operation ?? "")' is not in the kernels of \(column.title)")
    }
    if json {
      print("{\"version\":1,\"column\":\"\(column.name)\",\"cells\":[\(judged.map(\.json).joined(separator: ","))]}")
    } else {
      for cell in judged { print(single ? cell.story : cell.line) }
    }
    if judged.contains(where: { !$0.agrees }) { throw ExitCode(1) }
  }

  private func chosenRows() throws -> [(kind: OperationKind, size: Cell.Size)] {
    guard let operation else { return Cell.rows }
    let rows = Cell.rows.filter { $0.kind.identifier == operation }
    guard !rows.isEmpty else { throw ValidationError("--operation: '\(operation)' is none of \(Self.operations)") }
    return rows
  }

  private func chosenStrategies() throws -> [(name: String, strategy: Strategy)] {
    guard let strategy else { return Strategy.named }
    guard let found = Strategy.named(strategy) else {
      throw ValidationError(
        "--strategy: '\(strategy)' is none of \(Strategy.named.map(\.name).joined(separator: ", "))")
    }
    return [(strategy, found)]
  }
}

/// A cell with what its list allows and what the trial found.
private struct JudgedCell {
  let cell: Cell
  let strategy: String
  let judge: StepJudge
  let tried: VerdictSet

  init(_ cell: Cell, strategy: String) {
    self.cell = cell
    self.strategy = strategy
    judge = StepJudge(cell)
    tried = CellTrial(cell, usesCPU: false).verdicts.union(CellTrial(cell, usesCPU: true).verdicts)
  }

  var agrees: Bool { tried == judge.verdicts }
  private var place: String {
    let size = cell.size != .small ? ", \(cell.size.name)" : ""
    return "\(cell.kind.name)\(size) under \(strategy), kernels of \(cell.column.name)"
  }

  var line: String {
    "\(place): \(judge.verdicts.text)" + (agrees ? "" : " — but the trial found \(tried.text)")
  }

  var story: String {
    var lines = [line]
    for (kind, steps) in judge.chains {
      lines.append("  \(kind.name):")
      lines += steps.map { "    \($0)" }
    }
    return lines.joined(separator: "\n")
  }

  var json: String {
    func list(_ set: VerdictSet) -> String { set.kinds.map { "\"\($0.name)\"" }.joined(separator: ",") }
    let chains = judge.chains.map { chain in
      "\"\(chain.kind.name)\":[\(chain.steps.map { "\"\($0)\"" }.joined(separator: ","))]"
    }
    return "{\"operation\":\"\(cell.kind.identifier)\",\"size\":\"\(cell.size.name)\",\"strategy\":\"\(strategy)\","
      + "\"verdicts\":[\(list(judge.verdicts))],\"tried\":[\(list(tried))],\"chains\":{\(chains.joined(separator: ","))}}"
  }
}
