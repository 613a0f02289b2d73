// SPDX-License-Identifier: Apache-2.0
import DeviceEndpoint

/// Everything that fixes a storm: every choice follows from the plan, and nothing in it depends on the strategy.
public struct StormPlan: Codable, Equatable, Sendable {
  /// Strategies in the order in which they run; the names go into `BindPasid` and nowhere else.
  public var strategies = [
    "flush-at-start", "flush-at-end", "empty-table", "invalidate-range", "invalidate-range-without-atc",
  ]
  public var seed: UInt64 = 1
  public var processes = 4
  public var devicesPerProcess = 8
  public var mutators = 2
  /// Accesses of all devices together, per strategy; rounded up to a whole number for each device.
  public var accesses: UInt64 = StormPlan.referenceAccesses
  /// The length of list that the mix of operations is stated for; other lengths get in proportion.
  public static let referenceAccesses: UInt64 = 262_144
  /// Every access is drawn once before the storm begins, for the workload's hash.
  public static let mostAccesses: UInt64 = 100_000_000
  static let rates = 0.001...1e9
  public var pattern = AccessPattern.random.rawValue
  public var writePermille: UInt32 = 500
  public var arrivals = DeviceSpec.Arrivals.Kind.closed
  /// Accesses per second of all devices together, in the open loops.
  public var rate: Double = 20_000
  public var burstSize: UInt64 = 16

  public var addressSpaces = 4
  /// Address spaces that each device is bound to, one PASID each.
  public var addressSpacesPerDevice = 1
  public var sharedPages: UInt64 = 256
  public var ownPages: UInt64 = 16
  public var wordsPerPage: UInt32 = 8
  public var concurrency = 4
  public var translationCacheEntries = 128
  public var priAllocation: UInt32 = 16
  public var groupMemberLimit = 4
  public var retryLimit: UInt32 = 8
  public var mix = OperationMix()
  /// Name of a misbehaviour that one device of each process shows; nil: none.
  public var misbehaviour: String?
  /// Kinds of mirrors: of each one process, with a mirror of every address space.
  public var mirrors: [String] = []

  /// Machine time between S's flush and E, ns.
  public var hold: UInt64 = 300_000
  public var gatherBatch: UInt32 = 8
  public var frameCount: UInt32 = 16_384
  public var pageRequestQueueCapacity: UInt32 = 512
  public var handlerWorkers: UInt32 = 16
  public var invalidationTimeout: UInt64 = 1_000_000_000
  /// Every modelled duration is zero: only the wire, the processes and the hold take time.
  public var zeroCosts = false
  /// Memory operations in today's order instead of that of 2014.
  public var isKernelOfNow = false
  /// Whether page tables of kernel memory are freed at once (the bug of 2025); nil: as the kernel does it.
  public var freesKernelTablesAtOnce: Bool?
  public init() {}

  public var devices: Int { processes * devicesPerProcess }
  public var accessesPerDevice: UInt64 { (accesses + UInt64(devices) - 1) / UInt64(devices) }
  public var totalAccesses: UInt64 { accessesPerDevice * UInt64(devices) }

  /// What is wrong with the plan, in words, or nil.
  public var complaint: String? {
    if strategies.isEmpty { return "no strategy: --strategies needs at least one name" }
    if processes < 1 || devicesPerProcess < 1 { return "a storm needs at least one device" }
    // Each device needs a place in the page-request queue, and the product below must not overflow.
    let most = Int(pageRequestQueueCapacity)
    if processes > most || devicesPerProcess > most || devices > most {
      return "a storm has at most \(most) devices, as many as the page-request queue has entries"
    }
    if mutators < 1 || mutators > addressSpaces {
      return "mutators: 1 to \(addressSpaces), one address space each at least"
    }
    if accesses < UInt64(devices) { return "--accesses: at least one for each of the \(devices) devices" }
    if accesses > Self.mostAccesses { return "--accesses: at most \(Self.mostAccesses)" }
    if arrivals != .closed && !Self.rates.contains(rate) {
      return "--rate: accesses per second, above 0, from \(Self.rates.lowerBound) to 1,000,000,000"
    }
    if priAllocation < 1 { return "--pri-allocation: at least one page request for each device" }
    let allocation = UInt64(devices) * UInt64(priAllocation)
    if allocation > UInt64(pageRequestQueueCapacity) {
      return "\(devices) devices with \(priAllocation) page requests each are \(allocation), and the page-request "
        + "queue holds \(pageRequestQueueCapacity): take fewer devices or --pri-allocation"
        + " \(max(1, Int(pageRequestQueueCapacity) / devices))"
    }
    if let complaintOfMirrors { return complaintOfMirrors }
    if let misbehaviour, !Misbehaviour.named.contains(where: { $0.name == misbehaviour }) {
      return "--misbehave: one of \(Misbehaviour.named.map(\.name).joined(separator: ", "))"
    }
    return nil
  }

