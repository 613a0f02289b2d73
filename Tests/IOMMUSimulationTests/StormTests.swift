// SPDX-License-Identifier: Apache-2.0
// Goal: a whole storm tells the strategies apart, as the step lists say it must. Method: in-process storms in virtual
// time over several seeds; every figure follows from the seed.
import IOMMUModel
import IOMMUSimulation
import Testing

@Suite struct StormTests {
  static let seeds: [UInt64] = [1, 2, 3]

  func storm(_ strategy: Strategy, seed: UInt64, _ change: (inout StormPlan) -> Void = { _ in }) -> SimulatedStorm {
    var plan = StormPlan()
    plan.seed = seed
    plan.strategy = strategy
    plan.accessesPerDevice = 300
    change(&plan)
    var storm = SimulatedStorm(plan)
    let finished = storm.run()
    #expect(finished, "seed \(seed): somebody waits for ever")
    return storm
  }

  func counts(_ storm: SimulatedStorm) -> [String: Int] {
    storm.verdicts.reduce(into: [:]) { $0[$1.kind.name, default: 0] += 1 }
  }

  @Test(arguments: seeds) func `flush-at-start, flush-at-end and the control reach freed memory`(seed: UInt64) {
    for strategy in [Strategy.flushAtStart, .flushAtEnd, .invalidateRangeWithoutATC] {
      // Under flush-at-end only full batches are open to it: many, or a seed may meet none.
      let storm = storm(strategy, seed: seed) {
        $0.accessesPerDevice = 800
        if strategy == .flushAtEnd { $0.operationsPerSpace = 96 }
      }
      #expect(counts(storm)["STALE_DMA", default: 0] > 0, "seed \(seed) \(strategy)")
    }
  }

  @Test(arguments: seeds) func `invalidate-range has no verdict, no needless fault, no fence and no time-out`(
    seed: UInt64
  ) {
    let storm = storm(.invalidateRange, seed: seed)
    #expect(counts(storm) == [:], "seed \(seed)")
    #expect(storm.counters.needlessFaults == 0)
    #expect(storm.counters.fenced == 0)
    #expect(storm.counters.timeouts == 0)
    #expect(storm.counters.liveHits > 100)
    #expect(storm.counters.corruptedFrames == 0)
  }

  @Test(arguments: seeds) func `empty-table never reaches freed memory, but faults needlessly until devices give up`(
    seed: UInt64
  ) {
    let storm = storm(.emptyTable, seed: seed)
    let counts = counts(storm)
    #expect(counts["STALE_DMA", default: 0] == 0, "seed \(seed)")
    #expect(counts["GAVE_UP", default: 0] > 0, "seed \(seed)")
    #expect(storm.counters.needlessFaults > storm.endedAccesses / 10, "seed \(seed)")
  }

  @Test(arguments: seeds) func `every corruption of a frame has its verdict`(seed: UInt64) {
    var corrupted: UInt64 = 0
    for (name, strategy) in Strategy.named where name != "none" {
      let storm = storm(strategy, seed: seed)
      #expect(storm.counters.unexplainedCorruptions == 0, "seed \(seed) \(name)")
      corrupted += storm.counters.corruptedFrames
    }
    #expect(corrupted > 0, "seed \(seed): the check found nothing to check")
  }

  @Test func `without a hold the empty table makes devices give up far less`() {
    let held = storm(.emptyTable, seed: 7)
    let unheld = storm(.emptyTable, seed: 7) { $0.settings.hold = 0 }
    #expect(unheld.gaveUp * 20 <= held.gaveUp, "\(unheld.gaveUp) of \(held.gaveUp)")
  }

  @Test func `a recorded storm replays to the same effects, verdicts and state`() throws {
    for (name, strategy) in Strategy.named where name != "none" {
      var storm = storm(strategy, seed: 11) { $0.accessesPerDevice = 200 }
      var replay = try Replay(storm.log.take())
      try replay.run()
      #expect(replay.effectDigest == storm.effectDigest, "\(name)")
      #expect(replay.verdicts == storm.verdicts, "\(name)")
      #expect(replay.machine.stateHash() == storm.machine.stateHash(), "\(name)")
    }
  }

  @Test func `the whole structure holds after every turn of a small storm`() {
    for (name, strategy) in Strategy.named {
      var plan = StormPlan()
      plan.seed = 5
      plan.strategy = strategy
      plan.spaceCount = 1
      plan.devicesPerSpace = 2
      plan.pageCount = 40
      plan.accessesPerDevice = 120
      plan.operationsPerSpace = 12
      plan.settings.frameCount = 256
      var storm = SimulatedStorm(plan) { $0.checkInvariants() }
      let finished = storm.run()
      #expect(finished, "\(name)")
    }
  }
}
