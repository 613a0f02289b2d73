// SPDX-License-Identifier: Apache-2.0

/// A log, performed again at a desk: the same effects, verdicts and state as when it was recorded.
public struct Replay {
  public private(set) var machine: Machine
  public private(set) var entryCount = 0
  /// What `step` performed last.
  public private(set) var entry: Log.Entry?
  public private(set) var counters = Counters()
  /// Every verdict in order, if they are kept.
  public private(set) var verdicts: [Verdict] = []
  /// Digest over all effects in order: two replays that agree on it did the same.
  public private(set) var effectDigest = Digest()
  private var reader: LogReader
  private var effects = Effects()
  private let keepsVerdicts: Bool

  /// - Throws: what is wrong with the log's head.
  public init(_ bytes: [UInt8], keepsVerdicts: Bool = true) throws(LogError) {
    self.keepsVerdicts = keepsVerdicts
    reader = try LogReader(bytes)
    machine = Machine(settings: reader.settings)
  }

  public var build: String { reader.build }

  /// Performs one entry and hands out its effects; nil at the end.
  /// - Throws: `diverged` when the machine answers otherwise than the log says, and what is wrong with the bytes. The
  ///   replay is over then: the machine may have performed the entry otherwise.
  public mutating func step() throws(LogError) -> Effects? {
    guard let entry = try reader.next() else { return nil }
    effects.removeAll()
    switch entry.turn {
    case .command(let command, let recorded):
      let reply: Reply
      do throws(Refusal) {
        reply = try machine.apply(command, at: entry.time, into: &effects)
      } catch {
        throw .diverged(entry: entryCount)
      }
      guard reply == recorded else { throw .diverged(entry: entryCount) }
    case .pending(let sequence):
      guard machine.apply(pending: sequence, at: entry.time, into: &effects) else { throw .diverged(entry: entryCount) }
    }
    self.entry = entry
    guard machine.time == entry.time else { throw .diverged(entry: entryCount) }
    entryCount += 1
    counters.add(effects.counters)
    if keepsVerdicts { verdicts += effects.verdicts }
    effects.digest(into: &effectDigest)
    return effects
  }

  /// Performs all that is left.
  public mutating func run() throws(LogError) {
    while try step() != nil {}
  }
}
