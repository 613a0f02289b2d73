// SPDX-License-Identifier: Apache-2.0
import DequeModule
import IOMMUModel
import RPCServer

/// The newest effects of a machine for its trace streams; kept from the first stream on.
struct TraceBook {
  struct Entry {
    var time: Nanoseconds
    var effect: Effect
    /// What an effect points to that is a place in a list.
    var detail: Detail
  }
  enum Detail {
    case none
    case verdict(Verdict)
    case notifierEvent(NotifierEvent)
    case rangeFault(RangeFaultAnswer)
  }
  struct Watcher {
    var call: CallID
    var codec: RPCCodec
    /// Number of the last effect that it has.
    var sent: UInt64
    var lastSentAt: UInt64
  }

  private let limit: Int
  private var entries: Deque<Entry> = []
  /// Number of the newest effect.
  private(set) var seq: UInt64 = 0
  private(set) var isKept = false
  var watchers: [Watcher] = []

  init(limit: Int) { self.limit = limit }

  mutating func keep() { isKept = true }

  mutating func append(_ time: Nanoseconds, _ effect: Effect, _ effects: borrowing Effects) {
    if entries.count == limit { entries.removeFirst() }
    let detail: Detail =
      switch effect {
      case .verdict(let index): .verdict(effects.verdicts[index])
      case .notifierEvent(let index): .notifierEvent(effects.notifierEvents[index])
      case .rangeFault(let index): .rangeFault(effects.rangeFaults[index])
      default: .none
      }
    entries.append(Entry(time: time, effect: effect, detail: detail))
    seq += 1
  }

  /// Number of the effect before the oldest that is kept.
  var floor: UInt64 { seq - UInt64(entries.count) }

  /// The kept effects numbered from `after + 1` on; `after` is not below `floor`.
  func entries(after: UInt64, limit: Int) -> Deque<Entry>.SubSequence {
    let start = Int(after - floor)
    return entries[start..<min(entries.count, start + limit)]
  }
}
