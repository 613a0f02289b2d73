// SPDX-License-Identifier: Apache-2.0

/// An access under way.
struct AccessSlot: Sendable {
  enum State: UInt8, Sendable {
    case free
    /// A translation request is out.
    case translating
    /// Not present, and this access struggles for the page: waits until a page request may be sent.
    case wantingPage
    /// A page request is out.
    case pageRequested
    /// Another access of the device struggles for the page: waits for its outcome.
    case parked
    /// Out of retries: given up as soon as no other answer for the page is under way.
    case exhausted
    /// A DMA is out.
    case accessing
  }
  var state = State.free
  /// Upper half of the tag, so that an answer to an earlier access of this slot is told apart.
  var generation: UInt16 = 0
  var access = Access(pasid: 0, page: 0, offset: 0, write: false)
  var intendedAt: UInt64 = 0
  /// Page requests that this access sent itself.
  var pageRequests: UInt32 = 0
  /// This access speaks for the device in the struggle for its page: from its first "not present" to the end. There is
  /// at most one for a page, because software counts retries for a page, not for an access.
  var struggles = false
  /// Page requests sent in this struggle since the page was last granted.
  var attempts: UInt32 = 0
  /// Next in the list of those that want a page, in the group's list, or in the list of free slots; -1: none.
  var next: Int32 = -1
  /// Answers with a smaller order are stale if their block is of 4K, 2M or 1G: an invalidation overlapped that block.
  var staleBelow: (small: UInt64, medium: UInt64, large: UInt64) = (0, 0, 0)
  /// log2 of the byte count of the block through which the DMA goes.
  var blockSizeLog2: UInt8 = 12
  /// ITags whose completion waits for this DMA.
  var holds: UInt32 = 0
  var value: UInt64 = 0

  var rights: ATSRights { access.write ? .write : .read }

  /// Notes an invalidation that arrived while the translation request was out.
  mutating func noteInvalidation(_ range: PageBlock, order: UInt64) {
    guard PageBlock(access.page, sizeLog2: 30).overlaps(range) else { return }
    staleBelow.large = max(staleBelow.large, order)
    guard PageBlock(access.page, sizeLog2: 21).overlaps(range) else { return }
    staleBelow.medium = max(staleBelow.medium, order)
    guard range.contains(access.page) else { return }
    staleBelow.small = max(staleBelow.small, order)
  }

  /// The order below which an answer of this size is stale.
  func staleBelow(sizeLog2: UInt8) -> UInt64 {
    sizeLog2 <= 12 ? staleBelow.small : sizeLog2 <= 21 ? staleBelow.medium : staleBelow.large
  }
}
