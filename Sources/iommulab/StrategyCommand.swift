// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import IOMMUModel

struct StrategyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "strategy", abstract: "The strategies: when a sharing IOMMU is flushed.",
    subcommands: [StrategyList.self], defaultSubcommand: StrategyList.self)
}

struct StrategyList: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "Every strategy in two lines: what it does and where it comes from, and its verdicts; then the hooks.")

  @Flag(help: "Print one JSON object.") var json = false

  func run() {
    if json {
      let entries = Strategy.all.map { one in
        let verdicts = KernelColumn.allCases.map { column in
          "\"\(column.name)\":[\(Self.verdicts(one.strategy, column).kinds.map { "\"\($0.name)\"" }.joined(separator: ","))]"
        }
        let hooks = Strategy.hooks.filter { one.strategy.sites.contains($0.site) }.map { "\"\($0.name)\"" }
        return "{\"name\":\"\(one.name)\",\"rule\":\"\(one.rule)\",\"history\":\"\(one.history)\","
          + "\"hooks\":[\(hooks.joined(separator: ","))],\(Self.flush(one.strategy)),"
          + "\"worstVerdicts\":{\(verdicts.joined(separator: ","))}}"
      }
      let hooks = Strategy.hooks.map { "{\"name\":\"\($0.name)\",\"rule\":\"\($0.rule)\"}" }
      print(
        "{\"version\":1,\"strategies\":[\(entries.joined(separator: ","))],\"hooks\":[\(hooks.joined(separator: ","))]}"
      )
      return
    }
    let width = Strategy.all.map(\.name.count).max()!
    for one in Strategy.all {
      let name = one.name + String(repeating: " ", count: width - one.name.count)
      let worst = KernelColumn.allCases.map { "\($0.name): \(Self.verdicts(one.strategy, $0).text)" }
      print("\(name)  \(one.rule)")
      print("\(String(repeating: " ", count: width))  \(one.history) \(worst.joined(separator: "; ")).")
    }
    print("\nHooks, and who flushes there:")
    for hook in Strategy.hooks {
      let users = Strategy.all.filter { $0.strategy.sites.contains(hook.site) }.map(\.name)
      print("\(hook.name)\(String(repeating: " ", count: width - hook.name.count))  \(hook.rule)")
      print("\(String(repeating: " ", count: width))  \(users.joined(separator: ", "))")
    }
  }

  /// How much is flushed, and when, as members of a JSON object.
  private static func flush(_ strategy: Strategy) -> String {
    let whole = strategy.reach.wholeFrom == .max ? "null" : "\(strategy.reach.wholeFrom)"
    return
      "\"deferral\":\"\(strategy.deferral.name)\",\"wholePasidFromPages\":\(whole),\"commandPerPage\":\(strategy.reach.perPage)"
  }

  /// What the strategy may earn over all operations of a column.
  private static func verdicts(_ strategy: Strategy, _ column: KernelColumn) -> VerdictSet {
    Cell.rows.map { Cell($0.kind, $0.size, column, strategy) }.filter(\.exists)
      .reduce(into: VerdictSet()) { $0.formUnion(StepJudge($1).verdicts) }
  }
}
