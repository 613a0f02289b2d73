// SPDX-License-Identifier: Apache-2.0
import Foundation

/// One line on the terminal that is written over again; silent when standard error is no terminal.
struct ProgressLine {
  let isVisible: Bool
  let colour: Bool
  private var lastDrawn: UInt64 = 0

  init(environment: [String: String] = ProcessInfo.processInfo.environment) {
    isVisible = isatty(2) == 1 && environment["TERM"] != "dumb"
    colour = isVisible && (environment["NO_COLOR"] ?? "").isEmpty
  }

  /// Draws at most ten times a second.
  mutating func draw(_ strategy: String, done: UInt64, of total: UInt64, elapsed: UInt64, now: UInt64) {
    guard isVisible, now &- lastDrawn > 100_000_000 else { return }
    lastDrawn = now
    write("\r" + Self.line(strategy, done: done, of: total, elapsed: elapsed, colour: colour) + "\u{1b}[K")
  }

  /// Says what is going on where no figure fits.
  mutating func say(_ text: String) {
    guard isVisible else { return }
    write("\r\(text)\u{1b}[K")
  }

  func clear() { if isVisible { write("\r\u{1b}[K") } }

  static func line(_ strategy: String, done: UInt64, of total: UInt64, elapsed: UInt64, colour: Bool) -> String {
    let width = 24
    let filled = total == 0 ? width : Int(min(done, total) * UInt64(width) / total)
    let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled)
    let seconds = Double(elapsed) / 1e9
    let rate = seconds > 0 ? Double(done) / seconds : 0
    let left = rate > 0 ? DurationText.decimal(Double(total - min(done, total)) / rate, places: 0) : "?"
    let name = strategy + String(repeating: " ", count: max(0, 28 - strategy.count))
    let shown = colour ? "\u{1b}[36m\(bar)\u{1b}[0m" : bar
    return "\(name) [\(shown)] \(DurationText.grouped(done))/\(DurationText.grouped(total)) accesses  "
      + "\(DurationText.decimal(seconds, places: 1)) s  \(DurationText.grouped(UInt64(rate)))/s  ETA \(left) s"
  }

  private func write(_ text: String) {
    let bytes = Array(text.utf8)
    _ = bytes.withUnsafeBytes { Foundation.write(2, $0.baseAddress, $0.count) }
  }
}
