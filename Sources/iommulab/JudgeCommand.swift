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
      machine, and the two must agree. Without a file, --operation or --strategy, every cell of the column is judged.

      A file holds an order of your own, for a patch that moves letters; --template prints the kernel's to start from:

        operation: dontneed
        column: now               # 2014 or now: the locks and the rest of the list
        order: [S, P, C, F, I, E] # what each letter is: see --template
        batch: [C, I, F]          # what a full gather batch runs; this is the default
        strategies: [secondary-tlb]   # all by default; or one of your own:
        strategy: {flush-at: [flush-site, end], empty-table: none, deferral: none, atc: true, release: true}

      Operations that can be put in another order: \(UserOrder.kinds.map(\.identifier).joined(separator: ", ")).

      Exit codes: 0 judged, and with a file: every cell is safe; 1 a cell of the file earns a verdict, or a trial found \
      something else than the list allows; 2 usage.
      """)

  @Argument(help: "An order of letters, as YAML.") var file: String?
  @Option(help: ArgumentHelp("The operation; one of \(Self.operations).", valueName: "name")) var operation: String?
  @Option(help: ArgumentHelp("The strategy; see iommulab strategy list.", valueName: "name")) var strategy: String?
  @Option(help: "The kernels: 2014 or now.") var column = KernelColumn.now.name
  @Flag(help: "Print the table of all cells of both columns, as Markdown.") var table = false
  @Flag(help: "Print the own order of --operation in --column, as a file to start from.") var template = false
  @Flag(help: "Print one JSON object.") var json = false
  @Option(
    help: ArgumentHelp(
      "text, or a sequence diagram of the steps that lead to a verdict: mermaid or svg.", valueName: "form"))
  var format = ExplanationFormat.text
  @Option(help: ArgumentHelp("Whose steps the diagram shows; the first by default.", valueName: "KIND"))
  var verdict: String?

  private static var operations: String {
    var seen: [String] = []
    for (kind, _) in Cell.rows where !seen.contains(kind.identifier) { seen.append(kind.identifier) }
    return seen.joined(separator: ", ")
  }

  func validate() throws {
    if file != nil && (operation != nil || strategy != nil || template || table) {
      throw ValidationError(
        "a file says for itself what is judged: leave out --operation, --strategy, --template, --table")
    }
    if json && (table || template || format != .text) {
      throw ValidationError("--json: --table, --template and --format have a form of their own")
    }
    if format == .json { throw ValidationError("--format: for JSON there is --json, which has every chain") }
    if format == .text && verdict != nil { throw ValidationError("--verdict belongs to --format mermaid or svg") }
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
    if template { return print(try OrderTemplate.text(operation, column), terminator: "") }
    if let file { return try judge(try OrderFile(path: file)) }
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
    if format != .text { return try draw(judged) }
    if json {
      print("{\"version\":1,\"column\":\"\(column.name)\",\"cells\":[\(judged.map(\.json).joined(separator: ","))]}")
    } else {
      for cell in judged { print(single ? cell.story : cell.line) }
    }
    if judged.contains(where: { !$0.agrees }) { throw ExitCode(1) }
  }

  private func judge(_ file: OrderFile) throws {
    let cells = file.strategies.flatMap { name, strategy in
      Cell.sizes(file.order.kind).map { size in
        JudgedCell(Cell(file.order.kind, size, file.order.column, strategy, order: file.order), strategy: name)
      }
    }
    if format != .text { return try draw(cells) }
    if json {
      print(
        "{\"version\":1,\"column\":\"\(file.order.column.name)\",\"order\":[\(file.order.letters.map { "\"\($0)\"" }.joined(separator: ","))],"
          + "\"cells\":[\(cells.map(\.json).joined(separator: ","))]}")
    } else {
      print(
        "\(file.order.kind.name): \(file.order.letters.joined(separator: " ")), a full batch \(file.order.batch.joined(separator: " "))"
      )
      for cell in cells { print(cell.story + cell.costLine) }
    }
    if cells.contains(where: { !$0.agrees || !$0.judge.verdicts.isEmpty }) { throw ExitCode(1) }
  }

  /// The first chain of what was judged.
  private func draw(_ cells: [JudgedCell]) throws {
    let chains = cells.flatMap(\.judge.chains).filter { verdict == nil || $0.kind.name == verdict!.uppercased() }
    guard let chain = chains.first else {
      throw ValidationError(
        "--format: no cell that was asked for earns \(verdict ?? "a verdict"), so there is no chain")
    }
    print(format == .mermaid ? chain.mermaid : chain.svg, terminator: "")
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
    tried = CellTrial.all(cell).reduce(into: []) { $0.formUnion($1.verdicts) }
  }

  var agrees: Bool { tried == judge.verdicts }

  var costLine: String {
    let cost = CellCost(cell)
    func micro(_ nanoseconds: Double) -> String { "\((nanoseconds / 100).rounded() / 10) µs" }
    return "\n  \(micro(cost.nanoseconds)) on average, of it \(micro(cost.flushNanoseconds)) for I; "
      + "\((cost.invalidations * 10).rounded() / 10) invalidations for two devices"
  }

  private var place: String {
    let size = cell.size != .small ? ", \(cell.size.name)" : ""
    return "\(cell.kind.name)\(size) under \(strategy), kernels of \(cell.column.name)"
  }

  var line: String {
    "\(place): \(judge.verdicts.isEmpty ? "no verdict" : judge.verdicts.text)"
      + (agrees ? "" : " — but the trial found \(tried.text)")
  }

  var story: String {
    var lines = [line]
    for chain in judge.chains {
      lines.append("  \(chain.kind.name): \(chain.sentence)")
      lines += chain.chain.map { "    \($0)" }
    }
    return lines.joined(separator: "\n")
  }

  var json: String {
    func list(_ set: VerdictSet) -> String { set.kinds.map { "\"\($0.name)\"" }.joined(separator: ",") }
    let chains = judge.chains.map { chain in
      "\"\(chain.kind.name)\":[\(chain.events.map { "\"\($0.text)\"" }.joined(separator: ","))]"
    }
    let cost = CellCost(cell, runs: 50)
    return "{\"operation\":\"\(cell.kind.identifier)\",\"size\":\"\(cell.size.name)\",\"strategy\":\"\(strategy)\","
      + "\"verdicts\":[\(list(judge.verdicts))],\"tried\":[\(list(tried))],\"chains\":{\(chains.joined(separator: ","))},"
      + "\"meanNanoseconds\":\(Int(cost.nanoseconds)),\"meanFlushNanoseconds\":\(Int(cost.flushNanoseconds)),"
      + "\"meanInvalidations\":\(cost.invalidations)}"
  }
}
