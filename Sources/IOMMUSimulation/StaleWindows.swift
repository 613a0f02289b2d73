// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// How long what operations took away stays in reach of devices after they returned: from the return of each operation
/// whose flush waits in the flush queue until the flush that covers it is complete. Of one address space.
public struct StaleWindows: Sendable {
  /// Each window, in the order in which they closed.
  public private(set) var closed: [Nanoseconds] = []
  private var waiting: [Deferred] = []
  /// What the running flush covers.
  private var covered: [Deferred] = []

  private struct Deferred {
    var operation: OperationID
    /// nil: the operation runs.
    var returnedAt: Nanoseconds?
  }

  public init() {}

  mutating func note(_ effect: Effect, at time: Nanoseconds) {
    switch effect {
    case .step(let step) where step.letter == .flushQueued:
      if waiting.last?.operation != step.operation { waiting.append(Deferred(operation: step.operation)) }
    case .step(let step) where step.kind == .flushQueue && step.letter == .flushSite:
      covered = waiting
      waiting.removeAll()
    case .step(let step) where step.kind == .flushQueue && step.letter == .flushed:
      for deferred in covered { if let returned = deferred.returnedAt { closed.append(time - returned) } }
      covered.removeAll()
    case .operation(let outcome):
      for index in waiting.indices where waiting[index].operation == outcome.operation {
        waiting[index].returnedAt = time
      }
      for index in covered.indices where covered[index].operation == outcome.operation {
        covered[index].returnedAt = time
      }
    default: break
    }
  }

  public var mean: Double { closed.isEmpty ? 0 : Double(closed.reduce(0, +)) / Double(closed.count) }

  /// The window that this share of them, in thousandths, does not exceed.
  public func quantile(_ thousandths: Int) -> Nanoseconds {
    guard !closed.isEmpty else { return 0 }
    let sorted = closed.sorted()
    return sorted[max(0, (sorted.count * thousandths + 999) / 1000 - 1)]
  }
}
