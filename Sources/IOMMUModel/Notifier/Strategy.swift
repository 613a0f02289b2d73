// SPDX-License-Identifier: Apache-2.0

/// When a sharing IOMMU is flushed (design §4): the set of hooks of a notifier, as data. A strategy belongs to a
/// binding, and decides at which of the sites that an operation's step list names it runs I, the invalidation of
/// PASID cache, IOTLB, walk cache and ATC with completion.
public struct Strategy: Equatable, Sendable {
  /// The hooks that flush. A site of a step list where no binding's strategy has the hook costs nothing.
  public struct Sites: OptionSet, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// S, `invalidate_range_start`.
    public static let start = Sites(rawValue: 1)
    /// The flush site: after the CPU flush, before a frame or a table is freed.
    public static let flushSite = Sites(rawValue: 2)
    /// E, `invalidate_range_end`.
    public static let end = Sites(rawValue: 4)
    /// `invalidate_page`, after the page-table lock was dropped: reclaim, mkclean and migration until 4.13.
    public static let invalidatePage = Sites(rawValue: 8)
    /// `change_pte`, before a new entry is set: COW and KSM, 2009 to 2024.
    public static let changePTE = Sites(rawValue: 16)
    /// `clear_flush_young`.
    public static let young = Sites(rawValue: 32)
  }
  /// What the PASID points to from S to E.
  public enum EmptyTable: UInt8, Sendable, CaseIterable {
    /// The address space's own table, always.
    case none
    /// An empty one, and the own one again at the first E: overlapping windows re-open early (`amd_iommu_v2`, 3.6).
    case uncounted
    /// Counted, but the last E restores the table after it has counted down: a new S may come between (before Linux
    /// d73a6d722a67).
    case racy
    /// Counted, with the counter's lock held across the flush of the first S and of the last E (3.18).
    case counted
  }
  public var sites: Sites
  public var emptyTable: EmptyTable
  /// Whether I includes the device's own cache.
  public var flushesATC: Bool
  /// Whether `release` cuts the PASID and flushes everything before the first entry of an exit goes.
  public var release: Bool

  public init(sites: Sites, emptyTable: EmptyTable = .none, flushesATC: Bool = true, release: Bool = true) {
    self.sites = sites
    self.emptyTable = emptyTable
    self.flushesATC = flushesATC
    self.release = release
  }

  public static let flushAtStart = Strategy(sites: .start)
  public static let flushAtEnd = Strategy(sites: .end)
  public static let emptyTable = Strategy(sites: [.start, .end, .invalidatePage, .young], emptyTable: .counted)
  public static let emptyTableRacy = Strategy(sites: [.start, .end, .invalidatePage, .young], emptyTable: .racy)
  public static let emptyTableUncounted = Strategy(
    sites: [.start, .end, .invalidatePage, .changePTE, .young], emptyTable: .uncounted)
  /// 4.1: `mmu_notifier_invalidate_range` at the flush site, and once more inside `invalidate_range_end`.
  public static let invalidateRange = Strategy(sites: [.flushSite, .end, .invalidatePage, .young])
  public static let invalidateRangeWithoutATC = Strategy(
    sites: [.flushSite, .end, .invalidatePage, .young], flushesATC: false)
  /// 6.6: `arch_invalidate_secondary_tlbs`, inside the CPU flush and nowhere else.
  public static let secondaryTLB = Strategy(sites: .flushSite)
  public static let none = Strategy(sites: [], release: false)

  /// One line of the list of strategies: what people see of it.
  public struct Description: Sendable {
    public let name: String
    public let strategy: Strategy
    /// When it flushes, and what follows.
    public let rule: String
    /// Where it comes from.
    public let history: String
  }

  /// Every named strategy, in the order in which tables show them.
  public static let all: [Description] = [
    Description(
      name: "flush-at-start", strategy: .flushAtStart,
      rule: "Flushes at S alone. Unsafe: the device refills its cache between S and P, and nothing flushes after.",
      history: "What a driver gets that treats invalidate_range_start as a TLB flush."),
    Description(
      name: "flush-at-end", strategy: .flushAtEnd,
      rule: "Flushes at E alone. Unsafe where a frame or a table is freed before E, or where there is no E.",
      history: "The other half of the 2014 dilemma: at invalidate_range_end pages may be gone."),
    Description(
      name: "empty-table", strategy: .emptyTable,
      rule:
        "The PASID points to an empty table from S to E, under a counter. No stale DMA; needless faults, devices give up.",
      history: "amd_iommu_v2 until Linux 3.18, after d73a6d722a67 put the counter under a lock."),
    Description(
      name: "empty-table-racy", strategy: .emptyTableRacy,
      rule:
        "As empty-table, but the last E restores the table after it has counted down: unsafe when a new S comes between.",
      history: "amd_iommu_v2 before d73a6d722a67 (Fix small race between invalidate_range_end/start)."),
    Description(
      name: "empty-table-uncounted", strategy: .emptyTableUncounted,
      rule: "As empty-table, but the first E restores the table: unsafe when windows overlap.",
      history: "amd_iommu_v2 as it began, in Linux 3.6."),
    Description(
      name: "invalidate-range", strategy: .invalidateRange,
      rule: "Flushes between C and F or T, and once more at E. Safe, without a needless fault.",
      history: "The proposal of the 2014 thread, merged for Linux 3.19."),
    Description(
      name: "secondary-tlb", strategy: .secondaryTLB,
      rule: "Flushes inside every CPU flush and nowhere else. Safe in today's step lists; 2014's lack some flushes.",
      history: "arch_invalidate_secondary_tlbs, Linux 6.6."),
    Description(
      name: "invalidate-range-without-atc", strategy: .invalidateRangeWithoutATC,
      rule: "As invalidate-range, but the device's own cache is never told. Unsafe: a control that must be caught.",
      history: "A mutant; what happens to a device whose ATS was left out of the flush."),
    Description(
      name: "none", strategy: .none,
      rule: "Never flushes, not even at exit. Unsafe: a control that must be caught.",
      history: "A mutant."),
  ]
  public static let named: [(name: String, strategy: Strategy)] = all.map { ($0.name, $0.strategy) }
  public static func named(_ name: String) -> Strategy? { named.first { $0.name == name }?.strategy }
}
