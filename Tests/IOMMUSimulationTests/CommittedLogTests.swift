// SPDX-License-Identifier: Apache-2.0
// Goal: logs that people keep stay good. Method: logs that an earlier build wrote lie in Tests/logs; each is performed
// again to the digest and the state that were noted when it was recorded, torn and damaged at every place, and given a
// version that nobody knows.
//
//     iommulab simulate storm --seed 37 --devices 2 --accesses 30 --strategies flush-at-start --record storm-v1.log
//     iommulab simulate commands --seed 5 --turns 300 --record commands-v1.log
//     iommulab simulate commands --seed 34 --turns 500 --record commands-v2.log
//     iommulab simulate commands --seed 44 --turns 500 --record commands-v3.log
//     iommulab simulate commands --seed 74 --turns 500 --record commands-v4.log
//
// A later build draws other commands from the same seed; the files are what counts.
//
// A change of the format takes a new version and new files; the old files stay, and stay readable. A change of what the
// state hash covers changes `state` alone; a change of `effects` or `verdicts` means that old logs no longer hold.
import Foundation
import IOMMUModel
import IOMMUSimulation
import Testing

@Suite struct CommittedLogTests {
  struct Recorded: CustomTestStringConvertible, Sendable {
    var file: String
    var entries: Int
    var effects: UInt64
    var state: UInt64
    var verdicts: [String: Int]
    var testDescription: String { file }
  }

  static let logs: [Recorded] = [
    Recorded(
      file: "storm-v1.log", entries: 2066, effects: 0xabb7_3c03_bc77_cabf, state: 0x840b_9fc2_9fa0_33cf,
      verdicts: ["STALE_DMA": 2]),
    Recorded(
      file: "commands-v1.log", entries: 262, effects: 0x136f_c5a0_28f1_6042, state: 0xc6ac_dad5_e556_06a8,
      verdicts: ["FORGED_TRANSLATION": 3, "PRG_WRONG_PASID": 7]),
    Recorded(
      file: "commands-v2.log", entries: 409, effects: 0x77e4_2b82_b6ad_0225, state: 0xf69f_94f5_7f61_30cd,
      verdicts: ["FORGED_TRANSLATION": 7, "PRG_WRONG_PASID": 2]),
    Recorded(
      file: "commands-v3.log", entries: 355, effects: 0x9cfa_0812_58ac_d039, state: 0xf3c6_9055_9b91_3bc8,
      verdicts: ["FORGED_TRANSLATION": 9, "PRG_WRONG_PASID": 2]),
    Recorded(
      file: "commands-v4.log", entries: 340, effects: 0x69b8_166a_b6fa_bd17, state: 0x9735_9f5e_c612_a69b,
      verdicts: ["FORGED_TRANSLATION": 10, "PRG_WRONG_PASID": 1]),
  ]

  private func bytes(_ file: String) throws -> [UInt8] {
    let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    return Array(try Data(contentsOf: tests.appendingPathComponent("logs").appendingPathComponent(file)))
  }

  @Test(arguments: logs)
  func `a log of an earlier build gives the effects, verdicts and state that it was recorded with`(
    log: Recorded
  ) throws {
    var replay = try Replay(try bytes(log.file))
    #expect(replay.build == "simulation")
    try replay.run()
    #expect(replay.entryCount == log.entries)
    #expect(replay.effectDigest.value == log.effects)
    #expect(replay.verdicts.reduce(into: [:]) { $0[$1.kind.name, default: 0] += 1 } == log.verdicts)
    #expect(replay.machine.stateHash() == log.state)
  }

  @Test(arguments: logs) func `a log of an unknown version is refused by its number`(log: Recorded) throws {
    var unknown = try bytes(log.file)
    #expect((1...UInt8(Log.version)).contains(unknown[Log.magic.count]), "the version stands behind the magic")
    unknown[Log.magic.count] = UInt8(Log.version) + 1
    #expect(throws: LogError.unknownVersion(Log.version + 1)) { try Replay(unknown) }
    unknown[Log.magic.count] = 0
    #expect(throws: LogError.unknownVersion(0)) { try Replay(unknown) }
  }

  @Test(arguments: logs) func `a log that is torn anywhere is performed up to the tear`(log: Recorded) throws {
    let whole = try bytes(log.file)
    for length in stride(from: 0, to: whole.count, by: 1 + whole.count / 120) {
      do throws(LogError) {
        var replay = try Replay(Array(whole[..<length]))
        do throws(LogError) {
          try replay.run()
        } catch {
          guard case .torn = error else { throw error }
        }
        #expect(replay.entryCount <= log.entries)
      } catch {
        // The head itself is torn.
        guard case .torn = error else {
          #expect(length < Log.magic.count && error == .notALog, "\(length): \(error)")
          continue
        }
      }
    }
  }

  @Test(arguments: logs) func `a damaged log ends in a typed error or as another machine, and never traps`(
    log: Recorded
  ) throws {
    let whole = try bytes(log.file)
    var ended = 0
    for index in stride(from: Log.magic.count, to: whole.count, by: 1 + whole.count / 250) {
      var damaged = whole
      damaged[index] ^= 1 << UInt8(index % 8)
      do throws(LogError) {
        var replay = try Replay(damaged)
        try replay.run()
        ended += 1
      } catch {
        guard case .diverged = error else { continue }
      }
    }
    #expect(ended > 0, "some bits are data")
  }
}
