// SPDX-License-Identifier: Apache-2.0
import MirrorEndpoint

/// How often a verdict may occur in a run.
public enum Expectation: String, Codable, CaseIterable, Sendable {
  case zero, some, any
  public func admits(_ count: UInt64) -> Bool {
    switch self {
    case .zero: count == 0
    case .some: count > 0
    case .any: true
    }
  }
}

/// Which verdicts each strategy is expected to earn: design §4's table, as data. The storm compares; it never judges.
public struct ExpectedVerdicts: Equatable, Sendable {
  /// Every verdict's name, in the order in which tables show them.
  public static let names = [
    "STALE_DMA", "STALE_WALK", "STALE_CPU", "WRITE_AFTER_PROTECT", "SPLIT_VIEW", "USED_AFTER_COMPLETION",
    "FORGED_TRANSLATION", "ILLEGAL_TRANSLATION", "GAVE_UP", "LIVELOCK", "PRG_UNANSWERED", "PRG_TWICE",
    "PRG_WRONG_PASID", "MIRROR_AFTER_START", "MIRROR_WITHOUT_RETRY", "MIRROR_AFTER_RELEASE",
  ]

  /// Verdicts that are not named are expected to be zero.
  static let table: [String: [String: Expectation]] = [
    "flush-at-start": [
      "STALE_DMA": .some, "WRITE_AFTER_PROTECT": .any, "SPLIT_VIEW": .any, "STALE_WALK": .any, "GAVE_UP": .any,
    ],
    "flush-at-end": ["STALE_DMA": .some, "STALE_WALK": .any, "SPLIT_VIEW": .any, "GAVE_UP": .any],
    "empty-table": ["STALE_DMA": .zero, "GAVE_UP": .some, "STALE_WALK": .any],
    // Unsafe only when windows overlap in the worst way, so nothing is certain.
    "empty-table-racy": [
      "STALE_DMA": .any, "GAVE_UP": .some, "STALE_WALK": .any, "SPLIT_VIEW": .any, "WRITE_AFTER_PROTECT": .any,
    ],
    "empty-table-uncounted": [
      "STALE_DMA": .any, "GAVE_UP": .some, "STALE_WALK": .any, "SPLIT_VIEW": .any, "WRITE_AFTER_PROTECT": .any,
    ],
    "invalidate-range": [:],
    "invalidate-range-amd": [:],
    "secondary-tlb": [:],
    "secondary-tlb-smmu": [:],
    "secondary-tlb-per-page": [:],
    // What differs from `secondary-tlb` shows on hardware that caches rights alone.
    "secondary-tlb-without-upgrade": ["GAVE_UP": .any, "LIVELOCK": .any],
    "deferred": ["STALE_DMA": .some, "WRITE_AFTER_PROTECT": .any, "SPLIT_VIEW": .any],
    "deferred-held": [:],
    "invalidate-range-without-atc": ["STALE_DMA": .some, "WRITE_AFTER_PROTECT": .any, "SPLIT_VIEW": .any],
    "none": Dictionary(uniqueKeysWithValues: names.map { ($0, $0 == "STALE_DMA" ? Expectation.some : .any) }),
  ]

  /// What a misbehaving device adds, whatever the strategy.
  static let misbehaviours: [String: [String: Expectation]] = [
    "completes-early": ["USED_AFTER_COMPLETION": .any, "STALE_DMA": .any],
    "never-completes": [:],
    "keeps-using-after-completion": [
      "USED_AFTER_COMPLETION": .some, "STALE_DMA": .any, "WRITE_AFTER_PROTECT": .any, "SPLIT_VIEW": .any,
    ],
    "ignores-order": ["USED_AFTER_COMPLETION": .any, "STALE_DMA": .any],
    "exceeds-credits": ["GAVE_UP": .any],
    // A forged address may be one for which the device once had a grant.
    "forges-addresses": [
      "FORGED_TRANSLATION": .some, "USED_AFTER_COMPLETION": .any, "STALE_DMA": .any, "WRITE_AFTER_PROTECT": .any,
    ],
    "completes-twice": [:],
  ]

