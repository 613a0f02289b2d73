// SPDX-License-Identifier: Apache-2.0

/// What a subscriber is like: which hooks it has, and so which events it gets (`reference/linux-mm.md` §2, "Users").
public enum SubscriberKind: UInt8, Sendable, CaseIterable {
  /// A plain notifier with start, end and young hooks; it keeps a counter and a sequence of its own (KVM).
  case kvmLike
  /// `mmu_interval_notifier`: one range, a sequence that the address space keeps, no end hook (HMM, RDMA, GPUs).
  case interval
  /// An interval notifier for one map of grants, which it unmaps inside `invalidate`; it never takes a non-blocking
  /// range (Xen gntdev).
  case gntdevLike
  /// A plain notifier with start and end hooks and a counter alone (SGI GRU).
  case gruLike
  /// `arch_invalidate_secondary_tlbs` (2014: `invalidate_range`): told at every flush site, and of nothing else.
  case secondaryTLB

  /// Told by the interval tree: `invalidate` with a sequence, and never an end.
  public var isInterval: Bool { self == .interval || self == .gntdevLike }
  /// Has the hooks for start and end.
  public var hasStartAndEnd: Bool { self == .kvmLike || self == .gruLike }

  /// The name in commands and docs.
  public var identifier: String {
    switch self {
    case .kvmLike: "kvm"
    case .interval: "interval"
    case .gntdevLike: "gntdev"
    case .gruLike: "gru"
    case .secondaryTLB: "secondary-tlb"
    }
  }
}

/// What a client says of itself when it subscribes.
public struct SubscriberProfile: Equatable, Sendable {
  public var kind: SubscriberKind
  /// What an interval subscriber is told of; the other kinds are told of the whole address space.
  public var range: PageRange
  /// An interval subscriber that is told in two passes (7.1): all begin to invalidate, then all finish.
  public var takesTwoPasses: Bool
  /// `dev_private_owner`: who may ignore an event of its own migration; 0: nobody.
  public var owner: UInt32
  public init(kind: SubscriberKind, range: PageRange = .all, takesTwoPasses: Bool = false, owner: UInt32 = 0) {
    self.kind = kind
    self.range = range
    self.takesTwoPasses = takesTwoPasses
    self.owner = owner
  }
}

/// One event of an address space, as one subscriber is told of it. It must be answered: the operation waits.
public struct NotifierEvent: Equatable, Sendable {
  /// The hook that is called.
  public enum Hook: UInt8, Sendable, CaseIterable {
    /// `invalidate_range_start`: everything of the range goes, and nothing comes back before the end.
    case start
    /// Interval notifiers: the same, under the sequence of the event. Secondary TLBs, and every plain subscriber of 2014's
    /// `invalidate_page`: the range goes, and may come back at once.
    case invalidate
    /// The second pass of an interval notifier that takes two.
    case finish
    /// `invalidate_range_end`.
    case end
    /// The address space goes: everything goes for ever.
    case release
    /// `clear_flush_young`: the answer says how many pages had been used.
    case young
  }
  /// Why (`enum mmu_notifier_event`).
  public enum Reason: UInt8, Sendable, CaseIterable {
    case unmap, clear, protectionVMA, protectionPage, softDirty, release, migrate, exclusive
  }
  public var subscriber: SubscriberID
  /// Names the event in its answer: 1, 2, 3 … for each subscriber.
  public var number: UInt64
  public var hook: Hook
  public var reason: Reason
  public var range: PageRange
  public var operation: OperationID
  /// Interval notifiers: what `mmu_interval_set_seq` is given, odd; 0 otherwise.
  public var sequence: UInt64
  /// `mmu_notifier_range_blockable`: false allows an interval subscriber to refuse.
  public var mayBlock: Bool
  /// Of a migration or an exclusive access: for whom; 0: nobody.
  public var owner: UInt32
}

public struct NotifierAnswer: Equatable, Sendable {
  /// The event's number.
  public var number: UInt64
  /// EAGAIN, to a start that may not block.
  public var refuses: Bool
  /// To a young event: pages that were used since the last one.
  public var youngPages: UInt32
  public init(number: UInt64, refuses: Bool = false, youngPages: UInt32 = 0) {
    self.number = number
    self.refuses = refuses
    self.youngPages = youngPages
  }
}

public enum SubscriberChange: Equatable, Sendable {
  /// It did not answer in time: it is fenced, and told nothing more.
  case lost
}

/// A subscriber of an address space, as the machine sees it. Its own tables are in its process.
struct Subscriber {
  /// An event that waits for its answer.
  struct Owed {
    var event: NotifierEvent
    /// Whether the answer opens a window that ends with the operation's E.
    var opensWindow: Bool
    /// Sequence of the time-out's turn.
    var timeoutTurn: UInt64
  }
  /// From the answer to a start until the operation's E.
  struct Window {
    var operation: OperationID
    var range: PageRange
  }

  let id: SubscriberID
  let space: AddressSpaceID
  let profile: SubscriberProfile
  /// It did not answer in time.
  var isLost = false
  /// It has answered that the address space goes.
  var isReleased = false
  var lastEvent: UInt64 = 0
  var owed: [Owed] = []
  /// Interval notifiers: the sequence of the last invalidation that it answered (`mmu_interval_set_seq`).
  var sequence: UInt64

  // The oracle's account.
  var windows: [Window] = []
  var lastFault: UInt64 = 0
  var pages = MirrorPages()

  /// Told of nothing more.
  var isSilent: Bool { isLost || isReleased }

  func isInWindow(_ page: PageNumber) -> Bool { windows.contains { $0.range.contains(page) } }
}

/// Who subscribes to an address space, and what `mm/mmu_notifier.c` keeps for interval notifiers.
struct NotifierSubscriptions {
  /// In the order in which they came; interval subscribers are told first all the same.
  var subscribers: [SubscriberID] = []
  /// `invalidate_seq`: odd while an interval subscriber's range is being invalidated.
  var sequence: UInt64 = 2
  /// `active_invalidate_ranges`: windows between S and E that are open.
  var openWindows = 0
  /// Faults that sleep in `mmu_interval_read_begin`.
  var readers: [OperationID] = []

  var isInvalidating: Bool { sequence & 1 == 1 }
}
