// SPDX-License-Identifier: Apache-2.0

extension Counters {
  /// Every counter with the name that API and reports show: the one list of them.
  public static let named: [(name: String, path: WritableKeyPath<Counters, UInt64> & Sendable)] = [
    ("translations", \.translations), ("iotlbHits", \.iotlbHits), ("walks", \.walks),
    ("pageRequests", \.pageRequests), ("groupsAnswered", \.groupsAnswered), ("membersServed", \.membersServed),
    ("neededFaults", \.neededFaults), ("needlessFaults", \.needlessFaults), ("duplicateFaults", \.duplicateFaults),
    ("refusedFaults", \.refusedFaults), ("faultInterrupts", \.faultInterrupts), ("queueOverflows", \.queueOverflows),
    ("autoAnswers", \.autoAnswers), ("dmaChecked", \.dmaChecked), ("invalidations", \.invalidations),
    ("completions", \.completions), ("liveHits", \.liveHits), ("timeouts", \.timeouts), ("fenced", \.fenced),
    ("unexpectedCompletions", \.unexpectedCompletions), ("fullBatches", \.fullBatches),
    ("framesFreed", \.framesFreed), ("tablesFreed", \.tablesFreed), ("tablesShared", \.tablesShared),
    ("tablesUnshared", \.tablesUnshared),
    ("deferredFlushes", \.deferredFlushes), ("queueFlushes", \.queueFlushes), ("keptFrames", \.keptFrames),
    ("corruptedFrames", \.corruptedFrames),
    ("notifierEvents", \.notifierEvents), ("notifierAnswers", \.notifierAnswers),
    ("lostSubscribers", \.lostSubscribers), ("rangeFaults", \.rangeFaults), ("mirrorAccesses", \.mirrorAccesses),
    ("unexplainedCorruptions", \.unexplainedCorruptions),
  ]

  /// Field by field: a walk over `named` makes key paths at every turn, which was a third of a simulated storm's time.
  public mutating func add(_ more: Counters) {
    translations += more.translations
    iotlbHits += more.iotlbHits
    walks += more.walks
    pageRequests += more.pageRequests
    groupsAnswered += more.groupsAnswered
    membersServed += more.membersServed
    neededFaults += more.neededFaults
    needlessFaults += more.needlessFaults
    duplicateFaults += more.duplicateFaults
    refusedFaults += more.refusedFaults
    faultInterrupts += more.faultInterrupts
    queueOverflows += more.queueOverflows
    autoAnswers += more.autoAnswers
    dmaChecked += more.dmaChecked
    invalidations += more.invalidations
    completions += more.completions
    liveHits += more.liveHits
    timeouts += more.timeouts
    fenced += more.fenced
    unexpectedCompletions += more.unexpectedCompletions
    fullBatches += more.fullBatches
    notifierEvents += more.notifierEvents
    notifierAnswers += more.notifierAnswers
    lostSubscribers += more.lostSubscribers
    rangeFaults += more.rangeFaults
    mirrorAccesses += more.mirrorAccesses
    framesFreed += more.framesFreed
    tablesFreed += more.tablesFreed
    tablesShared += more.tablesShared
    tablesUnshared += more.tablesUnshared
    deferredFlushes += more.deferredFlushes
    queueFlushes += more.queueFlushes
    keptFrames += more.keptFrames
    corruptedFrames += more.corruptedFrames
    unexplainedCorruptions += more.unexplainedCorruptions
  }
}
