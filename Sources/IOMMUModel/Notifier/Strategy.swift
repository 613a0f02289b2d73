// SPDX-License-Identifier: Apache-2.0

/// When a sharing IOMMU is flushed (design §4): the set of hooks of a notifier, as data. A strategy belongs to a
/// binding, and decides at which of the sites that an operation's step list names it runs I, the invalidation of
/// PASID cache, IOTLB, walk cache and ATC with completion.
public struct Strategy: Equatable, Sendable {
  public struct Sites: OptionSet, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// S, `invalidate_range_start`.
    public static let start = Sites(rawValue: 1)
    /// The flush site: after the CPU flush, before a frame or a table is freed.
    public static let flushSite = Sites(rawValue: 2)
    /// E, `invalidate_range_end`.
    public static let end = Sites(rawValue: 4)
  }
  public var sites: Sites
  /// The PASID points to an empty table from S to E, under a counter whose lock is held across S's flush.
  public var emptyTable: Bool
  /// Whether I includes the device's own cache.
  public var flushesATC: Bool
  /// Whether `release` cuts the PASID and flushes everything before the first entry of an exit goes.
  public var release: Bool

  public init(sites: Sites, emptyTable: Bool = false, flushesATC: Bool = true, release: Bool = true) {
    self.sites = sites
    self.emptyTable = emptyTable
    self.flushesATC = flushesATC
    self.release = release
  }

  public static let flushAtStart = Strategy(sites: .start)
  public static let flushAtEnd = Strategy(sites: .end)
  public static let emptyTable = Strategy(sites: [.start, .end], emptyTable: true)
  /// 2014: `mmu_notifier_invalidate_range` at the flush site, and once more inside `invalidate_range_end`.
  public static let invalidateRange = Strategy(sites: [.flushSite, .end])
  public static let invalidateRangeWithoutATC = Strategy(sites: [.flushSite, .end], flushesATC: false)
  public static let none = Strategy(sites: [], release: false)

  /// Every named strategy, in the order in which tables show them.
  public static let named: [(name: String, strategy: Strategy)] = [
    ("flush-at-start", .flushAtStart),
    ("flush-at-end", .flushAtEnd),
    ("empty-table", .emptyTable),
    ("invalidate-range", .invalidateRange),
    ("invalidate-range-without-atc", .invalidateRangeWithoutATC),
    ("none", .none),
  ]
  public static func named(_ name: String) -> Strategy? { named.first { $0.name == name }?.strategy }
}
