// SPDX-License-Identifier: Apache-2.0
// Goal: whatever the seed and the shape, a plan that is accepted keeps the storm's promises. Method: plans drawn from a
// seed; what must hold is computed here from the plan's parts, not read from it.
import DeviceEndpoint
import Testing

@testable import StormKit

@Suite struct PlanPropertyTests {
  /// A plan with a shape of its own, accepted or not.
  private func draw(_ seed: UInt64) -> StormPlan {
    var generator = StreamGenerator(seed: seed)
    var plan = StormPlan()
    plan.seed = generator.next()
    plan.processes = 1 + Int(generator.next(below: 12))
    plan.devicesPerProcess = 1 + Int(generator.next(below: 24))
    plan.mutators = 1 + Int(generator.next(below: 5))
    plan.accesses = 1 + generator.next(below: 4000)
    plan.pattern = AccessPattern.allCases[Int(generator.next(below: 3))].rawValue
    plan.priAllocation = UInt32(generator.next(below: 40))
    plan.addressSpaces = 1 + Int(generator.next(below: 5))
    plan.addressSpacesPerDevice = 1 + Int(generator.next(below: 3))
    plan.sharedPages = 1 + generator.next(below: 300)
    plan.ownPages = 1 + generator.next(below: 32)
    plan.writePermille = UInt32(generator.next(below: 1001))
    return plan
  }

  @Test func `Page-request allocations of an accepted plan fit the queue together, and a plan is refused otherwise`() {
    var accepted = 0
    for seed in UInt64(1)...2000 {
      let plan = draw(seed)
      let sum = (0..<plan.devices).reduce(UInt64(0)) { $0 + UInt64(plan.device($1).priAllocation) }
      let fits = sum <= UInt64(plan.pageRequestQueueCapacity) && plan.priAllocation > 0
      if plan.complaint == nil { accepted += 1 }
      if plan.complaint == nil { #expect(fits, "seed \(seed)") }
      let isElsewise = plan.mutators > plan.addressSpaces || plan.accesses < UInt64(plan.devices)
      if fits && !isElsewise { #expect(plan.complaint == nil, "seed \(seed): \(plan.complaint ?? "")") }
    }
    #expect(accepted > 200, "\(accepted) of 2000 plans were accepted")
  }

  @Test func `Nothing of a plan's work depends on the strategy: hash, devices, operations`() {
    for seed in UInt64(1)...60 {
      let plan = draw(seed)
      for strategy in plan.strategies + ["none"] {
        var alone = plan
        alone.strategies = [strategy]
        #expect(alone.workloadHash == plan.workloadHash, "seed \(seed) \(strategy)")
        for index in 0..<plan.devices { #expect(alone.device(index) == plan.device(index), "seed \(seed)") }
        for space in 0..<plan.addressSpaces {
          #expect(alone.operations(space) == plan.operations(space), "seed \(seed)")
        }
      }
    }
  }

  @Test func `Different seeds give different workloads`() {
    var hashes: Set<String> = []
    for seed in UInt64(1)...200 {
      var plan = StormPlan()
      plan.seed = seed
      plan.accesses = 64
      hashes.insert(plan.workloadHash)
    }
    #expect(hashes.count == 200)
  }

  @Test func `Every access and every operation stays inside the areas that the storm maps`() {
    for seed in UInt64(1)...300 {
      let plan = draw(seed)
      for index in 0..<plan.devices {
        var stream = AccessStream(plan.device(index).workload)
        let spaces = plan.addressSpaces(ofDevice: index)
        #expect(Set(spaces).count == spaces.count && spaces.allSatisfy { $0 < plan.addressSpaces }, "seed \(seed)")
        var count: UInt64 = 0
        while let access = stream.next() {
          count += 1
          let target = spaces.map(plan.shared).first { $0.pasid == access.pasid }
          #expect(target.map { contains($0, access.page, 1) } == true, "seed \(seed): \(access)")
          #expect(access.offset % 8 == 0 && access.offset < 4096, "seed \(seed)")
        }
        #expect(count == plan.accessesPerDevice, "seed \(seed)")
      }
      for space in 0..<plan.addressSpaces {
        #expect(!overlap(plan.shared(space), plan.own(space)), "seed \(seed)")
        for step in plan.operations(space).steps {
          let isOwn = step.kind == .recycle || step.kind == .verify
          let range = isOwn ? plan.own(space) : plan.shared(space)
          #expect(step.pageCount > 0 && contains(range, step.firstPage, step.pageCount), "seed \(seed): \(step)")
        }
      }
    }
  }

  @Test(arguments: [UInt64(100_000), StormPlan.referenceAccesses, 1_000_000])
  func `Lists of the size that the storm must have hold at least 100 full gather batches`(accesses: UInt64) {
    for seed in UInt64(1)...200 {
      var plan = StormPlan()
      plan.seed = seed
      plan.accesses = accesses
      var batches: UInt64 = 0
      for space in 0..<plan.addressSpaces {
        for step in plan.operations(space).steps where step.kind == .dontNeed || step.kind == .remap {
          batches += step.pageCount / UInt64(plan.gatherBatch)
        }
      }
      // By construction, whatever is drawn: each large step has at least the smallest large range.
      let mix = plan.mix.scaled(plan.totalAccesses, over: StormPlan.referenceAccesses, isKernelOfNow: false)
      let least = UInt64(plan.addressSpaces * (mix.largeDontNeeds + mix.largeRemaps)) * (mix.largePages.lowerBound / 8)
      #expect(least >= 400, "four times as many as needed: devices have not touched every page of a range again")
      #expect(batches >= least, "seed \(seed)")
    }
  }

  @Test func `Figures at the end of their types are refused, not multiplied`() {
    var plan = StormPlan()
    plan.accesses = .max
    #expect(plan.complaint?.contains("--accesses") == true)
    plan = StormPlan()
    plan.processes = .max
    #expect(plan.complaint?.contains("at most 512 devices") == true)
    plan = StormPlan()
    plan.devicesPerProcess = .max
    #expect(plan.complaint != nil)
    plan = StormPlan()
    plan.priAllocation = 0
    #expect(plan.complaint?.contains("--pri-allocation") == true)
    for rate in [0, -1, 1e-300, .infinity, .nan] {
      plan = StormPlan()
      plan.arrivals = .poisson
      plan.rate = rate
      #expect(plan.complaint?.contains("--rate") == true, "\(rate)")
    }
  }

  private func contains(_ target: DeviceSpec.Target, _ page: UInt64, _ count: UInt64) -> Bool {
    page >= target.firstPage && page + count <= target.firstPage + target.pageCount
  }

  private func overlap(_ a: DeviceSpec.Target, _ b: DeviceSpec.Target) -> Bool {
    a.firstPage < b.firstPage + b.pageCount && b.firstPage < a.firstPage + a.pageCount
  }
}
