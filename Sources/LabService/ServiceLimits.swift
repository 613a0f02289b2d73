// SPDX-License-Identifier: Apache-2.0

/// Every limit of the service above the RPC layer, stated once, as data. Times are nanoseconds of the service's clock.
public struct ServiceLimits: Sendable {
  /// Machines on the service.
  public var machines = 256
  /// Internal turns of one machine in one pass of its loop; the rest waits for the next pass, after other machines.
  public var turnsPerPass = 4096
  /// After this time a pass begins no more internal turns and no more entries of explanations than one share for each
  /// machine and explanation: what other callers wait for comes between.
  public var passTime: UInt64 = 1_000_000
  /// Turns or entries of a share; the clock is read once for each.
  public var turnsPerShare = 64
  /// Turns of one `Advance`.
  public var turnsPerAdvance: UInt32 = 100_000
  /// Events of a device that are kept before its first stream.
  public var eventsBeforeStream = 1024
  /// Events in one response of a stream.
  public var eventsPerResponse = 4096
  /// Effects of a machine that are kept for trace streams, from the first one on.
  public var traceHistory = 65_536
  /// Trace streams of one machine.
  public var tracesPerMachine = 16
  /// Verdicts of each kind that are kept with their explanation.
  public var verdictsPerKind = 1000
  /// Operations that have returned and are kept for `GetOperation`.
  public var finishedOperations = 10_000
  /// Unary calls of one device that wait for DMAs or page responses.
  public var waitingCallsPerDevice = 4096
  /// Answers that are kept for repeats of a `request_id`, on each event loop.
  public var answersPerLoop = 16_384
  /// Bytes of one machine's log.
  public var logBytes = 1 << 30
  /// Bytes of one piece of `GetLog`, and of output that may wait before the next piece is sent.
  public var logPiece = 256 << 10
  /// Bytes of a log that is performed again to explain a verdict.
  public var explainedLogBytes = 32 << 20
  /// Explanations under way on one event loop; each holds a machine.
  public var explanationsPerLoop = 4
  public var pageSizeDefault: UInt32 = 100
  public var pageSizeMaximum: UInt32 = 1000
  /// How long a device that never opened a stream stays without a call.
  public var leaseDefault: UInt64 = 300_000_000_000
  public var leaseMaximum: UInt64 = 86_400_000_000_000
  /// Time without a message after which a stream gets a heartbeat.
  public var heartbeat: UInt64 = 15_000_000_000

  public init() {}
}
