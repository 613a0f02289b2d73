// SPDX-License-Identifier: Apache-2.0
import DequeModule
import IOMMUModel

/// A machine's operations as callers see them: who waits for a running one, and how the newest of the others ended.
struct OperationBook {
  struct Running {
    /// Whether the operation's value is a load's.
    var isLoad: Bool
    /// Who is answered when it returns; nil: the call was answered at its start.
    var caller: Caller?
  }
  enum State {
    case running(Running)
    case done(OperationOutcome, isLoad: Bool)
  }

  private let limit: Int
  private var states: [UInt64: State] = [:]
  private var finished: Deque<UInt64> = []
  private(set) var runningCount = 0

  init(limit: Int) { self.limit = limit }

  subscript(id: UInt64) -> State? { states[id] }

  mutating func begin(_ id: OperationID, isLoad: Bool, _ caller: Caller?) {
    states[id.rawValue] = .running(Running(isLoad: isLoad, caller: caller))
    runningCount += 1
  }

  /// Notes the outcome; operations that nobody asked for (the fault handler's) are not kept.
  mutating func end(_ outcome: OperationOutcome) -> Running? {
    guard case .running(let running)? = states[outcome.operation.rawValue] else { return nil }
    runningCount -= 1
    if finished.count == limit { states[finished.removeFirst()] = nil }
    finished.append(outcome.operation.rawValue)
    states[outcome.operation.rawValue] = .done(outcome, isLoad: running.isLoad)
    return running
  }

  /// Everybody who waits, for a machine that goes.
  mutating func abandon() -> [Caller] {
    states.values.compactMap { if case .running(let running) = $0 { running.caller } else { nil } }
  }
}
