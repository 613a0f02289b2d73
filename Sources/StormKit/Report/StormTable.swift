// SPDX-License-Identifier: Apache-2.0

/// The final table: a column for each strategy, and for each figure a row.
public struct StormTable {
  struct Row {
    var name: String
    var cells: [String]
    /// A heading of a section.
    var isHeading = false
  }

  let result: StormResult
  let colour: Bool

  public init(_ result: StormResult, colour: Bool) {
    self.result = result
    self.colour = colour
  }

  public var text: String {
    Self.text(result.strategies, colour: colour) + "\n" + LatencyTable.text(result.strategies, colour: colour)
  }

  static func text(_ strategies: [StrategyResult], colour: Bool) -> String {
    let rows = rows(strategies)
    let heads = strategies.map { headLines($0.strategy) }
    let height = heads.map(\.count).max() ?? 0
    var widths = heads.map { $0.map(\.count).max() ?? 0 }
    for row in rows where !row.isHeading {
      for (index, cell) in row.cells.enumerated() { widths[index] = max(widths[index], cell.count) }
    }
    let nameWidth = rows.filter { !$0.isHeading }.map(\.name.count).max() ?? 0
    var text = ""
    for line in 0..<height {
      var cells: [String] = []
      for (index, head) in heads.enumerated() {
        let at = line - (height - head.count)
        cells.append(pad(at >= 0 ? head[at] : "", widths[index]))
      }
      text += bold(pad("", nameWidth, left: false) + "  " + cells.joined(separator: "  "), colour) + "\n"
    }
    for row in rows {
      if row.isHeading {
        text += "\n" + bold(row.name, colour) + "\n"
        continue
      }
      let cells = row.cells.enumerated().map { pad($1, widths[$0]) }
      text += pad(row.name, nameWidth, left: false) + "  " + cells.joined(separator: "  ") + "\n"
    }
    return text
  }

  /// A strategy's name over as few lines as fit in 15 columns, broken at hyphens.
  static func headLines(_ name: String) -> [String] {
    var lines = [""]
    let parts = name.split(separator: "-")
    for (index, part) in parts.enumerated() {
      let piece = part + (index + 1 < parts.count ? "-" : "")
      if !lines[lines.count - 1].isEmpty && lines[lines.count - 1].count + piece.count > 15 { lines.append("") }
      lines[lines.count - 1] += piece
    }
    return lines
  }

  static func rows(_ strategies: [StrategyResult]) -> [Row] {
    func row(_ name: String, _ cell: (StrategyResult) -> String) -> Row { Row(name: name, cells: strategies.map(cell)) }
    func count(_ name: String, _ path: KeyPath<StrategyResult, UInt64>) -> Row {
      row(name) { DurationText.grouped($0[keyPath: path]) }
    }
    func heading(_ name: String) -> Row { Row(name: name, cells: [], isHeading: true) }
    var rows = [
      heading("Work"),
      row("seconds") { DurationText.decimal($0.seconds, places: 1) },
      count("accesses", \.accesses),
      row("faults/s") { DurationText.grouped(UInt64($0.faultsPerSecond)) },
      count("fault interrupts", \.interrupts),
      count("DMAs checked", \.dmasChecked),
      count("memory operations", \.operations),
      count("full gather batches", \.fullBatches),
      heading("Invalidations"),
      count("pushed", \.invalidations),
      count("completed", \.completions),
      count("hit a live grant", \.invalidationsThatHitALiveGrant),
      count("ATC hits", \.atcHits),
      heading("Page requests"),
      count("members served", \.pageRequests),
      count("needed faults", \.neededFaults),
      count("needless faults", \.needlessFaults),
      row("  per access") { DurationText.decimal($0.needlessFaultsPerAccess, places: 2) },
      count("duplicate faults", \.duplicateFaults),
      count("retries", \.retries),
      heading("How accesses ended"),
      count("done", \.done),
      count("refused", \.refused),
      count("given up", \.gaveUp),
      count("fenced", \.fencedAccesses),
      count("devices fenced", \.fenced),
      count("time-outs", \.timeouts),
    ]
    rows += mirrorRows(strategies)
    rows.append(heading("Waiting for a CPU (share of the time)"))
    for process in strategies.first?.cpuWaitShares.map(\.process) ?? [] {
      rows.append(
        row(process) { result in
          guard let wait = result.cpuWaitShares.first(where: { $0.process == process }) else { return "-" }
          return DurationText.decimal(wait.share * 100, places: 0) + " %"
        })
    }
    let hasMirrors = strategies.contains { $0.mirrors != nil }
    rows.append(heading("Verdicts\(hasMirrors ? " of devices and CPUs" : "") (expected: 0 zero, + some, * any)"))
    for name in ExpectedVerdicts.names where shows(name, strategies) {
      rows.append(row(name) { verdictCell($0.verdicts[name] ?? 0, $0.expected[name] ?? .any) })
    }
    rows += mirrorVerdictRows(strategies)
    rows.append(heading("Independent checks"))
    rows.append(count("frames with foreign data", \.corruptedFrames))
    rows.append(count("  without a verdict", \.unexplainedCorruptions))
    rows.append(row("CPU loads verified/wrong") { "\($0.cpuLoadsVerified)/\($0.cpuMismatches)" })
    return rows
  }

