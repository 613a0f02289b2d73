// SPDX-License-Identifier: Apache-2.0

/// Goes over a log once more for what led to one of its verdicts. Bounded work for each call, so that a shell can do other
/// things between.
public struct Retrace {
  public enum Progress: Sendable {
    case underWay
    case found(Explanation)
    /// The log ends before the verdict.
    case absent
  }

  private let number: UInt64
  private let verdict: Verdict
  private let device: String
  private var replay: Replay
  private var verdictCount: UInt64 = 0
  private var sightings: Sightings

  /// - Parameters:
  ///   - number: the verdict's place among all of the log, from 1 on.
  ///   - device: what people call whoever made the access (`Verdict.accessor`).
  /// - Throws: what is wrong with the log's head.
  public init(_ bytes: [UInt8], of verdict: Verdict, number: UInt64, device: String) throws(LogError) {
    self.number = number
    self.verdict = verdict
    self.device = device
    replay = try Replay(bytes, keepsVerdicts: false)
    sightings = Sightings(verdict)
  }

  /// Performs at most so many entries.
  /// - Throws: what is wrong with the log, or `diverged` where its verdict is another one.
  public mutating func advance(_ limit: Int) throws(LogError) -> Progress {
    for _ in 0..<limit {
      guard let effects = try replay.step() else { return .absent }
      verdictCount += UInt64(effects.verdicts.count)
      sightings.note(replay.entry!, effects, replay.machine)
      guard verdictCount >= number else { continue }
      let index = effects.verdicts.count - 1 - Int(verdictCount - number)
      guard effects.verdicts[index] == verdict else { throw .diverged(entry: replay.entryCount - 1) }
      return .found(sightings.explanation(device: device))
    }
    return .underWay
  }
}
