// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// What the machine does under the default cost model, beside what was published: inputs, which it must reproduce, and
/// figures that nobody put in. Virtual time; everything follows from the seed.
public struct Calibration: Sendable {
  /// A row of `dmar_perf_latency`: an input.
  public struct Histogram: Sendable {
    public let figure: PublishedFigure
    /// Thousandths of the samples in each of the figure's buckets, and outside of all.
    public let shares: [Double]
    public let outside: Double
    /// Nanoseconds.
    public let mean: Double
    public let least: Nanoseconds
    public let greatest: Nanoseconds

    init(_ figure: PublishedFigure, _ samples: [Nanoseconds]) {
      self.figure = figure
      let count = Double(samples.count)
      shares = figure.buckets.map { bucket in
        Double(samples.count { $0 >= bucket.low && $0 < bucket.high }) * 1000 / count
      }
      outside = 1000 - shares.reduce(0, +)
      mean = Double(samples.reduce(0, +)) / count
      least = samples.min()!
      greatest = samples.max()!
    }

    /// The greatest distance between a bucket's simulated and its published share, percentage points.
    public var distance: Double {
      zip(shares, figure.buckets).map { abs($0 - Double($1.share)) / 10 }.max()!
    }
  }

  /// A figure that follows from the inputs and the machine, beside one that somebody else gives.
  public struct Check: Sendable {
    public let name: String
    public let unit: String
    public let simulated: Double
    public let expected: Double
    /// Where the expected figure comes from.
    public let source: String
    /// Hundredths of the expected figure.
    public var deviation: Double { (simulated / expected - 1) * 100 }
  }

  /// Requests of each load, for each sample of an input.
  static let loadFactor = 5

  public let seed: UInt64
  public let sampleCount: Int
  public let inputs: [Histogram]
  public let checks: [Check]
  /// Mean response under load: the handler as a queue.
  public let load: [Check]
  /// The stale window of deferred flushes by the bounds of their queue; empty when it was not asked for.
  public let windows: [DeferredWindow]

  /// The share, in percentage points, within which an input's bucket must be reproduced.
  public static let tolerance = 2.0
  /// Of the committed table.
  public static let sampleCount = 10_000

  public init(
    seed: UInt64 = 1, sampleCount: Int = Self.sampleCount, costs: CostModel = CostModel(), withWindows: Bool = true
  ) {
    windows =
      withWindows
      ? DeferredWindow.points.map { DeferredWindow(entries: $0.entries, timeout: $0.timeout, seed: seed) } : []
    self.seed = seed
    self.sampleCount = sampleCount
    var alone = FaultBench(costs: costs, seed: seed)
    alone.run(.closed(1), count: sampleCount, seed: seed)
    let invalidations = InvalidationBench(costs: costs, count: sampleCount, seed: seed)
    inputs = [
      Histogram(.pageRequestService, alone.samples.map(\.service)), Histogram(.iotlbInvalidation, invalidations.iotlb),
      Histogram(.deviceTLBInvalidation, invalidations.deviceTLB),
    ]

    var busy = FaultBench(costs: costs, seed: seed)
    busy.run(.closed(64), count: sampleCount, seed: seed)
    let rate = Double(sampleCount) * 1e9 / Double(busy.duration)
    let published = Double(PublishedFigure.pageRequestService.mean!)
    let drawn = costs.faultService.mean
    checks = [
      Check(
        name: "one serial handler, 64 requests outstanding", unit: "faults/s", simulated: rate,
        expected: 1e9 / published, source: "1 / published mean"),
      Check(
        name: "the same", unit: "faults/s", simulated: rate, expected: 1e9 / drawn,
        source: "1 / mean of the distribution that is drawn from"),
    ]
    load = [25, 50, 75].map { percent in
      let gap = drawn * 100 / Double(percent)
      var queue = FaultBench(costs: costs, seed: seed)
      queue.run(.poisson(Nanoseconds(gap)), count: sampleCount * Self.loadFactor, seed: seed)
      let mean = Double(queue.samples.reduce(0) { $0 + $1.response }) / Double(queue.samples.count)
      // Pollaczek and Khinchine: λ E[S²] / 2 (1 − ρ) in the queue.
      let waiting = costs.faultService.meanSquare / gap / (2 * (1 - Double(percent) / 100))
      return Check(
        name: "mean response at \(percent) % load", unit: "µs", simulated: mean / 1000,
        expected: (waiting + drawn + costs.interrupt.mean) / 1000, source: "interrupt + M/G/1")
    }
  }
}

extension Distribution {
  private var shares: [(bucket: Bucket, share: Double)] {
    let ends = [0, a.upTo, b.upTo, c.upTo]
    return zip([a, b, c], 0...).map { bucket, index in
      (bucket, Double(max(ends[index + 1], ends[index]) - ends[index]) / 1000)
    }
  }
  /// Nanoseconds. A place in a bucket is 1/2 on average, its square 1/3; the lesser of two 1/3 and 1/6.
  var mean: Double {
    shares.reduce(0) { sum, part in
      let (low, width) = (Double(part.bucket.low), Double(part.bucket.high - part.bucket.low))
      return sum + part.share * (low + width * (1 / 2 - leaning / 6))
    }
  }
  /// Mean of the squares.
  var meanSquare: Double {
    shares.reduce(0) { sum, part in
      let (low, width) = (Double(part.bucket.low), Double(part.bucket.high - part.bucket.low))
      return sum + part.share
        * (low * low + 2 * low * width * (1 / 2 - leaning / 6) + width * width * (1 / 3 - leaning / 6))
    }
  }
  private var leaning: Double { Double(lean) / 1000 }
}
