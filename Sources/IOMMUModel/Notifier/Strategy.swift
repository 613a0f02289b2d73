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
    /// After a fault has given an entry a right (`ptep_set_access_flags`), on hardware that caches rights alone.
    public static let upgrade = Sites(rawValue: 64)
  }
  /// How much I takes at once, and in how many commands (`Settings.CostModel.iotlbFlush` each). A device is always told
  /// in one Invalidate Request: the smallest naturally aligned power-of-two block that covers the range.
  public struct Reach: Equatable, Sendable {
    /// Pages of a range from which on I takes the whole PASID instead.
    public var wholeFrom: UInt32
    /// Whether the IOMMU's own caches take a command for each page.
    public var perPage: Bool
    public init(wholeFrom: UInt32 = .max, perPage: Bool = false) {
      self.wholeFrom = wholeFrom
      self.perPage = perPage
    }
    /// The range as one.
    public static let range = Reach()
    /// One page, or everything: `amd_iommu_v2` (Linux 4.1).
    public static let pageOrAll = Reach(wholeFrom: 2)
    /// SMMUv3 without range commands: page by page, and from 512 pages on the whole ASID (Linux d5afb4b47e13,
    /// `CMDQ_MAX_TLBI_OPS`; CVE-2023-52484).
    public static let pagesUpTo512 = Reach(wholeFrom: 512, perPage: true)
    /// The same before that.
    public static let pages = Reach(perPage: true)

    /// The kernel's half is one command for everybody, as the whole address space is.
    func takes(_ range: PageRange) -> PageRange {
      range.count >= UInt64(wholeFrom) && range != .kernel ? .all : range
    }
    func commandCount(_ range: PageRange) -> Int {
      perPage && takes(range) != .all && range != .kernel ? Int(range.count) : 1
    }
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
  /// Whether I waits in the flush queue of its address space (Linux dma-iommu's lazy mode), and what waits with it. The
  /// queue is flushed when it is full, when its time has come, and before an exit or a detach: `Settings.flushQueueEntries`
  /// and `flushQueueTimeout`.
  public enum Deferral: UInt8, Sendable, CaseIterable {
    /// I runs where a site asks for it, and the operation waits for its completion.
    case none
    /// I waits at every site. Data frames are freed at once; page tables stay until the flush, as on the freelist of
    /// Linux's `iova_fq_entry`.
    case lazy
    /// What I protects waits with it: the frames and tables of a zap, and the addresses at which they stood, stay until
    /// the flush. Where nothing can be kept back, because an entry loses a right, gets another page or moves, or because
    /// others use the page too, I runs at once.
    case held

    /// The name in files and output.
    public var name: String {
      switch self {
      case .none: "none"
      case .lazy: "lazy"
      case .held: "held"
      }
    }
  }
  public var sites: Sites
  public var emptyTable: EmptyTable
  public var deferral: Deferral
  public var reach: Reach
  /// Whether I includes the device's own cache.
  public var flushesATC: Bool
  /// Whether `release` cuts the PASID and flushes everything before the first entry of an exit goes.
  public var release: Bool

  public init(
    sites: Sites, emptyTable: EmptyTable = .none, deferral: Deferral = .none, reach: Reach = .range,
    flushesATC: Bool = true, release: Bool = true
  ) {
    self.sites = sites
    self.emptyTable = emptyTable
    self.deferral = deferral
    self.reach = reach
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
  public static let secondaryTLB = Strategy(sites: [.flushSite, .upgrade])
  public static let secondaryTLBWithoutUpgrade = Strategy(sites: .flushSite)
  public static let invalidateRangeAMD = Strategy(sites: invalidateRange.sites, reach: .pageOrAll)
  public static let secondaryTLBSMMU = Strategy(sites: secondaryTLB.sites, reach: .pagesUpTo512)
  public static let secondaryTLBPerPage = Strategy(sites: secondaryTLB.sites, reach: .pages)
  public static let deferred = Strategy(sites: invalidateRange.sites.union(.upgrade), deferral: .lazy)
  public static let deferredHeld = Strategy(sites: deferred.sites, deferral: .held)
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
      rule:
        "Flushes inside every CPU flush, and after an upgrade where rights are cached. Safe today; 2014 lacks some flushes.",
      history: "arch_invalidate_secondary_tlbs, Linux 6.6."),
    Description(
      name: "invalidate-range-amd", strategy: .invalidateRangeAMD,
      rule:
        "As invalidate-range, but more than one page takes the whole PASID. Safe; devices lose what they could keep.",
      history: "amd_iommu_v2 in Linux 4.1: one page, or flush_tlb."),
    Description(
      name: "secondary-tlb-smmu", strategy: .secondaryTLBSMMU,
      rule: "As secondary-tlb, with a command for each page, and from 512 pages on one for all. Safe.",
      history: "arm-smmu-v3-sva without range commands, since d5afb4b47e13 (CMDQ_MAX_TLBI_OPS)."),
    Description(
      name: "secondary-tlb-per-page", strategy: .secondaryTLBPerPage,
      rule: "As secondary-tlb, with a command for each page without a bound. Safe, and a large munmap takes for ever.",
      history: "arm-smmu-v3-sva before the fix of CVE-2023-52484, a soft lockup."),
    Description(
      name: "deferred", strategy: .deferred,
      rule:
        "I waits in a flush queue for n entries or t ms while frames are freed at once. Unsafe for as long: a stale window.",
      history: "Linux's lazy mode of the DMA API (iova_fq: 256 entries, 10 ms), applied to shared tables."),
    Description(
      name: "deferred-held", strategy: .deferredHeld,
      rule:
        "As deferred, but frames, tables and their addresses wait in the queue too, and what cannot wait is flushed. Safe.",
      history: "What the lazy mode does with IOVAs and page tables, done with the frames as well."),
    Description(
      name: "invalidate-range-without-atc", strategy: .invalidateRangeWithoutATC,
      rule: "As invalidate-range, but the device's own cache is never told. Unsafe: a control that must be caught.",
      history: "A mutant; what happens to a device whose ATS was left out of the flush."),
    Description(
      name: "secondary-tlb-without-upgrade", strategy: .secondaryTLBWithoutUpgrade,
      rule:
        "As secondary-tlb, but never for a right that is gained. Where rights are cached, write faults repeat for ever.",
      history: "A mutant; SMMU without TLB broadcast before Linux 6.6 (a read-only entry becomes writable without I)."),
    Description(
      name: "none", strategy: .none,
      rule: "Never flushes, not even at exit. Unsafe: a control that must be caught.",
      history: "A mutant."),
  ]
  /// The hooks of step lists, for people: when each is called, and by whom.
  public static let hooks: [(name: String, site: Sites, rule: String)] = [
    ("start", .start, "S, invalidate_range_start: before the first entry changes."),
    (
      "flush-site", .flushSite,
      "Between C and F or T: mmu_notifier_invalidate_range, today arch_invalidate_secondary_tlbs. In reclaim's and "
        + "migration's batches of today it comes before C, and takes the whole address space (arch_tlbbatch_add_pending)."
    ),
    ("end", .end, "E, invalidate_range_end: after the last entry has changed; in 4.1 it ran I once more."),
    (
      "invalidate-page", .invalidatePage,
      "invalidate_page: after the page-table lock was dropped; reclaim and migration until Linux 4.13."
    ),
    ("change-pte", .changePTE, "change_pte: before COW and KSM set a new entry, Linux 2009 to 2024."),
    ("young", .young, "clear_flush_young: Accessed bits were cleared."),
    (
      "upgrade", .upgrade,
      "A fault gave an entry a right (ptep_set_access_flags): on hardware that answers from cached rights, Linux 6.6."
    ),
  ]

  public static let named: [(name: String, strategy: Strategy)] = all.map { ($0.name, $0.strategy) }
  public static func named(_ name: String) -> Strategy? { named.first { $0.name == name }?.strategy }
}