  private static func mirrorRows(_ strategies: [StrategyResult]) -> [Row] {
    guard strategies.contains(where: { $0.mirrors != nil }) else { return [] }
    func count(_ name: String, _ path: KeyPath<MirrorFigures, UInt64>) -> Row {
      Row(name: name, cells: strategies.map { DurationText.grouped($0.mirrors?.sum(path) ?? 0) })
    }
    return [
      Row(name: "Mirrors", cells: [], isHeading: true),
      count("events answered", \.events),
      count("faults", \.faults),
      count("retries", \.retries),
      count("installs", \.installs),
      count("uses", \.uses),
      count("uses refused", \.refusedUses),
      count("mirrors released", \.released),
      count("mirrors lost", \.lost),
    ]
  }

  /// What only mirrors earn is shown always: a zero is what they are run for.
  private static func mirrorVerdictRows(_ strategies: [StrategyResult]) -> [Row] {
    guard strategies.contains(where: { $0.mirrors != nil }) else { return [] }
    let shown = ExpectedVerdicts.names.filter { name in
      name == "STALE_DMA" || name.hasPrefix("MIRROR_")
        || strategies.contains { ($0.mirrors?.verdicts[name] ?? 0) > 0 || $0.mirrors?.expected[name] != .zero }
    }
    return [Row(name: "Verdicts of mirrors", cells: [], isHeading: true)]
      + shown.map { name in
        Row(
          name: name,
          cells: strategies.map { verdictCell($0.mirrors?.verdicts[name] ?? 0, $0.mirrors?.expected[name] ?? .any) })
      }
  }

  /// Verdicts that nobody earned and nobody was expected to earn are left out, except the first.
  private static func shows(_ name: String, _ strategies: [StrategyResult]) -> Bool {
    name == "STALE_DMA" || strategies.contains { ($0.verdicts[name] ?? 0) > 0 || $0.expected[name] != .zero }
  }

  private static func verdictCell(_ count: UInt64, _ expected: Expectation) -> String {
    let mark = expected == .zero ? "0" : expected == .some ? "+" : "*"
    return "\(expected.admits(count) ? "" : "! ")\(DurationText.grouped(count)) (\(mark))"
  }

  static func pad(_ text: String, _ width: Int, left: Bool = true) -> String {
    let space = String(repeating: " ", count: max(0, width - text.count))
    return left ? space + text : text + space
  }

  static func bold(_ text: String, _ colour: Bool) -> String { colour ? "\u{1b}[1m\(text)\u{1b}[0m" : text }
}

/// Where the first stale access of each unsafe strategy came from, in the service's words.
public enum StaleAccessText {
  public static func text(_ strategies: [StrategyResult]) -> String {
    var text = ""
    for result in strategies {
      guard let stale = result.firstStaleAccess else { continue }
      text += "\n\(result.strategy): the first \(stale.verdict)\n"
      text += wrap(stale.explanation, width: 100, indent: "  ")
      for line in stale.chain { text += wrap(line, width: 100, indent: "    ", bullet: "  · ") }
    }
    return text
  }

  static func wrap(_ text: String, width: Int, indent: String, bullet: String? = nil) -> String {
    var lines: [String] = []
    var line = ""
    for word in text.split(separator: " ") {
      if !line.isEmpty && line.count + word.count + 1 + indent.count > width {
        lines.append(line)
        line = ""
      }
      line += (line.isEmpty ? "" : " ") + word
    }
    lines.append(line)
    return lines.enumerated().map { ($0 == 0 ? bullet ?? indent : indent) + $1 + "\n" }.joined()
  }
}
