// SPDX-License-Identifier: Apache-2.0

/// Kinds of verdicts, as a set.
public struct VerdictSet: OptionSet, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  public init(_ kind: VerdictKind) { rawValue = 1 << UInt32(kind.rawValue) }

  public mutating func insert(_ kind: VerdictKind) { formUnion(VerdictSet(kind)) }
  public func contains(_ kind: VerdictKind) -> Bool { contains(VerdictSet(kind)) }

  public var kinds: [VerdictKind] { VerdictKind.allCases.filter(contains) }
  /// Names with spaces between them; a dash for none.
  public var text: String { isEmpty ? "-" : kinds.map(\.name).joined(separator: " ") }
}
