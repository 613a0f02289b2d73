// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// One point of the curve of a flush queue: what its two bounds cost in safety and save in invalidations. Everything
/// follows from the seed.
public struct DeferredWindow: Sendable {
  public let entries: UInt32
  public let timeout: Nanoseconds
  public let windows: StaleWindows
  /// Accesses that reached what was gone, among all that were checked.
  public let staleAccesses: Int
  public let counters: Counters
  /// Machine time of the run.
  public let duration: Nanoseconds

  /// Invalidations that were not pushed because flushes were run together: a flush of the queue pushes one to each device.
  public var savedInvalidations: UInt64 {
    let pushed = counters.queueFlushes * UInt64(Self.deviceCount)
    return counters.deferredFlushes > pushed ? counters.deferredFlushes - pushed : 0
  }

  private static let deviceCount = 2

  /// The storm that is measured: one address space with devices that read and write all the time, and a process that
  /// unmaps, drops, forks and protects at a steady pace. The wires are slow, so that a run lasts many time limits.
  public static func plan(seed: UInt64) -> StormPlan {
    var plan = StormPlan()
    plan.seed = seed
    plan.spaceCount = 1
    plan.devicesPerSpace = deviceCount
    plan.accessesPerDevice = 4000
    plan.operationsPerSpace = 480
    plan.wireLatency = .uniform(50_000, 100_000)
    plan.settings.hold = 0
    return plan
  }

  /// Linux's default number of entries with time limits around its 10 ms, and its time limit with fewer entries.
  public static let points: [(entries: UInt32, timeout: Nanoseconds)] =
    [100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000].map { (256, $0) }
    + [1, 4, 16, 64].map { ($0, 10_000_000) }

  public init(entries: UInt32, timeout: Nanoseconds, seed: UInt64, strategy: Strategy = .deferred) {
    self.entries = entries
    self.timeout = timeout
    var plan = Self.plan(seed: seed)
    plan.strategy = strategy
    plan.settings.flushQueueEntries = entries
    plan.settings.flushQueueTimeout = timeout
    var storm = SimulatedStorm(plan)
    let isOver = storm.run()
    precondition(isOver, "nobody waits for ever")
    windows = storm.windows
    staleAccesses = storm.verdicts.count { $0.kind == .staleDMA }
    counters = storm.counters
    duration = storm.machine.time
  }
}
