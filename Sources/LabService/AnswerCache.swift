// SPDX-License-Identifier: Apache-2.0
import DequeModule
import LabProtocol
import SwiftProtobuf

/// The first answers of calls with a `request_id`, for their repeats. Bounded: the oldest answers go first. Refused calls
/// have changed nothing and are not kept.
struct AnswerCache {
  struct Key: Hashable {
    var tenant: Tenant
    var machine: UInt128
    var requestID: String
  }

  /// What was called: the method, and a digest of the rest of the request.
  struct Content: Equatable {
    var method: LabMethod
    var digest: Int
  }

  enum Entry {
    /// The first call has not been answered yet; these calls get its answer as well.
    case waiting(Content, operation: UInt64, joined: [Caller])
    case answered(Content, operation: UInt64, any Message)
  }

  private let limit: Int
  private var entries: [Key: Entry] = [:]
  private var order: Deque<Key> = []
  private var waitingCount = 0

  init(limit: Int) { self.limit = limit }

  subscript(key: Key) -> Entry? { entries[key] }

  /// Begins an entry. The caller has checked that there is none.
  /// - Returns: false when every place is taken by a call that still waits.
  mutating func begin(_ key: Key, _ content: Content) -> Bool {
    guard waitingCount < limit else { return false }
    while order.count >= limit {
      let oldest = order.removeFirst()
      if case .waiting? = entries[oldest] { order.append(oldest) } else { entries[oldest] = nil }
    }
    entries[key] = .waiting(content, operation: 0, joined: [])
    order.append(key)
    waitingCount += 1
    return true
  }

  mutating func join(_ key: Key, _ caller: Caller) {
    guard case .waiting(let content, let operation, var joined)? = entries[key] else { return }
    joined.append(caller)
    entries[key] = .waiting(content, operation: operation, joined: joined)
  }

  /// Notes which operation the call started.
  mutating func note(operation: UInt64, _ key: Key) {
    guard case .waiting(let content, _, let joined)? = entries[key] else { return }
    entries[key] = .waiting(content, operation: operation, joined: joined)
  }

  /// Keeps the answer and gives the calls that joined.
  mutating func finish(_ key: Key, _ answer: any Message) -> [Caller] {
    guard case .waiting(let content, let operation, let joined)? = entries[key] else { return [] }
    waitingCount -= 1
    entries[key] = .answered(content, operation: operation, answer)
    return joined
  }

  /// Forgets a call that was refused and gives the calls that joined.
  mutating func drop(_ key: Key) -> [Caller] {
    guard case .waiting(_, _, let joined)? = entries.removeValue(forKey: key) else { return [] }
    waitingCount -= 1
    // Mostly a call is refused in the turn in which it came, and stands last.
    if let index = order.lastIndex(of: key) { order.remove(at: index) }
    return joined
  }
}
