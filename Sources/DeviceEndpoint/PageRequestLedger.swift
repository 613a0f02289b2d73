// SPDX-License-Identifier: Apache-2.0

/// Credits, group indices and the accesses that wait for a page, in the order in which they began to wait.
///
/// Members outstanding never exceed the allocation. An index is free again when its group was answered; the index that
/// has been free the longest is taken next, so that a late answer of an earlier group does not meet a new one soon.
struct PageRequestLedger: Sendable {
  struct Group: Equatable, Sendable {
    /// First slot of the members' list, -1: no such group.
    var head: Int32 = -1
    var memberCount: UInt32 = 0
    var pasid: UInt32 = 0
    var sentAt: UInt64 = 0
  }
  static let indexCount = 512
  let allocation: UInt32
  private(set) var outstanding: UInt32 = 0
  private(set) var groups: [Group]
  private var freeIndices: [UInt16]
  private var freeHead = 0
  private(set) var freeCount = PageRequestLedger.indexCount
  /// Slots that wait for a page request to be sent, first come first served, as a list through `Slot.next`.
  var waitingHead: Int32 = -1
  var waitingTail: Int32 = -1

  init(allocation: UInt32) {
    self.allocation = allocation
    groups = Array(repeating: Group(), count: Self.indexCount)
    freeIndices = (0..<UInt16(Self.indexCount)).map { $0 }
  }

  var credits: UInt32 { outstanding >= allocation ? 0 : allocation - outstanding }

  /// Opens a group; there must be a free index.
  mutating func open(pasid: UInt32, head: Int32, memberCount: UInt32, now: UInt64) -> UInt16 {
    precondition(freeCount > 0, "no free page-request group index")
    let index = freeIndices[freeHead]
    freeHead = (freeHead + 1) % Self.indexCount
    freeCount -= 1
    outstanding += memberCount
    groups[Int(index)] = Group(head: head, memberCount: memberCount, pasid: pasid, sentAt: now)
    return index
  }

  /// Closes the group that an answer names; nil when there is no such group under that PASID.
  mutating func close(index: UInt16, pasid: UInt32) -> Group? {
    guard Int(index) < Self.indexCount else { return nil }
    let group = groups[Int(index)]
    guard group.head >= 0, group.pasid == pasid else { return nil }
    groups[Int(index)].head = -1
    freeIndices[(freeHead + freeCount) % Self.indexCount] = index
    freeCount += 1
    outstanding -= group.memberCount
    return group
  }

  mutating func removeAll() {
    for index in 0..<Self.indexCount where groups[index].head >= 0 {
      _ = close(index: UInt16(index), pasid: groups[index].pasid)
    }
    waitingHead = -1
    waitingTail = -1
  }
}
