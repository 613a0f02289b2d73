// SPDX-License-Identifier: Apache-2.0

/// Ways in which a device breaks its contract, for tests of everybody who must notice. None is the default.
public struct Misbehaviour: OptionSet, Equatable, Sendable {
  public let rawValue: UInt32
  public init(rawValue: UInt32) { self.rawValue = rawValue }
  /// Completes an invalidation while uses of the range are still in flight.
  public static let completesEarly = Misbehaviour(rawValue: 1 << 0)
  /// Swallows invalidations: fenced at the time-out.
  public static let neverCompletes = Misbehaviour(rawValue: 1 << 1)
  /// Completes, but keeps the entries in its cache and goes on using them.
  public static let keepsUsingAfterCompletion = Misbehaviour(rawValue: 1 << 2)
  /// Uses a translation answer that is older than a covering invalidation.
  public static let ignoresOrder = Misbehaviour(rawValue: 1 << 3)
  /// Sends page requests beyond its allocation.
  public static let exceedsCredits = Misbehaviour(rawValue: 1 << 4)
  /// Accesses one frame beyond the translation that it was given.
  public static let forgesAddresses = Misbehaviour(rawValue: 1 << 5)
  /// Sends each completion twice.
  public static let completesTwice = Misbehaviour(rawValue: 1 << 6)

  /// Every misbehaviour with the name that command lines use.
  public static let named: [(name: String, value: Misbehaviour)] = [
    ("completes-early", .completesEarly), ("never-completes", .neverCompletes),
    ("keeps-using-after-completion", .keepsUsingAfterCompletion), ("ignores-order", .ignoresOrder),
    ("exceeds-credits", .exceedsCredits), ("forges-addresses", .forgesAddresses),
    ("completes-twice", .completesTwice),
  ]
}
