// SPDX-License-Identifier: Apache-2.0

/// For a page that draws Mermaid (Markdown in most forges).
extension Explanation {
  /// A sequence diagram.
  public var mermaid: String {
    var lines = ["sequenceDiagram"]
    for (index, lane) in lanes.enumerated() {
      let detail = lane.detail.isEmpty ? "" : "<br/>\(Self.escaped(lane.detail))"
      lines.append("  participant p\(index) as \(Self.escaped(lane.name))\(detail)")
    }
    for event in events {
      let time = Self.before(end, event.at)
      let text = (time.isEmpty ? "" : "\(time): ") + Self.escaped(event.text)
      switch event.kind {
      case .step where event.from != event.to: lines.append("  p\(event.from)->>p\(event.to): \(text)")
      case .step: lines.append("  Note over p\(event.from): \(text)")
      case .missing:
        lines += ["  rect rgb(255, 243, 205)", "  Note over \(Self.lanes(event)): ✗ \(text)", "  end"]
      case .verdict:
        lines += ["  rect rgb(248, 215, 218)", "  Note over \(Self.lanes(event)): \(text)", "  end"]
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private static func lanes(_ event: Event) -> String {
    event.from == event.to
      ? "p\(event.from)" : "p\(min(event.from, event.to)),p\(max(event.from, event.to))"
  }

  /// Mermaid reads `#` as the start of an entity and `;` as the end of a line.
  private static func escaped(_ text: String) -> String {
    text.reduce(into: "") { escaped, character in
      switch character {
      case "#": escaped += "#35;"
      case ";": escaped += "#59;"
      case "<": escaped += "#lt;"
      case ">": escaped += "#gt;"
      case "\n": escaped += " "
      default: escaped.append(character)
      }
    }
  }
}
