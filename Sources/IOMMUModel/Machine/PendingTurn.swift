// SPDX-License-Identifier: Apache-2.0
import HeapModule

/// An internal turn that is enabled once its time has come.
public struct PendingTurn: Comparable, Sendable {
  enum Kind: Equatable, Sendable {
    case step(OperationID)
    case landing(DeviceID)
    case timeout(DeviceID, itag: UInt8)
    case interrupt
    /// The oldest entry of a flush queue has waited its time.
    case flushTimer(AddressSpaceID)
    /// The time-out of an event's answer.
    case answer(SubscriberID, event: UInt64)
  }
  public let due: Nanoseconds
  /// Names the turn in logs; grows by one with each that is scheduled, and breaks ties of `due`.
  public let sequence: UInt64
  let kind: Kind

  /// The memory operation whose step it is; nil: a landing, a time-out, an interrupt or a timer.
  public var operation: OperationID? { if case .step(let id) = kind { id } else { nil } }
  public var isTimeout: Bool {
    switch kind {
    case .timeout, .answer: true
    case .step, .landing, .interrupt, .flushTimer: false
    }
  }

  public static func < (a: PendingTurn, b: PendingTurn) -> Bool { (a.due, a.sequence) < (b.due, b.sequence) }
  public static func == (a: PendingTurn, b: PendingTurn) -> Bool { a.sequence == b.sequence }
}

/// The machine's pending turns by due time. Turns that became void (a time-out of an invalidation that was completed)
/// stay until they come to the top; `Machine.isVoid` knows them.
struct PendingTurns {
  private var heap = Heap<PendingTurn>()
  private(set) var lastSequence: UInt64 = 0

  mutating func schedule(_ kind: PendingTurn.Kind, at due: Nanoseconds) -> UInt64 {
    lastSequence += 1
    heap.insert(PendingTurn(due: due, sequence: lastSequence, kind: kind))
    return lastSequence
  }

  var first: PendingTurn? { heap.min }
  mutating func removeFirst() -> PendingTurn { heap.removeMin() }
  var count: Int { heap.count }
  var sorted: [PendingTurn] { heap.unordered.sorted() }

  mutating func remove(sequence: UInt64) -> PendingTurn? {
    let all = heap.unordered
    guard let found = all.first(where: { $0.sequence == sequence }) else { return nil }
    heap = Heap(all.filter { $0.sequence != sequence })
    return found
  }
}