  // MARK: What follows from the plan

  enum Purpose: UInt64 { case device = 1, ranks, operations, machine, stamps, mirror }
  func derivedSeed(_ purpose: Purpose, _ index: Int) -> UInt64 {
    // 53 bits: a JSON number that every reader keeps exactly.
    StreamGenerator.derived(seed, purpose.rawValue, UInt64(index)) >> 11
  }

  public static let sharedFirstPage: UInt64 = 0x7f5a0
  public static let ownFirstPage: UInt64 = 0x10000
  /// Where a mutator moves pages to, and from where it moves them back.
  public static let spareFirstPage: UInt64 = 0x20000
  /// Where a mutator maps kernel memory: a gigabyte of its own in the kernel's half.
  static func kernelFirstPage(ofPASID pasid: UInt32) -> UInt64 { 0xf_ffff_8000_0000 + UInt64(pasid) << 18 }
  /// Where a mutator maps 1 GiB of hugetlbfs, and the pages that a table of huge pages maps.
  static let hugetlbFirstPage: UInt64 = 8 << 18
  static let hugeTablePageCount: UInt64 = 1 << 18
  /// Pages of a huge page of 2 MiB.
  static let hugePageCount: UInt64 = 512

  /// The range of address space `index` that devices use. PASIDs count from 1 on.
  public func shared(_ index: Int) -> DeviceSpec.Target {
    DeviceSpec.Target(pasid: UInt32(index + 1), firstPage: Self.sharedFirstPage, pageCount: sharedPages)
  }
  public func own(_ index: Int) -> DeviceSpec.Target {
    DeviceSpec.Target(pasid: UInt32(index + 1), firstPage: Self.ownFirstPage, pageCount: ownPages)
  }

  /// Address spaces of device `index`.
  public func addressSpaces(ofDevice index: Int) -> [Int] {
    (0..<min(addressSpacesPerDevice, addressSpaces)).map { (index + $0) % addressSpaces }
  }

  /// Devices ask for kernel addresses, and the tables on the way are freed under them.
  public var hasKernelTableBug: Bool { mix.kernelMappings > 0 && freesKernelTablesAtOnce ?? !isKernelOfNow }

  public func device(_ index: Int) -> DeviceSpec {
    let misbehaves = misbehaviour != nil && index % devicesPerProcess == 0
    let bits = misbehaves ? Misbehaviour.named.first { $0.name == misbehaviour }!.value.rawValue : 0
    return DeviceSpec(
      device: "", seed: derivedSeed(.device, index), rankSeed: derivedSeed(.ranks, 0), accessCount: accessesPerDevice,
      targets: addressSpaces(ofDevice: index).map(shared), pattern: pattern, writePermille: writePermille,
      wordsPerPage: wordsPerPage, concurrency: concurrency, translationCacheEntries: translationCacheEntries,
      priAllocation: priAllocation, groupMemberLimit: groupMemberLimit, retryLimit: retryLimit,
      arrivals: DeviceSpec.Arrivals(
        kind: arrivals, interval: rate > 0 ? UInt64(1e9 * Double(devices) / rate) : 0, burstSize: burstSize),
      stampPrefix: UInt32(index + 1), misbehaviour: bits, asksForKernelPages: mix.kernelMappings > 0)
  }

  public func operations(_ addressSpace: Int) -> OperationList {
    OperationList(
      seed: derivedSeed(.operations, addressSpace),
      mix: mix.scaled(totalAccesses, over: Self.referenceAccesses, isKernelOfNow: isKernelOfNow),
      shared: shared(addressSpace), own: own(addressSpace))
  }

  /// Over every device's list of accesses, every list of operations, and what draws the accesses of mirrors. The strategy
  /// is no part of it.
  public var workloadHash: String {
    var hash = StreamHash()
    for index in 0..<devices { AccessStream.hash(device(index).workload, into: &hash) }
    for index in 0..<addressSpaces { operations(index).hash(into: &hash) }
    hashMirrors(into: &hash)
    let digits = String(hash.value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}
