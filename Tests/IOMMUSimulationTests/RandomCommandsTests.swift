// SPDX-License-Identifier: Apache-2.0
// Goal: random commands reach what they are for. Method: short runs over a few seeds, with the whole structure checked
// after every turn; `iommulab simulate commands` goes on for as long as one likes.
import IOMMUModel
import IOMMUSimulation
import Testing

@Suite struct RandomCommandsTests {
  @Test func `some seeds map huge pages, are granted them, split their ranges and copy them after a fork`() {
    var hugeSeeds = 0
    var grants = 0
    var writes = 0
    var freed: UInt64 = 0
    var (shared, left) = (UInt64(0), UInt64(0))
    for seed in UInt64(1)...64 {
      var commands = RandomCommands(seed: seed, checks: false)
      guard commands.machine.settings.frameCount > 256 else { continue }
      hugeSeeds += 1
      for _ in 0..<4000 {
        commands.step()
        for effect in commands.lastEffects {
          if case .translation(_, let answer) = effect, answer.sizeLog2 == 21, !answer.rights.isEmpty {
            grants += 1
            if answer.rights.contains(.write) { writes += 1 }
          }
        }
      }
      freed += commands.counters.framesFreed
      shared += commands.counters.tablesShared
      left += commands.counters.tablesUnshared
    }
    #expect(hugeSeeds >= 3 && hugeSeeds <= 20, "\(hugeSeeds) of 64 seeds")
    #expect(grants > 20 && writes > 5 && writes < grants, "\(grants) grants of 2 MiB, \(writes) to write")
    #expect(freed > 0)
    #expect(shared > 5 && left > 2, "\(shared) page tables shared, \(left) left")
  }

  @Test(arguments: UInt64(1)...12) func `a run's log replays to the same state`(seed: UInt64) throws {
    var commands = RandomCommands(seed: seed)
    for _ in 0..<400 { commands.step() }
    var replay = try Replay(commands.log.take())
    try replay.run()
    #expect(replay.machine.stateHash() == commands.machine.stateHash(), "seed \(seed)")
  }
}
