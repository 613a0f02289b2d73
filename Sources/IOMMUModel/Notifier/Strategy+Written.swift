// SPDX-License-Identifier: Apache-2.0

/// A strategy that somebody wrote, by the names of its parts: what a file and `BindPasid` hold.
extension Strategy {
  /// What is wrong with a written strategy; the text says what is allowed.
  public struct Mistake: Error, Equatable, Sendable {
    /// The part that is wrong.
    public enum Part: Sendable { case flushAt, emptyTable, deferral, wholeFrom }
    public var part: Part
    public var text: String
  }

  /// - Parameters:
  ///   - flushAt: names of `hooks`.
  ///   - emptyTable: the name of an `EmptyTable`.
  ///   - deferral: the name of a `Deferral`.
  ///   - wholeFrom: pages of a range from which on I takes the whole PASID; at least 1, nil: never.
  /// - Throws: every mistake at once.
  public init(
    flushAt: [String], emptyTable: String = EmptyTable.none.name, deferral: String = Deferral.none.name,
    wholeFrom: UInt32? = nil, perPage: Bool = false, flushesATC: Bool = true, release: Bool = true
  ) throws(Mistakes) {
    var mistakes: [Mistake] = []
    func find<Part>(_ name: String, _ part: Mistake.Part, _ all: [(name: String, part: Part)]) -> Part? {
      if let found = all.first(where: { $0.name == name }) { return found.part }
      mistakes.append(
        Mistake(part: part, text: "'\(name.prefix(64))' is none of \(all.map(\.name).joined(separator: ", "))"))
      return nil
    }
    var sites: Sites = []
    let hooks = Self.hooks.map { (name: $0.name, part: $0.site) }
    for name in flushAt.prefix(Self.hooks.count + 1) {
      if let site = find(name, .flushAt, hooks) { sites.formUnion(site) }
    }
    if flushAt.count > Self.hooks.count {
      mistakes.append(Mistake(part: .flushAt, text: "\(flushAt.count) hooks; there are \(Self.hooks.count)"))
    }
    let window = find(emptyTable, .emptyTable, EmptyTable.allCases.map { ($0.name, $0) })
    let wait = find(deferral, .deferral, Deferral.allCases.map { ($0.name, $0) })
    if wholeFrom == 0 { mistakes.append(Mistake(part: .wholeFrom, text: "at least 1 page, or leave it out")) }
    guard mistakes.isEmpty, let window, let wait else { throw Mistakes(list: mistakes) }
    self.init(
      sites: sites, emptyTable: window, deferral: wait, reach: Reach(wholeFrom: wholeFrom ?? .max, perPage: perPage),
      flushesATC: flushesATC, release: release)
  }

  /// All that is wrong, in the order of the parts.
  public struct Mistakes: Error, Equatable, Sendable {
    public var list: [Mistake]
  }
}

extension Strategy.EmptyTable {
  /// The name in files and messages.
  public var name: String {
    switch self {
    case .none: "none"
    case .uncounted: "uncounted"
    case .racy: "racy"
    case .counted: "counted"
    }
  }
}
