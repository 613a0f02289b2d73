// SPDX-License-Identifier: Apache-2.0

/// What a turn adds to the figures that shells export. Counters are effects: the machine does not keep them.
public struct Counters: Equatable, Sendable {
  public var translations: UInt64 = 0
  public var iotlbHits: UInt64 = 0
  public var walks: UInt64 = 0
  public var pageRequests: UInt64 = 0
  public var groupsAnswered: UInt64 = 0
  public var membersServed: UInt64 = 0
  public var neededFaults: UInt64 = 0
  public var needlessFaults: UInt64 = 0
  public var duplicateFaults: UInt64 = 0
  public var refusedFaults: UInt64 = 0
  public var faultInterrupts: UInt64 = 0
  public var queueOverflows: UInt64 = 0
  public var autoAnswers: UInt64 = 0
  public var dmaChecked: UInt64 = 0
  public var invalidations: UInt64 = 0
  public var completions: UInt64 = 0
  public var liveHits: UInt64 = 0
  public var timeouts: UInt64 = 0
  public var fenced: UInt64 = 0
  public var unexpectedCompletions: UInt64 = 0
  public var fullBatches: UInt64 = 0
  public var notifierEvents: UInt64 = 0
  public var notifierAnswers: UInt64 = 0
  public var lostSubscribers: UInt64 = 0
  public var rangeFaults: UInt64 = 0
  public var mirrorAccesses: UInt64 = 0
  public var framesFreed: UInt64 = 0
  public var tablesFreed: UInt64 = 0
  /// Page tables of huge pages that a fault took from another address space, and that an operation left to others.
  public var tablesShared: UInt64 = 0
  public var tablesUnshared: UInt64 = 0
  /// Flushes, one for each binding, that a site put into a flush queue; flushes of such queues; and frames and tables that
  /// the queues kept.
  public var deferredFlushes: UInt64 = 0
  public var queueFlushes: UInt64 = 0
  public var keptFrames: UInt64 = 0
  /// Frames whose content no accounted write explains, found by checksum when they were freed or given out…
  public var corruptedFrames: UInt64 = 0
  /// …and those among them for which the oracle had said nothing: always 0.
  public var unexplainedCorruptions: UInt64 = 0
  public init() {}
}

/// The effects of one or more turns. Shells keep one and clear it, so that steady state allocates nothing.
public struct Effects: Sendable {
  public var list: [Effect] = []
  /// What `Effect.verdict` points to.
  public private(set) var verdicts: [Verdict] = []
  /// What `Effect.notifierEvent` and `Effect.rangeFault` point to.
  public private(set) var notifierEvents: [NotifierEvent] = []
  public private(set) var rangeFaults: [RangeFaultAnswer] = []
  public var counters = Counters()
  public init() { list.reserveCapacity(256) }
  public mutating func removeAll() {
    removeList()
    counters = Counters()
  }
  /// Removes what somebody was told; the counters go on.
  public mutating func removeList() {
    list.removeAll(keepingCapacity: true)
    if !verdicts.isEmpty { verdicts.removeAll(keepingCapacity: true) }
    if !notifierEvents.isEmpty { notifierEvents.removeAll(keepingCapacity: true) }
    if !rangeFaults.isEmpty { rangeFaults.removeAll(keepingCapacity: true) }
  }
  @inline(__always) mutating func append(_ effect: Effect) { list.append(effect) }
  mutating func append(_ verdict: Verdict) {
    list.append(.verdict(verdicts.count))
    verdicts.append(verdict)
  }
  mutating func append(_ event: NotifierEvent) {
    list.append(.notifierEvent(notifierEvents.count))
    notifierEvents.append(event)
  }
  mutating func append(_ answer: RangeFaultAnswer) {
    list.append(.rangeFault(rangeFaults.count))
    rangeFaults.append(answer)
  }
}
