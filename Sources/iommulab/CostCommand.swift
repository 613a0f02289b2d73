// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import IOMMUModel
import IOMMUSimulation

struct CostCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cost",
    abstract: "What each memory operation costs, with and without notifiers, under every strategy.",
    discussion: """
      The question of the 2014 thread, in virtual time under the default cost model: every operation without a notifier, \
      with one that needs none of the calls (skipped, and made), and with \
      \(CostTable.sharers.map(String.init).joined(separator: ", ")) devices that share the address space under each strategy; \
      then how long operations wait for I under a page-table lock and under the mmap lock, and what a wait that sleeps would \
      give back. Without options the output is docs/operation-costs.md.

      Exit codes: 0, 2 usage.
      """)

  @Option(help: ArgumentHelp("Only this operation; see iommulab judge.", valueName: "name")) var operation: String?
  @Option(help: "Only these kernels: 2014 or now.") var column: String?
  @Option(help: "Seeds of each figure.") var runs = CostTable.runs
  @Flag(help: "Print one JSON object, with durations in nanoseconds.") var json = false

  func run() throws {
    guard (1...10_000).contains(runs) else { throw ValidationError("--runs: 1 to 10000") }
    var columns = KernelColumn.allCases
    if let column {
      guard let named = KernelColumn.named(column) else {
        throw ValidationError(
          "--column: '\(column)' is none of \(KernelColumn.allCases.map(\.name).joined(separator: ", "))")
      }
      columns = [named]
    }
    let kinds = try operation.map { name in
      guard let kind = OperationKind.named(name), Cell.rows.contains(where: { $0.kind == kind }) else {
        let names = Cell.rows.filter { $0.size == .small }.map(\.kind.identifier).joined(separator: ", ")
        throw ValidationError("--operation: '\(name)' is none of \(names)")
      }
      return [kind]
    }
    let table = CostTable(columns: columns, kinds: kinds, runs: runs)
    if table.rows.isEmpty { throw ValidationError("--operation: these kernels have no \(operation ?? "")") }
    print(json ? table.json + "\n" : table.markdown, terminator: "")
  }
}
