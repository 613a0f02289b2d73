// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

extension CostTable {
  /// The whole file.
  public var markdown: String {
    var lines = [
      "# What operations cost", "",
      "Microseconds of machine time from an operation's start to its return, on average over \(runs) seeds; printed by",
      "`iommulab cost`. The operation runs alone on a small machine, on an area of 16 pages of which two are there (six where",
      "the batch is full); devices hold a page in their ATCs and complete at once. Durations are the default cost model's:",
      "what is published and what is not stands in [calibration.md](calibration.md).", "",
      "- **none**: no notifier is registered.",
      "- **skipped**: a device's notifier is registered and needs none of the calls; the caller sees so and makes none. The",
      "  look itself has no price in the model, so that the column equals the first.",
      "- **called**: the same, but S and E are called, and return at once: 0.1 to 0.5 µs each. Hooks at the flush site have no",
      "  price of their own.",
      "- A strategy: 1 / 8 / 64 devices share the address space under it. I is one flush of the IOMMU's caches, then an",
      "  invalidation to every device, all at once; it ends with the last completion.",
      "- What waits in a flush queue costs the operation nothing and is flushed behind its return: that is not in the table.",
    ]
    for column in KernelColumn.allCases where rows.contains(where: { $0.column == column }) {
      lines += ["", "## \(column.title)", ""] + costs(column)
      lines += [
        "", "### Waiting for I under locks, \(column.name)", "",
        "One of each operation above. Longest: of a single I. Nobody may sleep under a page-table lock; the rest of the wait",
        "is what a wait that sleeps, instead of spinning, would give back to the CPU.", "",
      ]
      lines += waits(column)
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private func costs(_ column: KernelColumn) -> [String] {
    let heads = ["Operation", "none", "skipped", "called"] + Self.strategies.map(\.name)
    let body = rows.filter { $0.column == column }.map(\.cells)
    return Self.table(heads, body)
  }

  private func waits(_ column: KernelColumn) -> [String] {
    let heads = [
      "Strategy", "Devices", "page-table lock: longest", "in all", "mmap lock: longest", "in all", "I in all",
      "could sleep",
    ]
    let body = waiting(column).map { wait in
      [
        wait.strategy, "\(wait.sharers)", Self.micro(Double(wait.longestUnderPageTableLock)),
        Self.micro(wait.underPageTableLock), Self.micro(Double(wait.longestUnderMmapLock)),
        Self.micro(wait.underMmapLock),
        Self.micro(wait.all), wait.all == 0 ? "–" : "\(Self.rounded(wait.sleepable / wait.all * 100)) %",
      ]
    }
    return Self.table(heads, body)
  }

  /// A Markdown table whose columns stand under each other in a terminal too.
  static func table(_ heads: [String], _ body: [[String]]) -> [String] {
    let widths = heads.indices.map { column in ([heads] + body).map { $0[column].count }.max()! }
    func line(_ cells: [String]) -> String {
      "| "
        + cells.indices.map { $0 == 0 ? cells[$0] + pad(cells[$0], $0) : pad(cells[$0], $0) + cells[$0] }
        .joined(separator: " | ") + " |"
    }
    func pad(_ text: String, _ column: Int) -> String { String(repeating: " ", count: widths[column] - text.count) }
    let rule = widths.indices.map { column in
      column == 0 ? String(repeating: "-", count: widths[0]) : String(repeating: "-", count: widths[column] - 1) + ":"
    }
    return [line(heads), "| " + rule.joined(separator: " | ") + " |"] + body.map(line)
  }

  /// Microseconds with one decimal.
  static func micro(_ nanoseconds: Double) -> String { tenths(nanoseconds / 1000) }
  /// A number with one decimal. Integers do it: rounding would need a maths library.
  static func tenths(_ value: Double) -> String {
    let tenths = rounded(abs(value) * 10)
    return "\(value < 0 && tenths > 0 ? "−" : "")\(tenths / 10).\(tenths % 10)"
  }
  static func rounded(_ value: Double) -> Int { Int(value + 0.5) }
}

extension CostTable.Row {
  /// The row as the table shows it.
  public var cells: [String] {
    [name, bare.map { CostTable.micro($0.nanoseconds) } ?? "–"]
      + [skipped, called].map { CostTable.micro($0.nanoseconds) }
      + shared.map { costs in costs.map { CostTable.micro($0.nanoseconds) }.joined(separator: " / ") }
  }
}
