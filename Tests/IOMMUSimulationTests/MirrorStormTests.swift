// SPDX-License-Identifier: Apache-2.0
// Goal: a mirror of each kind that keeps its contract stays clean beside all operations, and each of three ways to break
// it is caught. Method: storms in one thread over many seeds, with wires that reorder what the network may reorder.
import IOMMUModel
import IOMMUSimulation
import MirrorEndpoint
import Testing

@Suite struct MirrorStormTests {
  static let kinds = MirrorKind.allCases
  static let plain: [MirrorKind] = [.kvm, .gru, .secondaryTLB]

  private func storm(_ plan: MirrorStorm.Plan) -> MirrorStorm {
    var storm = MirrorStorm(plan)
    let isDone = storm.run()
    #expect(isDone, "seed \(plan.seed): somebody waits for ever")
    return storm
  }

  @Test(arguments: kinds) func `a correct mirror stays clean through every operation`(_ kind: MirrorKind) {
    var counters = Counters()
    var returned: Set<String> = []
    for seed in UInt64(1)...30 {
      let storm = storm(MirrorStorm.Plan(seed: seed, mirrors: [kind, kind]))
      #expect(storm.verdicts.isEmpty, "seed \(seed): \(storm.verdicts.first.map { "\($0)" } ?? "")")
      #expect(storm.mirrors.allSatisfy { !$0.isFenced && $0.isReleased })
      counters.add(storm.counters)
      for outcome in storm.outcomes where outcome.status == .success { returned.insert(outcome.kind.name) }
    }
    #expect(counters.mirrorAccesses > 1000)
    #expect(counters.notifierAnswers == counters.notifierEvents)
    #expect(counters.unexplainedCorruptions == 0)
    #expect(returned.count >= 12, "\(returned.sorted())")
  }

  @Test(arguments: plain) func `a correct plain mirror stays clean in the kernels of 2014`(_ kind: MirrorKind) {
    for seed in UInt64(1)...30 {
      var plan = MirrorStorm.Plan(seed: seed, mirrors: [kind, kind])
      plan.kernel = .linux2014
      #expect(storm(plan).verdicts.isEmpty, "seed \(seed)")
    }
  }

  @Test func `mirrors of all kinds stay clean beside each other`() {
    for seed in UInt64(1)...20 {
      #expect(storm(MirrorStorm.Plan(seed: seed, mirrors: Self.kinds)).verdicts.isEmpty, "seed \(seed)")
    }
  }

  /// Verdicts of the first mirror over some seeds; the others obey and have none.
  private func verdicts(_ kind: MirrorKind, _ misbehaviour: MirrorMisbehaviour) -> [VerdictKind] {
    var kinds: [VerdictKind] = []
    for seed in UInt64(1)...30 {
      var plan = MirrorStorm.Plan(seed: seed, mirrors: [kind, .kvm])
      plan.misbehaviour = misbehaviour
      let found = storm(plan).verdicts
      #expect(Set(found.map(\.subscriber.rawValue)).count <= 1, "only one of them is at fault")
      kinds += found.map(\.kind)
    }
    return kinds
  }

  @Test(arguments: kinds) func `a mirror that ignores the start is caught`(_ kind: MirrorKind) {
    #expect(verdicts(kind, .ignoresStart).contains(.mirrorAfterStart))
  }

  @Test(arguments: kinds) func `a mirror that installs without a retry is caught`(_ kind: MirrorKind) {
    #expect(verdicts(kind, .installsWithoutRetry).contains(.mirrorWithoutRetry))
  }

  @Test(arguments: kinds) func `a mirror that goes on after the release is caught`(_ kind: MirrorKind) {
    let found = verdicts(kind, .usesAfterRelease)
    #expect(found.contains(.mirrorAfterRelease))
    #expect(found.allSatisfy { $0 == .mirrorAfterRelease })
  }

  @Test(arguments: kinds) func `a mirror that never answers is fenced, and everybody else goes on`(_ kind: MirrorKind) {
    var plan = MirrorStorm.Plan(seed: 1, mirrors: [kind, .kvm])
    plan.misbehaviour = .neverAnswers
    let storm = storm(plan)
    #expect(storm.mirrors[0].isFenced)
    #expect(!storm.mirrors[1].isFenced)
    #expect(storm.counters.lostSubscribers == 1)
    #expect(storm.verdicts.isEmpty)
  }

  @Test func `every structure holds after every turn of a mirror storm`() {
    var plan = MirrorStorm.Plan(seed: 3, mirrors: Self.kinds)
    plan.settings.frameCount = 256
    plan.accessesPerMirror = 20
    plan.operationCount = 16
    var turns = 0
    var storm = MirrorStorm(plan) { machine in
      machine.checkInvariants()
      turns += 1
    }
    let isDone = storm.run()
    #expect(isDone)
    #expect(turns > 500)
  }

  @Test func `a mirror storm is performed again from its log, to the same state`() throws {
    var storm = MirrorStorm(MirrorStorm.Plan(seed: 7, mirrors: Self.kinds))
    let isDone = storm.run()
    #expect(isDone)
    var replay = try Replay(storm.log.take())
    try replay.run()
    #expect(replay.machine.stateHash() == storm.machine.stateHash())
    #expect(replay.counters == storm.counters)
  }
}
