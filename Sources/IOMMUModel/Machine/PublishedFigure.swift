// SPDX-License-Identifier: Apache-2.0

/// A measurement that somebody published, and that durations of the model are taken from or compared with. The one place
/// for its numbers.
public struct PublishedFigure: Sendable {
  /// A share of the values, in thousandths, between two bounds in nanoseconds.
  public struct Bucket: Sendable {
    public let low: UInt32
    public let high: UInt32
    public let share: UInt32
  }
  /// The row's name in Linux's `dmar_perf_latency`.
  public let row: String
  public let what: String
  /// Name of the source in this project, and the source.
  public let provenance: String
  public let source: String
  public let buckets: [Bucket]
  /// Nanoseconds, where they were published.
  public let mean: UInt32?
  public let greatest: UInt32?

  /// The buckets up to the greatest value, leaning as far to their low ends as the mean wants.
  public var distribution: Distribution {
    var upTo: UInt32 = 0
    let buckets = buckets.map { bucket in
      upTo += bucket.share
      return Distribution.Bucket(upTo: upTo, bucket.low, min(bucket.high, greatest ?? .max))
    }
    return Distribution(
      buckets[0], buckets.count > 1 ? buckets[1] : nil, buckets.count > 2 ? buckets[2] : nil, lean: lean)
  }

  /// The lesser of two uniform places is at a third, one alone at the half: a sixth of a bucket's width lies between.
  private var lean: UInt32 {
    guard let mean else { return 0 }
    var twiceMiddle: UInt64 = 0
    var width: UInt64 = 0
    for bucket in buckets {
      let high = min(bucket.high, greatest ?? .max)
      twiceMiddle += UInt64(bucket.share) * UInt64(bucket.low + high)
      width += UInt64(bucket.share) * UInt64(high - bucket.low)
    }
    let excess = twiceMiddle - 2000 * UInt64(mean)
    precondition(3 * excess <= width, "a lean reaches the mean")
    return UInt32(3000 * excess / width)
  }

  private static let intelIAA = "intel-iaa-qemu-doc"
  private static let qemu = "debugfs of a real Intel machine with IAA, QEMU docs/devel/migration/qpl-compression.rst"

  /// 25,965 faults; the least 1 µs.
  public static let pageRequestService = PublishedFigure(
    row: "svm_prq", what: "I/O page fault service", provenance: intelIAA, source: qemu,
    buckets: [
      Bucket(low: 1000, high: 10_000, share: 971), Bucket(low: 10_000, high: 100_000, share: 14),
      Bucket(low: 100_000, high: 1_000_000, share: 15),
    ], mean: 9000, greatest: 556_000)
  /// 409 of them.
  public static let iotlbInvalidation = PublishedFigure(
    row: "inv_iotlb", what: "IOTLB invalidation", provenance: intelIAA, source: qemu,
    buckets: [Bucket(low: 100, high: 1000, share: 700), Bucket(low: 1000, high: 10_000, share: 300)], mean: nil,
    greatest: nil)
  /// 409 of them.
  public static let deviceTLBInvalidation = PublishedFigure(
    row: "inv_devtlb", what: "device-TLB invalidation", provenance: intelIAA, source: qemu,
    buckets: [Bucket(low: 100, high: 1000, share: 670), Bucket(low: 1000, high: 10_000, share: 330)], mean: nil,
    greatest: 2000)
  public static let all = [pageRequestService, iotlbInvalidation, deviceTLBInvalidation]
}
