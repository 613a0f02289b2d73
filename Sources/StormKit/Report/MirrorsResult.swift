// SPDX-License-Identifier: Apache-2.0

/// What the mirrors of one strategy's run did, and what the oracle says of them.
public struct MirrorsResult: Codable, Sendable {
  /// In the order of the plan.
  public var processes: [MirrorFigures] = []
  public var verdicts: [String: UInt64] = [:]
  public var expected: [String: Expectation] = [:]
  public init() {}

  func sum(_ path: KeyPath<MirrorFigures, UInt64>) -> UInt64 { processes.reduce(0) { $0 + $1[keyPath: path] } }
}

/// One mirror process, all its mirrors together.
public struct MirrorFigures: Codable, Sendable {
  public var kind: String
  /// Address spaces that it mirrors.
  public var mirrors: UInt64
  /// Calls of its hooks, all of them answered unless the mirror is lost.
  public var events: UInt64
  /// Those that it answered with EAGAIN.
  public var refusals: UInt64
  public var faults: UInt64
  /// Faults whose answer was thrown away, because an invalidation had come between.
  public var retries: UInt64
  public var installs: UInt64
  /// Accesses through its own table.
  public var uses: UInt64
  /// Accesses to pages that could not be had.
  public var refusedUses: UInt64
  /// Accesses that were under way when the mirror was lost.
  public var fencedUses: UInt64
  /// Mirrors that saw the release of their address space, at the end of the storm.
  public var released: UInt64
  /// Mirrors that did not answer in time, and were fenced.
  public var lost: UInt64
}

extension MirrorFigures {
  init(_ kind: String, _ result: MirrorProcessResult) {
    self.init(
      kind: kind, mirrors: UInt64(result.subscribers.count), events: result.events, refusals: result.refusals,
      faults: result.faults, retries: result.retries, installs: result.installs, uses: result.done,
      refusedUses: result.refused, fencedUses: result.fenced, released: UInt64(result.released),
      lost: UInt64(result.lost))
  }
}
