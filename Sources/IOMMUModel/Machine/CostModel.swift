// SPDX-License-Identifier: Apache-2.0

/// Durations of steps as distributions, times one printed factor (design §4, `reliability-and-users.md` §6).
public struct CostModel: Equatable, Sendable {
  /// All durations, the hold and the time-outs are multiplied by this many thousandths.
  public var dilationMilli: UInt64 = 1000
  public var start = Distribution.uniform(100, 500)
  public var end = Distribution.uniform(100, 500)
  /// One page-table-lock hold over `entriesPerHold` entries; scaled by the entries that were changed.
  public var entry = Distribution.uniform(20, 60)
  /// TLB shootdown by IPI: 1 to 3 µs.
  public var cpuFlush = Distribution.uniform(1000, 3000)
  public var frameFree = Distribution.uniform(20, 60)
  public var iotlbFlush = PublishedFigure.iotlbInvalidation.distribution
  public var faultService = PublishedFigure.pageRequestService.distribution
  /// A CPU's minor fault.
  public var cpuFault = Distribution.uniform(500, 1500)
  /// From the first entry of an empty page-request queue to the driver's interrupt thread.
  public var interrupt = Distribution.uniform(1000, 3000)
  /// From the issue of a DMA to its landing.
  public var dmaLanding = Distribution.uniform(300, 1000)
  public init() {}

  /// The instant machine: every duration is zero. Interleavings then follow from arrival order alone.
  public static var zero: CostModel {
    var costs = CostModel()
    for path in Self.all { costs[keyPath: path] = .constant(0) }
    return costs
  }
  static var all: [WritableKeyPath<CostModel, Distribution>] {
    [
      \.start, \.end, \.entry, \.cpuFlush, \.frameFree, \.iotlbFlush, \.faultService, \.cpuFault, \.interrupt,
      \.dmaLanding,
    ]
  }
}

/// A distribution in nanoseconds: up to three buckets, uniform inside but for the lean. Integers only, so that debug and
/// release agree.
public struct Distribution: Equatable, Sendable {
  public struct Bucket: Equatable, Sendable {
    /// Cumulative share in thousandths.
    public var upTo: UInt32
    public var low: UInt32
    public var high: UInt32
    public init(upTo: UInt32, _ low: UInt32, _ high: UInt32) {
      self.upTo = upTo
      self.low = low
      self.high = high
    }
  }
  public var a: Bucket
  public var b: Bucket
  public var c: Bucket
  /// Thousandths of the draws that take the lesser of two places in their bucket. Shares of buckets do not say what the
  /// mean is; where it is known as well, this is what makes it so.
  public var lean: UInt32 = 0
  public init(_ a: Bucket, _ b: Bucket? = nil, _ c: Bucket? = nil, lean: UInt32 = 0) {
    self.lean = lean
    self.a = a
    self.b = b ?? a
    self.c = c ?? self.b
  }
  public static func uniform(_ low: UInt32, _ high: UInt32) -> Distribution { .init(.init(upTo: 1000, low, high)) }
  public static func constant(_ value: UInt32) -> Distribution { .uniform(value, value) }

  /// One value: thousandths choose the bucket, and then the place in it.
  public func draw(_ generator: inout SeededGenerator) -> Nanoseconds { sample(&generator) }

  func sample(_ generator: inout SeededGenerator) -> Nanoseconds {
    if a.upTo >= 1000 && a.low == a.high { return Nanoseconds(a.low) }
    let roll = UInt32(generator.next(below: 1000))
    let bucket = roll < a.upTo ? a : roll < b.upTo ? b : c
    guard bucket.high > bucket.low else { return Nanoseconds(bucket.low) }
    let width = UInt64(bucket.high - bucket.low)
    var place = generator.next(below: width)
    if lean > 0 && generator.next(below: 1000) < UInt64(lean) { place = min(place, generator.next(below: width)) }
    return Nanoseconds(bucket.low) + place
  }
}