  /// What mirrors may earn, whatever the strategy: hooks are the kernel's own way, and the kernel waits for each answer.
  private var ofMirrors: [String: Expectation] = [:]
  /// In place of a strategy's name: the mirrors, whatever the strategy.
  static let mirrorsName = "mirrors"

  var changes: [String: [String: Expectation]] = [:]
  var added: [String: Expectation] = [:]

  /// - Parameter hasKernelTableBug: whether devices walk through page tables of the kernel that are freed at once.
  public init(misbehaviour: String? = nil, isKernelOfNow: Bool = false, hasKernelTableBug: Bool = false) {
    if let misbehaviour { added = Self.misbehaviours[misbehaviour] ?? [:] }
    if hasKernelTableBug {
      // No strategy has a site there. Whether a walk meets it before a flush of the whole PASID is chance.
      for strategy in Self.table.keys { set(strategy, "STALE_WALK", .any) }
    }
    if !isKernelOfNow {
      // The lists of 2014 lack flushes that secondary-tlb relies on (docs/expected-verdicts.md).
      for strategy in Self.table.keys where strategy.hasPrefix("secondary-tlb") {
        for verdict in ["STALE_DMA", "WRITE_AFTER_PROTECT", "SPLIT_VIEW"] { set(strategy, verdict, .any) }
      }
    }
  }

  /// Mirrors that obey earn nothing, unless the order is at fault: the lists of 2014 flush late or never what a secondary
  /// TLB would have to hear of, and retract a file's tables without telling anybody (docs/expected-verdicts.md).
  public mutating func expectMirrors(of plan: StormPlan) {
    let isUnsafeOrder = plan.mirrors.contains(MirrorKind.secondaryTLB.rawValue) || plan.mix.files > 0
    guard !plan.isKernelOfNow, isUnsafeOrder else { return }
    for verdict in ["STALE_DMA", "WRITE_AFTER_PROTECT"] { ofMirrors[verdict] = .any }
  }

  public func expectation(_ strategy: String, _ verdict: String) -> Expectation {
    if let changed = changes[strategy]?[verdict] { return changed }
    // A strategy that the table does not know, from a newer service perhaps, has no expectation.
    guard let row = Self.table[strategy] else { return .any }
    let own = row[verdict] ?? .zero
    guard let extra = added[verdict] else { return own }
    return own == .zero ? extra : own
  }

  public func mirrorExpectation(_ verdict: String) -> Expectation {
    changes[Self.mirrorsName]?[verdict] ?? ofMirrors[verdict] ?? .zero
  }

  public mutating func set(_ strategy: String, _ verdict: String, _ expectation: Expectation) {
    changes[strategy, default: [:]][verdict] = expectation
  }

  /// `strategy:VERDICT=zero|some|any`; answers what is wrong with the text, or nil.
  public mutating func apply(_ text: String) -> String? {
    let halves = text.split(separator: "=", omittingEmptySubsequences: false)
    let names = halves.first?.split(separator: ":", omittingEmptySubsequences: false) ?? []
    guard halves.count == 2, names.count == 2, !names[0].isEmpty else {
      return "'\(text)': write strategy:VERDICT=zero, some or any"
    }
    guard let expectation = Expectation(rawValue: String(halves[1])) else {
      return "'\(halves[1])': an expectation is zero, some or any"
    }
    guard Self.names.contains(String(names[1])) else {
      return "'\(names[1])': no such verdict; there are \(Self.names.joined(separator: ", "))"
    }
    set(String(names[0]), String(names[1]), expectation)
    return nil
  }

  /// Every verdict of a run's mirrors that is not as expected, in words.
  func differences(_ mirrors: MirrorsResult, _ strategy: String) -> [String] {
    Self.names.compactMap { name in
      let count = mirrors.verdicts[name] ?? 0
      let expected = mirrorExpectation(name)
      return expected.admits(count) ? nil : "\(strategy): \(name) of mirrors is \(count), expected \(expected.rawValue)"
    }
  }

  /// Every verdict of a run that is not as expected, in words.
  public func differences(_ strategy: String, _ counts: [String: UInt64]) -> [String] {
    Self.names.compactMap { name in
      let count = counts[name] ?? 0
      let expected = expectation(strategy, name)
      return expected.admits(count) ? nil : "\(strategy): \(name) is \(count), expected \(expected.rawValue)"
    }
  }
}
