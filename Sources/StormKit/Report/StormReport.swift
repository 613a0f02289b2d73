// SPDX-License-Identifier: Apache-2.0
import Foundation

/// What a finished storm prints: data on standard output, talk on standard error.
public struct StormReport {
  let result: StormResult
  let warnings: [String]

  public init(_ result: StormResult, warnings: [String]) {
    self.result = result
    self.warnings = warnings
  }

  /// `json`: the whole result, and nothing else on standard output.
  public func print(json: Bool) {
    if json {
      Swift.print(LineJSON.encode(result, pretty: true))
      return
    }
    let colour = isatty(1) == 1 && (ProcessInfo.processInfo.environment["NO_COLOR"] ?? "").isEmpty
    Swift.print(text(colour: colour), terminator: "")
  }

  func text(colour: Bool) -> String {
    var text = "\n"
    if let sweep = result.sweep {
      text += SweepTable.text(sweep, dilation: result.dilation)
    } else {
      text += StormTable(result, colour: colour).text
      text += StaleAccessText.text(result.strategies)
    }
    text += "\n"
    for warning in warnings {
      text += StaleAccessText.wrap("warning: " + warning, width: 100, indent: "  ", bullet: "")
    }
    for line in result.differences { text += "NOT AS EXPECTED  \(line)\n" }
    for line in result.missedThresholds { text += "THRESHOLD  \(line)\n" }
    if result.differences.isEmpty {
      text += "Every verdict is as expected: the safe strategies are clean, the unsafe ones were caught"
      let mirrors = result.strategies.compactMap(\.mirrors)
      let areClean = mirrors.allSatisfy { $0.verdicts.values.allSatisfy { $0 == 0 } }
      text += !mirrors.isEmpty && areClean ? ", the mirrors are clean.\n" : ".\n"
    }
    return text
  }

  public static func complain(_ text: String) { FileHandle.standardError.write(Data((text + "\n").utf8)) }
}

/// What a longer window costs.
enum SweepTable {
  static func text(_ points: [SweepPoint], dilation: Double) -> String {
    var rows = [
      ["hold", "strategy", "needless faults", "per access", "gave up", "GAVE_UP", "retries", "STALE_DMA", "seconds"]
    ]
    for point in points {
      for result in point.strategies {
        rows.append([
          DurationText.format(point.holdNanoseconds), result.strategy, DurationText.grouped(result.needlessFaults),
          DurationText.decimal(result.needlessFaultsPerAccess, places: 3), DurationText.grouped(result.gaveUp),
          DurationText.grouped(result.verdicts["GAVE_UP"] ?? 0), DurationText.grouped(result.retries),
          DurationText.grouped(result.verdicts["STALE_DMA"] ?? 0), DurationText.decimal(result.seconds, places: 1),
        ])
      }
    }
    var widths = [Int](repeating: 0, count: rows[0].count)
    for row in rows { for (index, cell) in row.enumerated() { widths[index] = max(widths[index], cell.count) } }
    var text =
      "The hold is machine time; every modelled duration was multiplied by \(DurationText.decimal(dilation, places: 0)).\n\n"
    for row in rows {
      let cells = row.enumerated().map { index, cell in
        let space = String(repeating: " ", count: widths[index] - cell.count)
        return index == 1 ? cell + space : space + cell
      }
      text += cells.joined(separator: "  ") + "\n"
    }
    return text
  }
}
