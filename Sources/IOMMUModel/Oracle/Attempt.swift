// SPDX-License-Identifier: Apache-2.0

/// A device's struggle for one page: from its first page request until a translation grants what it asked.
struct Attempt {
  /// Turn of the first page request, or of the needless answer before it.
  var sinceTurn: UInt64
  var sinceTime: Nanoseconds
  var requests: UInt32 = 0
  var rights: Rights
  /// The last answer was "not present" although the address space's own table granted the right in that very turn.
  var needless: Bool
  /// Success answers without a change of the page between, and the change that they are counted from.
  var successes: UInt32 = 0
  var changedTurn: UInt64 = 0
  /// Attempts of one device; far above the pages that it can wait for at once.
  static let limit = 65_536
}
