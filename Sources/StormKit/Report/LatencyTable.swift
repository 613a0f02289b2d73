// SPDX-License-Identifier: Apache-2.0

/// Latencies, one line for each strategy: what the machine measured in its own time beside what clients measured by the
/// wall clock. The two are never mixed.
enum LatencyTable {
  static let width = 9

  static func text(_ strategies: [StrategyResult], colour: Bool) -> String {
    let nameWidth = (strategies.map(\.strategy.count).max() ?? 0) + 2
    let block = 4 * (width + 1)
    var text = StormTable.bold(
      StormTable.pad("Latency", nameWidth, left: false) + centred("machine time", block) + "  |"
        + centred("client wall time", block), colour)
    let heads = ["p50", "p99", "p99.9", "max"].map { " " + StormTable.pad($0, width) }.joined()
    text += "\n" + StormTable.pad("", nameWidth) + heads + "  |" + heads + "\n"
    func section(
      _ name: String, _ machine: (StrategyLatency) -> LatencySummary?, _ client: (StrategyLatency) -> LatencySummary
    ) {
      text += StormTable.bold(name, colour) + "\n"
      for result in strategies {
        text += StormTable.pad("  " + result.strategy, nameWidth, left: false) + cells(machine(result.latency)) + "  |"
        text += cells(client(result.latency)) + "\n"
      }
    }
    section("page-request service", { $0.pageRequestService.machine }, { $0.pageRequestService.client })
    section("invalidate to completion", { $0.invalidateToCompletion.machine }, { $0.invalidateToCompletion.client })
    section("access, from its intended time", { _ in nil }, { $0.access })
    section("memory operation", { _ in nil }, { $0.operation })
    return text
  }

  private static func cells(_ summary: LatencySummary?) -> String {
    guard let summary else { return String(repeating: " ", count: 4 * (width + 1)) }
    let values = summary.count == 0 ? [] : [summary.p50, summary.p99, summary.p999, summary.max]
    let texts = values.isEmpty ? ["-", "-", "-", "-"] : values.map(DurationText.format)
    return texts.map { " " + StormTable.pad($0, width) }.joined()
  }

  private static func centred(_ text: String, _ width: Int) -> String {
    let space = max(0, width - text.count)
    return String(repeating: " ", count: space / 2) + text + String(repeating: " ", count: space - space / 2)
  }
}
