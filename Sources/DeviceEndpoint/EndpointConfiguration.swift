// SPDX-License-Identifier: Apache-2.0

/// What a device is and does, fixed for its life.
public struct EndpointConfiguration: Equatable, Sendable {
  public var workload: AccessWorkload
  /// Accesses under way at once, 1…65,535: the closed loop's population, and the open loops' limit.
  public var concurrency: Int
  /// Entries of the ATC, a power of two.
  public var translationCacheEntries: Int
  /// Outstanding page requests that software allowed; 0: the device has no PRI.
  public var priAllocation: UInt32
  /// Members of one page-request group at most.
  public var groupMemberLimit: Int
  /// Page requests after the first that the device sends for one page before it gives the access up.
  public var retryLimit: UInt32
  public var arrivals: ArrivalSchedule
  /// Stands in the upper bits of every stamp that the device writes; unique among the devices of a machine, below 2²⁴.
  public var stampPrefix: UInt32
  public var misbehaviour: Misbehaviour
  public init(
    workload: AccessWorkload, concurrency: Int = 16, translationCacheEntries: Int = 64, priAllocation: UInt32 = 16,
    groupMemberLimit: Int = 4, retryLimit: UInt32 = 4, arrivals: ArrivalSchedule = .closedLoop, stampPrefix: UInt32 = 1,
    misbehaviour: Misbehaviour = []
  ) {
    precondition((1...65_535).contains(concurrency), "concurrency 1…65535, not \(concurrency)")
    precondition(groupMemberLimit > 0, "a group has at least one member")
    precondition(stampPrefix < 1 << 24, "stamp prefix below 2^24, not \(stampPrefix)")
    self.workload = workload
    self.concurrency = concurrency
    self.translationCacheEntries = translationCacheEntries
    self.priAllocation = priAllocation
    self.groupMemberLimit = groupMemberLimit
    self.retryLimit = retryLimit
    self.arrivals = arrivals
    self.stampPrefix = stampPrefix
    self.misbehaviour = misbehaviour
  }
}

/// What a device has counted since it was made. Each intended access ends exactly once:
/// `done + refused + gaveUp + fenced` is `accesses` when the device is idle.
public struct EndpointCounters: Equatable, Sendable {
  /// Accesses begun.
  public var accesses: UInt64 = 0
  public var done: UInt64 = 0
  public var refused: UInt64 = 0
  public var gaveUp: UInt64 = 0
  public var fenced: UInt64 = 0
  /// Accesses that found their translation, with the right, in the ATC at the first look.
  public var atcHits: UInt64 = 0
  public var translations: UInt64 = 0
  /// Answers thrown away because a covering invalidation was younger.
  public var discardedAnswers: UInt64 = 0
  /// Members sent.
  public var pageRequests: UInt64 = 0
  /// Members that were not the first of their access.
  public var retries: UInt64 = 0
  public var groups: UInt64 = 0
  public var dmas: UInt64 = 0
  public var invalidations: UInt64 = 0
  /// Invalidations that met an entry in the ATC, or a use in flight.
  public var invalidationsInUse: UInt64 = 0
  public var completions: UInt64 = 0
  /// Answers whose tag, group or ITag meant nothing to the device.
  public var unexpected: UInt64 = 0
  public init() {}
}

/// An access that has ended.
public struct FinishedAccess: Equatable, Sendable {
  public enum Result: UInt8, Sendable { case done, refused, gaveUp, fenced }
  public var result: Result
  public var access: Access
  /// When the schedule wanted it to begin: latency counts from here.
  public var intendedAt: UInt64
  public var endedAt: UInt64
  /// Page requests that it took.
  public var pageRequests: UInt32
  /// What a read fetched, or a write stored.
  public var value: UInt64
}

/// Where a device puts what it has to say. The caller keeps one and clears it, so that steady state allocates nothing.
public struct EndpointOutput: Sendable {
  public var messages: [DeviceMessage] = []
  public var finished: [FinishedAccess] = []
  /// For each page-request group that was answered: ns from sending its last member to the answer.
  public var pageRequestNanoseconds: [UInt64] = []
  /// For each invalidation that is completed: ns from its arrival to its completion.
  public var invalidationNanoseconds: [UInt64] = []
  public init() {}
  public mutating func removeAll() {
    messages.removeAll(keepingCapacity: true)
    finished.removeAll(keepingCapacity: true)
    pageRequestNanoseconds.removeAll(keepingCapacity: true)
    invalidationNanoseconds.removeAll(keepingCapacity: true)
  }
}
