// SPDX-License-Identifier: Apache-2.0
// Goal: translation requests that come together do what they would do one by one, in every state of a machine. Method:
// random machines and storms; now and then two copies take the same requests, one at once, one by one, and everything is compared.
@testable import IOMMUModel
import IOMMUSimulation
import Testing

/// Compares batches with single requests, and counts what the comparison met.
final class BatchComparison {
  let seed: UInt64
  private var random: SeededGenerator
  private(set) var met = Counters()
  private(set) var performed = 0
  /// Batches that ended before a refusal.
  private(set) var cut = 0

  init(seed: UInt64) {
    self.seed = seed
    random = SeededGenerator(seed: seed, purpose: "batches")
  }

  /// Pages of address spaces that the device shares.
  private func residentPages(_ machine: Machine, _ device: DeviceID) -> [(pasid: PASID, page: PageNumber)] {
    var pages: [(pasid: PASID, page: PageNumber)] = []
    for binding in machine.devices[device].bindings.map({ machine.bindings[$0] }) {
      guard case .addressSpace(let space) = binding.target, machine.spaces.contains(space) else { continue }
      for (key, reference) in machine.spaces[space].references.sorted where reference.held {
        pages.append((binding.pasid, key.page << (9 * UInt64(key.owner))))
      }
    }
    return pages
  }

  /// The slow model: `apply` for each request until one is refused.
  private func oneByOne(
    _ machine: inout Machine, _ device: DeviceID, _ requests: [TranslationRequest], at time: Nanoseconds,
    _ effects: inout Effects
  ) -> Int {
    for (count, request) in requests.enumerated() {
      do throws(Refusal) {
        _ = try machine.apply(.translate(device, request), at: time, into: &effects)
      } catch {
        return count
      }
    }
    return requests.count
  }

  func compare(_ machine: Machine) {
    guard let any = machine.devices.ids.randomElement(using: &random) else { return }
    // Sometimes a device that is gone.
    let device = random.next(below: 20) == 0 ? DeviceID(rawValue: any.rawValue &+ 0x10000) : any
    // Mostly few pages that are there, so that hits stand together; sometimes a PASID that is refused.
    let resident = residentPages(machine, any).shuffled(using: &random).prefix(1 + Int(random.next(below: 12)))
    let requests = (0..<random.next(below: 90)).map { tag in
      let known = random.next(below: 8) > 0 ? resident.randomElement(using: &random) : nil
      let pasid = known?.pasid ?? (random.next(below: 20) == 0 ? 1 << 20 : PASID(random.next(below: 3)))
      return TranslationRequest(
        tag: UInt32(tag), pasid: pasid, page: known?.page ?? 0x200 + random.next(below: 24),
        noWrite: random.next(below: 2) == 0)
    }
    let time = machine.time + random.next(below: 100)
    var (fast, slow) = (machine, machine)
    var (together, apart) = (Effects(), Effects())
    let count = fast.translate(device, requests.span, at: time, into: &together)
    #expect(count == oneByOne(&slow, device, requests, at: time, &apart), "seed \(seed) turn \(machine.turn)")
    #expect(fast.stateHash() == slow.stateHash(), "seed \(seed) turn \(machine.turn)")
    #expect(fast.time == slow.time && fast.turn == slow.turn, "seed \(seed) turn \(machine.turn)")
    #expect(together.list == apart.list && together.verdicts == apart.verdicts, "seed \(seed) turn \(machine.turn)")
    #expect(together.counters == apart.counters, "seed \(seed) turn \(machine.turn)")
    fast.checkInvariants()
    met.add(together.counters)
    performed += count
    if count < requests.count { cut += 1 }
  }
}

@Suite struct TranslationBatchTests {
  static let seeds: [UInt64] = [1, 2, 3]

  @Test(arguments: seeds) func `a batch of translations equals its requests one by one in random machines`(seed: UInt64)
  {
    let comparison = BatchComparison(seed: seed)
    var commands = RandomCommands(seed: seed, checks: false)
    for step in 0..<3000 {
      commands.step()
      if step % 11 == 0 { comparison.compare(commands.machine) }
    }
    #expect(comparison.performed > 2000 && comparison.cut > 50, "seed \(seed)")
  }

  @Test(arguments: seeds) func `a batch of translations equals its requests one by one in storms`(seed: UInt64) {
    for strategy in [Strategy.invalidateRange, .none] {
      let comparison = BatchComparison(seed: seed)
      var plan = StormPlan()
      plan.seed = seed
      plan.strategy = strategy
      plan.accessesPerDevice = 100
      plan.settings.caches.iotlb = 64
      var storm = SimulatedStorm(plan) { machine in
        if machine.turn % 401 == 0 { comparison.compare(copy machine) }
      }
      let finished = storm.run()
      #expect(finished, "seed \(seed)")
      #expect(comparison.met.iotlbHits > 200 && comparison.met.walks > 50, "seed \(seed)")
    }
  }
}
