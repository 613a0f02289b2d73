// SPDX-License-Identifier: Apache-2.0

/// For a terminal: a line for each event.
extension Explanation {
  /// The events, oldest first, each with its time before the access.
  public var chain: [String] {
    events.map { event in
      let time = Self.before(end, event.at)
      return (time.isEmpty ? "" : Self.pad(time, to: 11) + "  ") + "\(place(event)): \(event.text)"
    }
  }

  /// Sentence and chain.
  public var text: String { sentence + "\n" + chain.map { "  \($0)\n" }.joined() }

  /// For a list of many.
  public var line: String { "\(kind.name)  \(sentence)" }

  /// Where an event happens.
  private func place(_ event: Event) -> String {
    let from = lanes[event.from].name
    return event.from == event.to ? from : "\(from) → \(lanes[event.to].name)"
  }

  /// How long before the end it was; empty without a clock.
  static func before(_ end: Nanoseconds?, _ at: Nanoseconds?) -> String {
    guard let end, let at else { return "" }
    return at >= end ? "now" : "−" + span(end - at)
  }

  static func pad(_ text: String, to width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }

  /// A duration with three digits.
  public static func span(_ nanoseconds: Nanoseconds) -> String {
    if nanoseconds < 1000 { return "\(nanoseconds) ns" }
    for (unit, size) in [("µs", UInt64(1000)), ("ms", 1_000_000), ("s", 1_000_000_000)]
    where nanoseconds < size * 1000 || unit == "s" {
      let hundredths = nanoseconds / (size / 100)
      let whole = hundredths / 100
      if whole >= 100 { return "\(whole) \(unit)" }
      if whole >= 10 { return "\(whole).\(hundredths / 10 % 10) \(unit)" }
      let rest = hundredths % 100
      return "\(whole).\(rest < 10 ? "0" : "")\(rest) \(unit)"
    }
    return "\(nanoseconds) ns"
  }

  /// Lower case, without leading zeros, with 0x.
  public static func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

  /// Breaks a text between words into lines of at most `width` characters; a longer word stands alone.
  static func wrap(_ text: String, _ width: Int) -> [String] {
    var lines: [String] = []
    for word in text.split(separator: " ") {
      if let last = lines.last, last.count + 1 + word.count <= width {
        lines[lines.count - 1] = last + " " + word
      } else {
        lines.append(String(word))
      }
    }
    return lines
  }
}
