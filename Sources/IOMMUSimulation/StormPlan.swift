// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// A storm inside one process: what it is made of. Everything random follows from the seed.
public struct StormPlan: Sendable {
  public var seed: UInt64 = 1
  public var strategy = Strategy.invalidateRange
  public var spaceCount = 2
  public var devicesPerSpace = 4
  /// Pages of each address space that devices use.
  public var pageCount: UInt64 = 96
  public var accessesPerDevice: UInt64 = 500
  public var concurrency = 8
  /// Memory operations of each address space, spread evenly over its devices' accesses.
  public var operationsPerSpace = 24
  /// One way of the wire between a device and the IOMMU, undilated, each message a little different.
  public var wireLatency = Distribution.uniform(300, 700)
  public var retryLimit: UInt32 = 3
  public var settings = Settings()
  public var misbehaving: [Int] = []

  public init() {
    settings.frameCount = 2048
    settings.hold = 100_000
    settings.pageRequestQueueCapacity = 256
    settings.gatherBatch = 8
  }
}

/// What a process does to its own memory while devices use it.
enum Mutation: Equatable {
  /// Unmaps a range and maps it again.
  case unmapAndMap(PageRange)
  case dontNeed(PageRange)
  /// Forks, stores to pages of the parent while the child shares them, then lets the child exit.
  case forkAndStore(PageRange)
  case protectAndRestore(PageRange)
  case touch(PageRange)
}

extension StormPlan {
  static let firstPage: PageNumber = 0x1000

  /// The operations of one address space: large ones, above the gather batch, small ones, and COW.
  func mutations(space: Int) -> [Mutation] {
    var generator = SeededGenerator(seed: seed &+ UInt64(space), purpose: "mutations")
    let large = UInt64(settings.gatherBatch) * 3
    return (0..<operationsPerSpace).map { index in
      func range(_ count: UInt64) -> PageRange {
        let count = min(count, pageCount)
        return PageRange(first: Self.firstPage + generator.next(below: pageCount - count + 1), count: count)
      }
      switch index % 6 {
      case 0: return .unmapAndMap(range(large))
      case 1: return .dontNeed(range(1 + generator.next(below: 4)))
      case 2: return .forkAndStore(range(4))
      case 3: return .dontNeed(range(large))
      case 4: return .touch(range(large))
      default: return .protectAndRestore(range(2))
      }
    }
  }
}
