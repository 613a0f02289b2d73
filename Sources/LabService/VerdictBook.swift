// SPDX-License-Identifier: Apache-2.0
import DequeModule
import IOMMUModel

/// A machine's verdicts: all counted; of each kind the first and the newest are kept, because the first is the one that
/// people want explained.
struct VerdictBook {
  struct Entry {
    var seq: UInt64
    var verdict: Verdict
  }

  private let limit: Int
  private(set) var count: [UInt64] = Array(repeating: 0, count: VerdictKind.allCases.count)
  /// Those among them that mirrors earned.
  private(set) var mirrorCount: [UInt64] = Array(repeating: 0, count: VerdictKind.allCases.count)
  private var first: [[Entry]] = Array(repeating: [], count: VerdictKind.allCases.count)
  private var newest: [Deque<Entry>] = Array(repeating: [], count: VerdictKind.allCases.count)
  private var lastSeq: UInt64 = 0

  init(limit: Int) { self.limit = limit }

  mutating func append(_ verdict: Verdict) {
    lastSeq += 1
    let kind = Int(verdict.kind.rawValue)
    count[kind] += 1
    if verdict.via == .mirror { mirrorCount[kind] += 1 }
    let entry = Entry(seq: lastSeq, verdict: verdict)
    if first[kind].count < limit / 2 { return first[kind].append(entry) }
    if newest[kind].count == limit - limit / 2 { newest[kind].removeFirst() }
    newest[kind].append(entry)
  }

  /// The verdict of this number; nil: none, or it is not kept any more.
  subscript(seq: UInt64) -> Verdict? {
    for entries in first {
      if let entry = entries.first(where: { $0.seq == seq }) { return entry.verdict }
    }
    for entries in newest {
      if let entry = entries.first(where: { $0.seq == seq }) { return entry.verdict }
    }
    return nil
  }

  /// The kept verdicts of these kinds after `seq`, oldest first.
  func list(after seq: UInt64, kinds: [VerdictKind], limit: Int) -> (entries: [Entry], more: Bool) {
    var found = kinds.flatMap { kind in
      (first[Int(kind.rawValue)] + newest[Int(kind.rawValue)]).filter { $0.seq > seq }
    }
    found.sort { $0.seq < $1.seq }
    return (Array(found.prefix(limit)), found.count > limit)
  }
}
