// SPDX-License-Identifier: Apache-2.0
import Histogram

/// Latencies in nanoseconds with three significant digits, up to an hour. Histograms of processes are merged; their
/// percentiles never are averaged.
public struct LatencyHistogram: Codable, Sendable {
  static let highest: UInt64 = 3_600_000_000_000
  var values: Histogram<UInt64>

  public init() {
    values = Histogram(
      lowestDiscernibleValue: 1, highestTrackableValue: Self.highest, numberOfSignificantValueDigits: .three)
  }

  public mutating func record(_ nanoseconds: UInt64) { values.record(min(nanoseconds, Self.highest)) }
  public mutating func merge(_ other: LatencyHistogram) { values.add(other.values) }
  public var count: UInt64 { values.totalCount }

  /// The value that this share of samples does not exceed; 0 without samples.
  public func percentile(_ percentile: Double) -> UInt64 {
    count == 0 ? 0 : percentile >= 100 ? values.max : values.valueAtPercentile(percentile)
  }

  public var summary: LatencySummary {
    LatencySummary(
      count: count, p50: percentile(50), p99: percentile(99), p999: percentile(99.9), max: percentile(100))
  }

  // As pairs of value and count: a few hundred numbers instead of a dump of every bucket.
  enum CodingKeys: String, CodingKey { case values, counts }
  public init(from decoder: any Decoder) throws {
    self.init()
    let container = try decoder.container(keyedBy: CodingKeys.self)
    let values = try container.decode([UInt64].self, forKey: .values)
    let counts = try container.decode([UInt64].self, forKey: .counts)
    guard values.count == counts.count else {
      throw DecodingError.dataCorruptedError(forKey: .counts, in: container, debugDescription: "unequal lengths")
    }
    for (value, count) in zip(values, counts) { self.values.record(min(value, Self.highest), count: count) }
  }
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    var recorded: [UInt64] = []
    var counts: [UInt64] = []
    for step in values.recordedValues() {
      recorded.append(step.value)
      counts.append(step.count)
    }
    try container.encode(recorded, forKey: .values)
    try container.encode(counts, forKey: .counts)
  }
}

/// What is printed of a distribution; nanoseconds.
public struct LatencySummary: Codable, Equatable, Sendable {
  public var count: UInt64 = 0
  public var p50: UInt64 = 0
  public var p99: UInt64 = 0
  public var p999: UInt64 = 0
  public var max: UInt64 = 0
}
