// SPDX-License-Identifier: Apache-2.0

/// One of the 32 tags under which a device owes an Invalidate Completion.
struct ITag {
  static let count = 32

  enum State: UInt8 {
    case idle, owed
    /// Its invalidation timed out: not used again in this epoch.
    case dead
  }
  var state = State.idle
  var invalidation = Invalidation(itag: 0, pasid: 0, first: 0, sizeLog2: 12, order: 0)
  var pushedAt: Nanoseconds = 0
  var operation = OperationID.none
  /// Sequence of the time-out's turn, so that a later use of the tag does not meet an old time-out.
  var timeoutTurn: UInt64 = 0
}

/// An invalidation that waits for a free tag.
struct QueuedInvalidation {
  var operation: OperationID
  var pasid: PASID
  var range: PageRange
}
