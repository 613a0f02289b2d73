// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// One device that holds a page and completes its invalidations, and a CPU that takes the page away again and again.
struct InvalidationBench {
  /// From the site until the caches of the IOMMU are clean, and from the push until its completion.
  private(set) var iotlb: [Nanoseconds] = []
  private(set) var deviceTLB: [Nanoseconds] = []

  private static let range = PageRange(first: 0x100, count: 1)

  init(costs: CostModel, count: Int, seed: UInt64) {
    var settings = Settings()
    settings.seed = seed
    settings.costs = costs
    settings.frameCount = 256
    var machine = Machine(settings: settings)
    var effects = Effects()
    var generator = SeededGenerator(seed: seed, purpose: "completions")
    func apply(_ command: Command, at time: Nanoseconds? = nil) -> Reply {
      do throws(Refusal) {
        return try machine.apply(command, at: time ?? machine.time, into: &effects)
      } catch {
        preconditionFailure("the bench asks for what there is: \(error)")
      }
    }
    guard case .addressSpace(let space) = apply(.createAddressSpace),
      case .device(let device, _) = apply(.registerDevice(DeviceProfile(rid: 8)))
    else { preconditionFailure("a new machine takes them") }
    _ = apply(.start(.mmap(space, Self.range, .readWrite, pageSizeLog2: 12)))
    _ = apply(.attach(device, 1, .addressSpace(space, .secondaryTLB)))
    machine.run(until: .max, limit: 1000, into: &effects)
    effects.removeAll()
    while deviceTLB.count < count {
      let store = CPUAccess(cpu: 0, kind: .store, address: Self.range.first << 12, value: 1)
      _ = apply(.start(.cpuAccess(space, store)))
      machine.run(until: .max, limit: 1000, into: &effects)
      effects.removeAll()
      _ = apply(.start(.dontNeed(space, Self.range)))
      var siteAt: Nanoseconds = 0
      var owed: (at: Nanoseconds, itag: UInt8)?
      while true {
        for effect in effects.list {
          switch effect {
          case .step(let step) where step.letter == .flushSite: siteAt = machine.time
          case .invalidation(_, let invalidation):
            iotlb.append(machine.time - siteAt)
            owed = (
              machine.time + PublishedFigure.deviceTLBInvalidation.distribution.draw(&generator), invalidation.itag
            )
          case .invalidationEnded(_, let end): deviceTLB.append(end.nanoseconds)
          default: break
          }
        }
        effects.removeAll()
        if let (at, itag) = owed {
          _ = apply(.complete(device, itagVector: 1 << UInt32(itag)), at: at)
          owed = nil
        } else if machine.applyNext(at: 0, into: &effects) == nil {
          break
        }
      }
    }
  }
}
