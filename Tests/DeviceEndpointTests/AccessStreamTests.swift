// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import DeviceEndpoint

@Suite struct AccessStreamTests {
  static func workload(_ pattern: AccessPattern, seed: UInt64 = 7) -> AccessWorkload {
    AccessWorkload(
      seed: seed, rankSeed: 3, accessCount: 20_000, targets: [AccessTarget(pasid: 5, firstPage: 100, pageCount: 50)],
      pattern: pattern, writePermille: 250, wordsPerPage: 4)
  }
  static func hash(_ workload: AccessWorkload) -> UInt64 {
    var hash = StreamHash()
    AccessStream.hash(workload, into: &hash)
    return hash.value
  }

  @Test(arguments: AccessPattern.allCases)
  func `A stream stays inside its target, keeps its mix and ends`(pattern: AccessPattern) {
    var stream = AccessStream(Self.workload(pattern))
    var visits = [UInt64: Int]()
    var writes = 0
    while let access = stream.next() {
      #expect(
        access.page >= 100 && access.page < 150 && access.pasid == 5 && access.offset % 8 == 0 && access.offset < 32)
      visits[access.page, default: 0] += 1
      writes += access.write ? 1 : 0
    }
    #expect(stream.remaining == 0)
    #expect(visits.values.reduce(0, +) == 20_000)
    #expect((4_600...5_400).contains(writes))
    #expect(visits.count == 50)
    let most = visits.values.max()!
    if pattern == .zipf {
      #expect((4_000...4_900).contains(most), "1/H(50) of 20,000 is 4,445")
    } else {
      #expect(most < 600)
    }
  }

  @Test func `Equal seeds give equal hashes, different seeds different ones`() {
    #expect(Self.hash(Self.workload(.zipf)) == Self.hash(Self.workload(.zipf)))
    #expect(Self.hash(Self.workload(.zipf)) != Self.hash(Self.workload(.zipf, seed: 8)))
    #expect(Self.hash(Self.workload(.random)) != Self.hash(Self.workload(.sequential)))
  }

  @Test(arguments: [
    ArrivalSchedule.constant(interval: 1000), .poisson(interval: 1000), .burst(size: 8, interval: 1000),
  ])
  func `Open-loop arrivals keep their mean rate and never go back`(schedule: ArrivalSchedule) {
    var clock = ArrivalClock(schedule, start: 500, seed: 1)
    var last: UInt64 = 0
    for _ in 0..<20_000 {
      let time = clock.take()
      #expect(time >= last)
      last = time
    }
    #expect(abs(Int64(last) - 20_000_000) < 500_000)
  }

  @Test func `Exponential gaps have the spread of an exponential distribution`() {
    var generator = StreamGenerator(seed: 4)
    let gaps = (0..<40_000).map { _ in Double(generator.nextExponential(mean: 1_000_000)) }
    let mean = gaps.reduce(0, +) / 40_000
    let beyondTwice = gaps.filter { $0 > 2_000_000 }.count
    #expect(abs(mean - 1_000_000) < 20_000)
    #expect((5_150...5_700).contains(beyondTwice), "e⁻² of 40,000 is 5,413")
  }
}
