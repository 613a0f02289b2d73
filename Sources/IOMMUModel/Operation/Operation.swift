// SPDX-License-Identifier: Apache-2.0

/// A memory operation between its acceptance and its return.
struct Operation {
  let id: OperationID
  let kind: OperationKind
  let target: Binding.Target?
  let acceptedAt: Nanoseconds
  /// Index of the next step in its list.
  var step = 0
  var range: PageRange
  /// Next page of a P loop.
  var cursor: PageNumber = 0
  /// The range of the running S…E.
  var window: PageRange
  var rights: Rights = []
  var level: UInt8 = 0
  /// First page of where it moves to, or of what is kept in place of its own (KSM).
  var destination: PageNumber = 0
  /// Whose page is kept, for KSM.
  var keeper: AddressSpaceID?
  /// What mmap maps.
  var file: FileMapping?
  var cpuAccess: CPUAccess?
  var status = OperationOutcome.Status.success
  var value: UInt64 = 0

  /// Sequence of its pending turn; 0: it waits for somebody.
  var turn: UInt64 = 0
  var heldLock = false
  /// Its caller has been told the outcome; a worker goes on.
  var isAnswered = false

  // Gathered for C, I, F and T.
  var gathered: [FrameNumber] = []
  var tables: [FrameNumber] = []
  var gatherFirst: PageNumber = .max
  var gatherEnd: PageNumber = 0
  var dropped: [Dropped] = []
  /// A dirty page of a file was zapped: C, I and F before the page-table lock goes, as for a full batch.
  var forcesFlush = false
  /// A page-table lock that is held beyond a turn; 0: none.
  var lockedTable: FrameNumber = 0
  /// The lock of the table that entries move to, beside it.
  var lockedDestination: FrameNumber = 0
  /// The page whose migration entries faults wait for; 0: none.
  var lockedPage: FrameNumber = 0

  /// Pages that reclaim has isolated and not yet written.
  var pagesOut: [PageOut] = []

  // I: phase 0 flushes the IOMMU's caches, 1 pushes to devices, 2 has all completions.
  var flushPhase: UInt8 = 0
  var owed: UInt32 = 0
  var flushes: [BindingID] = []
  var flushRange = PageRange(first: 0, count: 0)
  /// The flush site takes the whole address space, whatever was gathered.
  var flushesWhole = false

  /// The entry of the flush queue that took this operation's last flush; 0: none did.
  var queued: UInt64 = 0
  // Subscribers of the address space.
  /// How far a site is with telling them.
  enum Telling: UInt8 {
    case nothing
    /// All that the site concerns; then the second pass of those that take two.
    case first, second
    /// A start was refused; those that had begun are told of the end.
    case refused
  }
  var telling = Telling.nothing
  /// The site that runs has told everybody.
  var isTold = false
  var isRefused = false
  /// Between S and E.
  var isWindowOpen = false
  /// Who will be told of E.
  var awaitEnd: [SubscriberID] = []
  /// Who has begun in the first pass, and will be told to finish in the second.
  var awaitFinish: [SubscriberID] = []

  var countedInEmptyTable = false
  var countedDown = false
  /// Its E was the last of the racy counter.
  var restoresRacy = false

  // Faults.
  var fault = FaultState()
  var group: PageRequestGroup?
  var mirrorFault: RangeFaultState?
  /// `dev_private_owner` of the driver that asked for it; 0: nobody's.
  var owner: UInt32 = 0
  var child: AddressSpaceID?
  var detached: (device: DeviceID, pasid: PASID, binding: BindingID)?

  init(
    _ id: OperationID, _ kind: OperationKind, _ target: Binding.Target?, _ range: PageRange, at time: Nanoseconds
  ) {
    self.id = id
    self.kind = kind
    self.target = target
    self.range = range
    window = range
    cursor = range.first
    acceptedAt = time
  }

  var space: AddressSpaceID? {
    if case .addressSpace(let id)? = target { id } else { nil }
  }

  mutating func gather(_ pages: PageRange) {
    gatherFirst = min(gatherFirst, pages.first)
    gatherEnd = max(gatherEnd, pages.end)
  }
  var gatherRange: PageRange? {
    gatherFirst < gatherEnd ? PageRange(first: gatherFirst, count: gatherEnd - gatherFirst) : nil
  }
}

/// Where a fault's service stands.
struct FaultState {
  var page: PageNumber = 0
  var wanted: Rights = []
  /// Members done, for a group; pages touched, for a CPU.
  var index = 0
  /// First error of a group is sticky (io-pgfault's SVA handler).
  var code = PageResponse.Code.success
  // COW break.
  var level: UInt8 = 0
  var oldFrame: FrameNumber = 0
  var oldEntry: UInt64 = 0
  var newFrame: FrameNumber = 0
  /// What the new entry grants.
  var newRights: Rights = .readWrite
  /// The contents are copied when nobody reaches the old frame any more: out of a device's memory.
  var copiesLate = false
  /// The huge page of `page` must be split: no block is free for a copy of it as a whole.
  var splits = false
  /// Under the lock the entry was no longer the one that was copied (`pte_same`).
  var lost = false
  /// Between clearing an entry and setting it again the operation itself holds the frames.
  var ownsOldFrame = false
  var ownsNewFrame = false
}
