// SPDX-License-Identifier: Apache-2.0
import DequeModule
import IOMMUModel

/// A machine's verdicts: all counted, the newest of each kind kept.
struct VerdictBook {
  struct Entry {
    var seq: UInt64
    var verdict: Verdict
  }

  private let limit: Int
  private(set) var count: [UInt64] = Array(repeating: 0, count: VerdictKind.allCases.count)
  private var kept: [Deque<Entry>] = Array(repeating: [], count: VerdictKind.allCases.count)
  private var lastSeq: UInt64 = 0

  init(limit: Int) { self.limit = limit }

  mutating func append(_ verdict: Verdict) {
    lastSeq += 1
    let kind = Int(verdict.kind.rawValue)
    count[kind] += 1
    if kept[kind].count == limit { kept[kind].removeFirst() }
    kept[kind].append(Entry(seq: lastSeq, verdict: verdict))
  }

  /// The kept verdicts of these kinds after `seq`, oldest first.
  func list(after seq: UInt64, kinds: [VerdictKind], limit: Int) -> (entries: [Entry], more: Bool) {
    var found = kinds.flatMap { kept[Int($0.rawValue)].filter { $0.seq > seq } }
    found.sort { $0.seq < $1.seq }
    return (Array(found.prefix(limit)), found.count > limit)
  }
}
