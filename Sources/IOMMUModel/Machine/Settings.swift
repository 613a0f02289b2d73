// SPDX-License-Identifier: Apache-2.0

/// Everything that a machine is made from. Fixed at creation; stands at the head of every log and snapshot.
public struct Settings: Equatable, Sendable {
  public var seed: UInt64 = 1
  /// Frames of physical memory; allocated lazily.
  public var frameCount: UInt32 = 1 << 16
  public var recycleOrder: RecycleOrder = .lastInFirstOut
  public var cpuCount: UInt8 = 2
  /// Which Linux the step lists follow.
  public var kernel: KernelColumn = .linux2014
  /// How page tables of kernel memory are freed; nil: as that Linux does it.
  public var kernelTableFree: KernelTableFree?
  /// Orders of letters in the place of the kernel's own; at most one counts for an operation, the last.
  public var orders: [UserOrder] = []
  /// Pages that a zap collects before C, I and F run inside S..E. Linux: 8 on the stack (`MMU_GATHER_BUNDLE`), about
  /// 510 more for each page it can get, up to about 10,000.
  public var gatherBatch: UInt32 = 8
  /// Machine time between the completion of S's flush and the first entry, added to every operation; undilated.
  public var hold: Nanoseconds = 0
  public var costs = CostModel()
  /// Entries of the page-request queue.
  public var pageRequestQueueCapacity: UInt32 = 512
  /// Workers of the built-in fault handler.
  public var handlerWorkers: UInt32 = 4
  /// Undilated time after which a device that owes a completion is fenced. Drivers: AMD 100 ms, SMMUv3 1 s.
  public var invalidationTimeout: Nanoseconds = 1_000_000_000
  /// Flushes that wait in an address space's queue before they are run together. Linux dma-iommu: `IOVA_DEFAULT_FQ_SIZE`
  /// 256 for each CPU, `IOVA_SINGLE_FQ_SIZE` 32,768.
  public var flushQueueEntries: UInt32 = 256
  /// Undilated time after which the oldest of them is waited for no longer. Linux dma-iommu:
  /// `IOVA_DEFAULT_FQ_TIMEOUT` 10 ms, `IOVA_SINGLE_FQ_TIMEOUT` 1 s.
  public var flushQueueTimeout: Nanoseconds = 10_000_000
  /// Undilated time after which a notifier subscriber that owes an answer is fenced (our choice: the kernel waits for ever).
  public var notifierTimeout: Nanoseconds = 1_000_000_000
  /// Successes for one page without a change of it after which the oracle says `LIVELOCK`.
  public var livelockLimit: UInt32 = 64
  public var oracleAction: OracleAction = .perform
  /// Whether the IOTLB answers a write request from an entry without the write right, as Arm's does, instead of walking
  /// again, as x86's do.
  public var cachesRights = false
  public var caches = CacheSizes()
  public var limits = Limits()
  /// Page-table and data words are kept in chunks of 2^n frames: the copy-on-write unit.
  public var chunkFramesLog2: UInt8 = 4
  public init() {}

  /// Whether a machine can be made from these. A shell asks before it makes one from a caller's figures or a log's.
  public var isUsable: Bool {
    let sizes = [caches.deviceContext, caches.pasid, caches.iotlb, caches.walk, caches.cpuTLB]
    let slots = [limits.addressSpaces, limits.domains, limits.devices, limits.subscribers]
    // Physical addresses have 40 bits; handles have 16-bit slots, operations 12-bit ones; a group counts in 16 bits.
    return (2...1 << 28).contains(frameCount) && cpuCount > 0 && gatherBatch > 0 && handlerWorkers > 0
      && (1...1 << 16).contains(flushQueueEntries)
      && (1...0x7fff).contains(pageRequestQueueCapacity) && limits.operations <= 4096 && chunkFramesLog2 <= 10
      && sizes.allSatisfy { $0.nonzeroBitCount == 1 && $0 <= 1 << 20 } && slots.allSatisfy { $0 <= 0xffff }
  }
}

public enum RecycleOrder: UInt8, Sendable, CaseIterable {
  /// As Linux's per-CPU lists: the frame freed last is given out first.
  case lastInFirstOut
  case firstInFirstOut
  /// Any free frame, by the machine's seed.
  case random
}

/// What happens to an access that earns a verdict, after it was recorded.
public enum OracleAction: UInt8, Sendable, CaseIterable { case perform, block, poison }

/// Entries of each cache of the IOMMU and of a CPU's TLB; powers of two.
public struct CacheSizes: Equatable, Sendable {
  public var deviceContext: UInt32 = 64
  public var pasid: UInt32 = 256
  public var iotlb: UInt32 = 4096
  public var walk: UInt32 = 1024
  public var cpuTLB: UInt32 = 512
  public init() {}
}

/// Bounds on what one machine may hold; a breach is `Refusal.limitReached` with the figure.
public struct Limits: Equatable, Sendable {
  public var addressSpaces: UInt32 = 256
  public var areasPerAddressSpace: UInt32 = 65_536
  public var domains: UInt32 = 1024
  public var devices: UInt32 = 1024
  public var operations: UInt32 = 4096
  public var dmaInFlightPerDevice: UInt32 = 4096
  public var subscribers: UInt32 = 1024
  public init() {}
}
