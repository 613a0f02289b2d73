// SPDX-License-Identifier: Apache-2.0

/// The whole result, as `--json` prints it. `version` changes when a field changes its meaning or goes away.
public struct StormResult: Codable, Sendable {
  public static let currentVersion = 1
  public var version = StormResult.currentVersion
  public var seed: UInt64
  /// Every modelled duration was multiplied by this.
  public var dilation: Double
  /// Measured round trip of one call, ns; the default dilation is this over 1 µs.
  public var roundTripNanoseconds: UInt64
  public var deviceProcesses: Int
  public var devices: Int
  public var mutatorProcesses: Int
  /// Kinds of mirrors, a process each; absent without `--mirrors`.
  public var mirrors: [String]?
  public var strategies: [StrategyResult] = []
  /// Every verdict that was not as expected, and every threshold that was missed, in words.
  public var differences: [String] = []
  public var missedThresholds: [String] = []
  /// The same storm at several holds; absent without `--sweep-hold`.
  public var sweep: [SweepPoint]?
}

public struct SweepPoint: Codable, Sendable {
  /// Machine time, undilated.
  public var holdNanoseconds: UInt64
  public var strategies: [StrategyResult]
}

/// One strategy's run.
public struct StrategyResult: Codable, Sendable {
  public var strategy: String
  public var workloadHash: String
  /// Wall time from the start signal to the end of both lists.
  public var seconds: Double = 0
  public var machineNanoseconds: UInt64 = 0

  // What devices counted.
  /// Intended accesses, each once: `done + refused + gaveUp + fencedAccesses`.
  public var accesses: UInt64 = 0
  public var done: UInt64 = 0
  public var refused: UInt64 = 0
  public var gaveUp: UInt64 = 0
  public var fencedAccesses: UInt64 = 0
  public var atcHits: UInt64 = 0
  public var translations: UInt64 = 0
  public var discardedAnswers: UInt64 = 0
  public var retries: UInt64 = 0
  /// Messages that the service refused or dropped.
  public var refusedMessages: UInt64 = 0

  // What the machine counted.
  /// Members served.
  public var pageRequests: UInt64 = 0
  public var neededFaults: UInt64 = 0
  public var needlessFaults: UInt64 = 0
  public var duplicateFaults: UInt64 = 0
  public var refusedFaults: UInt64 = 0
  public var fullBatches: UInt64 = 0
  public var interrupts: UInt64 = 0
  public var dmasChecked: UInt64 = 0
  public var invalidations: UInt64 = 0
  public var completions: UInt64 = 0
  public var invalidationsThatHitALiveGrant: UInt64 = 0
  public var fenced: UInt64 = 0
  public var timeouts: UInt64 = 0
  public var queueOverflows: UInt64 = 0
  public var corruptedFrames: UInt64 = 0
  public var unexplainedCorruptions: UInt64 = 0

  // What mutators counted.
  public var operations: UInt64 = 0
  public var cpuLoadsVerified: UInt64 = 0
  /// Loads that did not fetch what the same process had stored.
  public var cpuMismatches: UInt64 = 0

  /// Of devices and CPUs; those of mirrors stand in `mirrors`.
  public var verdicts: [String: UInt64] = [:]
  public var expected: [String: Expectation] = [:]
  /// Absent without `--mirrors`.
  public var mirrors: MirrorsResult?
  public var latency = StrategyLatency()
  /// Share of its time that each process waited for a CPU: the service, devices, mutators.
  public var cpuWaitShares: [ProcessWait] = []
  /// Of the first stale access, when there was one.
  public var firstStaleAccess: StaleAccess?
  /// Where the machine's log was written; absent without `--record`.
  public var log: String?

  public var faultsPerSecond: Double { seconds > 0 ? Double(pageRequests) / seconds : 0 }
  public var needlessFaultsPerAccess: Double { accesses > 0 ? Double(needlessFaults) / Double(accesses) : 0 }
}

/// Machine time where the machine measured, client wall time where devices did.
public struct StrategyLatency: Codable, Sendable {
  public struct Pair: Codable, Sendable {
    public var machine = LatencySummary()
    public var client = LatencySummary()
  }
  public var pageRequestService = Pair()
  public var invalidateToCompletion = Pair()
  /// From the intended start of an access to its end; client wall time.
  public var access = LatencySummary()
  /// From the call of a memory operation to its return; client wall time.
  public var operation = LatencySummary()
}

public struct ProcessWait: Codable, Sendable {
  public var process: String
  /// 0…1: time in the run queue over elapsed time.
  public var share: Double
}

public struct StaleAccess: Codable, Sendable {
  public var verdict: String
  public var explanation: String
  public var chain: [String]
}
