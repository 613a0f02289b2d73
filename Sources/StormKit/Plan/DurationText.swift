// SPDX-License-Identifier: Apache-2.0

/// Durations as people write them: `250ns`, `10us`, `1.5ms`, `2s`. A bare 0 needs no unit.
public enum DurationText {
  static let units: [(name: String, nanoseconds: Double)] = [
    ("ns", 1), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9),
  ]

  /// Nanoseconds, or nil when the text is no duration.
  public static func parse(_ text: String) -> UInt64? {
    if text == "0" { return 0 }
    for unit in units where text.hasSuffix(unit.name) {
      guard let number = Double(text.dropLast(unit.name.count)), number >= 0, number * unit.nanoseconds < 1e18 else {
        continue
      }
      return UInt64((number * unit.nanoseconds).rounded())
    }
    return nil
  }

  /// Three significant digits and the unit that fits: `12.3 µs`.
  public static func format(_ nanoseconds: UInt64) -> String {
    let value = Double(nanoseconds)
    let unit = value < 1e3 ? ("ns", 1.0) : value < 1e6 ? ("µs", 1e3) : value < 1e9 ? ("ms", 1e6) : ("s", 1e9)
    let scaled = value / unit.1
    return decimal(scaled, places: scaled >= 100 || unit.1 == 1 ? 0 : scaled >= 10 ? 1 : 2) + " " + unit.0
  }

  /// A number with that many places after the point; no locale.
  static func decimal(_ value: Double, places: Int) -> String {
    guard value.isFinite else { return "-" }
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    let rounded = Int64((abs(value) * scale).rounded())
    let whole = rounded / Int64(scale)
    let fraction = String(rounded % Int64(scale))
    let sign = value < 0 && rounded != 0 ? "-" : ""
    guard places > 0 else { return sign + String(whole) }
    return sign + String(whole) + "." + String(repeating: "0", count: places - fraction.count) + fraction
  }

  /// Digits in groups of three: `102,400`.
  static func grouped(_ value: UInt64) -> String {
    let digits = Array(String(value))
    var text = ""
    for (index, digit) in digits.enumerated() {
      if index > 0 && (digits.count - index) % 3 == 0 { text.append(",") }
      text.append(digit)
    }
    return text
  }
}
