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
    ("framesFreed", \.framesFreed), ("tablesFreed", \.tablesFreed), ("corruptedFrames", \.corruptedFrames),
    ("unexplainedCorruptions", \.unexplainedCorruptions),
  ]

  public mutating func add(_ more: Counters) {
    for (_, path) in Self.named { self[keyPath: path] += more[keyPath: path] }
  }
}
