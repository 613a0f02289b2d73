// SPDX-License-Identifier: Apache-2.0

// What a mirror and its machine say to each other, as plain values.

/// Which of the kernel's mirrors it is like.
public enum MirrorKind: String, Sendable, CaseIterable {
  /// KVM: a counter of windows with one merged range, and a sequence that every end moves on.
  case kvm
  /// A driver that uses `hmm_range_fault` under an interval notifier.
  case hmm
  /// Any other interval notifier, told in two passes.
  case interval
  /// Xen gntdev: an interval notifier that never takes a non-blocking range.
  case gntdev
  /// SGI GRU: a counter of windows alone; what is dropped in while one opens, fails.
  case gru
  /// A TLB that shares the page table: told at flush sites.
  case secondaryTLB = "secondary-tlb"

  public var isInterval: Bool { self == .hmm || self == .interval || self == .gntdev }
  public var takesTwoPasses: Bool { self == .interval }
}

/// A run of pages.
public struct MirrorRange: Equatable, Sendable {
  public var first: UInt64
  public var count: UInt64
  public init(first: UInt64, count: UInt64) {
    self.first = first
    self.count = count
  }
  public var end: UInt64 { first + count }
  func overlaps(_ other: MirrorRange) -> Bool { first < other.end && other.first < end }
  func union(_ other: MirrorRange) -> MirrorRange {
    let start = min(first, other.first)
    return MirrorRange(first: start, count: max(end, other.end) - start)
  }
}

/// A hook that was called; it must be answered.
public struct MirrorEvent: Equatable, Sendable {
  public enum Hook: UInt8, Sendable { case start, invalidate, finish, end, release, young }
  public var number: UInt64
  public var hook: Hook
  /// The address space goes: whatever the hook, everything goes for ever.
  public var isRelease: Bool
  public var range: MirrorRange
  public var sequence: UInt64
  public var mayBlock: Bool
  /// For whom a migration or an exclusive access is; 0: nobody.
  public var owner: UInt32
  public init(
    number: UInt64, hook: Hook, isRelease: Bool, range: MirrorRange, sequence: UInt64, mayBlock: Bool, owner: UInt32
  ) {
    self.number = number
    self.hook = hook
    self.isRelease = isRelease
    self.range = range
    self.sequence = sequence
    self.mayBlock = mayBlock
    self.owner = owner
  }
}

/// What a fault came to.
public struct MirrorFaultAnswer: Equatable, Sendable {
  public enum Status: UInt8, Sendable {
    case success
    /// An invalidation came between: fault again.
    case busy
    /// EFAULT, EPERM or ENOMEM: these pages cannot be had.
    case denied
    /// The address space is gone.
    case gone
  }
  public struct Page: Equatable, Sendable {
    public var physicalAddress: UInt64
    public var isWritable: Bool
    public init(physicalAddress: UInt64, isWritable: Bool) {
      self.physicalAddress = physicalAddress
      self.isWritable = isWritable
    }
  }
  /// The tag of the message that asked.
  public var tag: UInt32
  public var status: Status
  /// Names the fault when its pages are installed.
  public var fault: UInt64
  public var sequence: UInt64
  public var pages: [Page]
  public init(tag: UInt32, status: Status, fault: UInt64 = 0, sequence: UInt64 = 0, pages: [Page] = []) {
    self.tag = tag
    self.status = status
    self.fault = fault
    self.sequence = sequence
    self.pages = pages
  }
}

/// What a mirror says. Posted order matters within one mirror.
public enum MirrorMessage: Equatable, Sendable {
  case answer(number: UInt64, refuses: Bool, youngPages: UInt32)
  case fault(tag: UInt32, MirrorRange, write: Bool)
  case install(tag: UInt32, fault: UInt64, MirrorRange)
  case access(tag: UInt32, page: UInt64, physicalAddress: UInt64, write: Bool, value: UInt64)
}

/// Ways in which a mirror breaks its contract. None is the default.
public struct MirrorMisbehaviour: OptionSet, Equatable, Sendable {
  public let rawValue: UInt8
  public init(rawValue: UInt8) { self.rawValue = rawValue }
  /// Answers a start or an invalidation and drops nothing.
  public static let ignoresStart = MirrorMisbehaviour(rawValue: 1 << 0)
  /// Installs what a fault answered, whatever happened since.
  public static let installsWithoutRetry = MirrorMisbehaviour(rawValue: 1 << 1)
  /// Answers the release and goes on.
  public static let usesAfterRelease = MirrorMisbehaviour(rawValue: 1 << 2)
  /// Swallows events: fenced at the time-out.
  public static let neverAnswers = MirrorMisbehaviour(rawValue: 1 << 3)

  /// Every misbehaviour with the name that command lines use.
  public static let named: [(name: String, value: MirrorMisbehaviour)] = [
    ("ignores-start", .ignoresStart), ("installs-without-retry", .installsWithoutRetry),
    ("uses-after-release", .usesAfterRelease), ("never-answers", .neverAnswers),
  ]
}
