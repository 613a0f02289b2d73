// SPDX-License-Identifier: Apache-2.0
import Foundation

/// `docs/expected-verdicts.md` as it is committed: what every cell must earn.
struct ExpectedTable {
  struct Cell {
    /// `2014` or `now`.
    var kernel: String
    var operation: String
    var strategy: String
    /// Names of verdict kinds; empty: a safe cell.
    var verdicts: Set<String>
  }
  private(set) var cells: [Cell] = []

  private static let absent = "–"
  private static let clean = "·"

  init(markdown: String) throws {
    var kernel = ""
    var strategies: [String] = []
    let signs = Self.signs(markdown)
    for line in markdown.split(separator: "\n") {
      if line.hasPrefix("## ") { kernel = String(line.dropFirst(3).prefix { $0 != " " }) }
      guard line.hasPrefix("| "), !line.hasPrefix("| ---") else { continue }
      let fields = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
      if fields[0] == "Operation" {
        strategies = Array(fields.dropFirst())
        continue
      }
      guard fields.count == strategies.count + 1 else { throw Failure("a row of another width: \(line)") }
      for (strategy, text) in zip(strategies, fields.dropFirst()) where text != Self.absent {
        let words = text == Self.clean ? [] : text.split(separator: " ").map(String.init)
        let verdicts = try words.map { word in
          guard let kind = signs[word] else { throw Failure("no verdict has the sign '\(word)'") }
          return kind
        }
        cells.append(Cell(kernel: kernel, operation: fields[0], strategy: strategy, verdicts: Set(verdicts)))
      }
    }
    guard !cells.isEmpty else { throw Failure("the table has no cells") }
  }

  /// The legend: `D STALE_DMA, W STALE_WALK, …`.
  private static func signs(_ markdown: String) -> [String: String] {
    let words = markdown.split { " ,.\n".contains($0) }.map(String.init)
    var signs: [String: String] = [:]
    for (sign, kind) in zip(words, words.dropFirst())
    where sign.count == 1 && kind.count > 3 && kind.allSatisfy({ $0.isUppercase || $0 == "_" }) {
      signs[sign] = signs[sign] ?? kind
    }
    return signs
  }
}

struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
