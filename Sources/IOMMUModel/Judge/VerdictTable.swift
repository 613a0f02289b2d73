// SPDX-License-Identifier: Apache-2.0

/// The table operation × column × strategy of the verdicts that the step lists allow, as Markdown: what is committed as
/// `docs/expected-verdicts.md`.
public enum VerdictTable {
  /// One letter for each kind of verdict that a step list can earn.
  public static let signs: [(kind: VerdictKind, sign: String)] = [
    (.staleDMA, "D"), (.staleWalk, "W"), (.staleCPU, "C"), (.writeAfterProtect, "P"), (.splitView, "S"), (.gaveUp, "G"),
  ]
  public static let clean = "·"
  public static let absent = "–"

  /// The cell's signs; a dot for none, a dash where the column has no such operation.
  public static func text(_ cell: Cell) -> String {
    guard cell.exists else { return absent }
    let verdicts = StepJudge(cell).verdicts
    return verdicts.isEmpty ? clean : signs.filter { verdicts.contains($0.kind) }.map(\.sign).joined(separator: " ")
  }

  /// The whole file.
  public static var markdown: String {
    var lines = [
      "# Expected verdicts",
      "",
      "What one memory operation may earn beside a correct device that does its worst, by the strategy under which the",
      "device shares the address space. Read off the step lists by `iommulab judge --table`, before anything runs; the",
      "tests try every cell, and the two agree. \(clean) none, \(absent) not in these kernels,",
      signs.map { "\($0.sign) \($0.kind.name)" }.joined(separator: ", ") + ".",
      "",
      "One operation alone: `empty-table-racy` and `empty-table-uncounted` need two that overlap before they differ from",
      "`empty-table`. An upgrade of cached rights: the IOTLB answers write requests from an entry without the write right,",
      "as Arm's does; everywhere else it walks again, as on x86.",
    ]
    for column in KernelColumn.allCases {
      lines += ["", "## \(column.title)", ""]
      lines.append("| Operation | " + Strategy.named.map(\.name).joined(separator: " | ") + " |")
      lines.append("| --- |" + String(repeating: " --- |", count: Strategy.named.count))
      for (kind, size) in Cell.rows {
        let cells = Strategy.named.map { text(Cell(kind, size, column, $0.strategy)) }
        let name = size != .small ? "\(kind.name), \(size.name)" : kind.name
        lines.append("| \(name) | " + cells.joined(separator: " | ") + " |")
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }
}
