// SPDX-License-Identifier: Apache-2.0

/// A bound on a latency of the run: `p99<5ms`, `access:p99.9<20ms`.
public struct Threshold: Equatable, Sendable {
  public enum Metric: String, CaseIterable, Sendable {
    case pageRequest = "page-request"
    case invalidation
    case access
  }
  public var metric: Metric
  /// 0…100; 100 is the maximum.
  public var percentile: Double
  public var bound: UInt64
  public var text: String

  /// nil when the text is no threshold. Without a metric it is the page request's, in client wall time.
  public init?(_ text: String) {
    self.text = text
    var rest = Substring(text)
    metric = .pageRequest
    if let colon = rest.firstIndex(of: ":") {
      guard let named = Metric(rawValue: String(rest[..<colon])) else { return nil }
      metric = named
      rest = rest[rest.index(after: colon)...]
    }
    guard let less = rest.firstIndex(of: "<"), let bound = DurationText.parse(String(rest[rest.index(after: less)...]))
    else { return nil }
    self.bound = bound
    let name = rest[..<less]
    if name == "max" {
      percentile = 100
    } else {
      guard name.hasPrefix("p"), let value = Double(name.dropFirst()), value > 0, value <= 100 else { return nil }
      percentile = value
    }
  }
}
