// SPDX-License-Identifier: Apache-2.0
import Glibc
import IOMMUModel

/// CPU time of this thread, so that other work on a shared core does not count.
func threadNanoseconds() -> UInt64 {
  var now = timespec()
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
  return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
}

@inline(never) func blackHole(_ value: UInt64) { if value == 0x5eed_dead_5eed_dead { print(value) } }

/// One machine with 1,024 resident pages over 8 PASIDs, and the order in which they are asked for.
enum TranslationBench {
  static let seed: UInt64 = 2014
  static let spaceCount = 8
  static let pagesPerSpace = 128
  /// Pages are drawn from this many, 1 GiB: nearly every page has a leaf table of its own.
  static let regionPages: UInt64 = 1 << 18

  struct Lab {
    var machine: Machine
    var effects = Effects()
    let device: DeviceID
    var requests: [TranslationRequest] = []

    init(pages: [(space: Int, page: UInt64)], iotlb: UInt32, walk: UInt32) throws(Refusal) {
      var settings = Settings()
      settings.costs = .zero
      settings.caches.iotlb = iotlb
      settings.caches.walk = walk
      machine = Machine(settings: settings)
      guard case .device(let device, _) = try machine.apply(.registerDevice(.init(rid: 8)), at: 0, into: &effects)
      else {
        fatalError("a registration answers with the device")
      }
      self.device = device
      for space in 0..<TranslationBench.spaceCount {
        guard case .addressSpace(let id) = try machine.apply(.createAddressSpace, at: 0, into: &effects) else {
          fatalError("a creation answers with the address space")
        }
        let area = PageRange(first: 0x1000_0000, count: TranslationBench.regionPages)
        try perform(.start(.mmap(id, area, .readWrite, pageSizeLog2: 12)))
        try perform(.attach(device, PASID(space + 1), .addressSpace(id, .invalidateRange)))
      }
      for (space, page) in pages {
        let pasid = PASID(space + 1)
        try perform(
          .pageRequest(device, .init(pasid: pasid, page: page, rights: .readWrite, groupIndex: 1, last: true)))
        requests.append(TranslationRequest(tag: 0, pasid: pasid, page: page, noWrite: false))
      }
    }

    private mutating func perform(_ command: Command) throws(Refusal) {
      _ = try machine.apply(command, at: machine.time, into: &effects)
      machine.run(until: machine.time, limit: 10_000, into: &effects)
      effects.removeAll()
    }

    /// Nanoseconds for each translation, and the shares of IOTLB hits and of answers with the right to write.
    /// - Parameter inBatches: 64 requests in one call, as the service performs those of one message of an `Attach`
    ///   stream; or one in each call, as a unary request is performed.
    mutating func measure(
      order: [Int], inBatches: Bool
    ) throws(Refusal) -> (nanoseconds: Double, hits: Double, granted: Double) {
      var hits: UInt64 = 0
      var granted = 0
      effects.removeAll()
      var batch: [TranslationRequest] = []
      batch.reserveCapacity(64)
      let began = threadNanoseconds()
      for (count, index) in order.enumerated() {
        if inBatches {
          batch.append(requests[index])
        } else {
          _ = try machine.apply(.translate(device, requests[index]), at: machine.time, into: &effects)
        }
        if count & 63 == 63 {
          if inBatches {
            precondition(machine.translate(device, batch.span, at: machine.time, into: &effects) == batch.count)
            batch.removeAll(keepingCapacity: true)
          }
          for effect in effects.list {
            if case .translation(_, let answer) = effect, answer.rights == .readWrite { granted += 1 }
          }
          hits += effects.counters.iotlbHits
          effects.removeAll()
        }
      }
      let spent = threadNanoseconds() - began
      let count = Double(order.count)
      return (Double(spent) / count, Double(hits) / count, Double(granted) / count)
    }
  }

  static func run(rounds: Int) {
    var generator = SeededGenerator(seed: seed, purpose: "bench")
    let pages = (0..<spaceCount * pagesPerSpace).map { index in
      (space: index % spaceCount, page: 0x1000_0000 + generator.next(below: regionPages))
    }
    let order = (0..<1 << 18).map { _ in Int(generator.next(below: UInt64(pages.count))) }
    let chase = PointerChase(pages: pages, spaceCount: spaceCount)
    do {
      var warm = try Lab(pages: pages, iotlb: 4096, walk: 1024)
      var cold = try Lab(pages: pages, iotlb: 4, walk: 4)
      var rows: [[Double]] = []
      var last = (warm: (0.0, 0.0, 0.0), cold: (0.0, 0.0, 0.0))
      _ = try warm.measure(order: order, inBatches: false)
      _ = try cold.measure(order: order, inBatches: false)
      for _ in 0..<rounds {
        let one = chase.nanoseconds(order: order, depth: 1)
        let hit = try warm.measure(order: order, inBatches: false).nanoseconds
        last.warm = try warm.measure(order: order, inBatches: true)
        let four = chase.nanoseconds(order: order, depth: 4)
        let walk = try cold.measure(order: order, inBatches: false).nanoseconds
        last.cold = try cold.measure(order: order, inBatches: true)
        rows.append([last.warm.0, last.cold.0, hit, walk, one, four])
      }
      let names = ["batch_hit_ns", "batch_walk_ns", "hit_ns", "walk_ns", "chase1_ns", "chase4_ns"]
      for (column, name) in names.enumerated() {
        let sorted = rows.map { $0[column] }.sorted()
        print(name, sorted[sorted.count / 2], sorted[0], sorted[sorted.count - 1])
      }
      print("hit_ratio_warm", last.warm.1)
      print("hit_ratio_cold", last.cold.1)
      print("granted_warm", last.warm.2)
      print("granted_cold", last.cold.2)
    } catch {
      fatalError("the bench's own commands are accepted: \(error)")
    }
  }
}
