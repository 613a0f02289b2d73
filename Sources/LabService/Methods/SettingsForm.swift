// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol

// Settings between the contract and the model. Bounds stand here, because the model trusts its settings: durations are
// bounded so that sums of them times the dilation stay within 64 bits.
extension Settings {
  init(_ message: LabMachineSettings) throws(CallError) {
    self.init()
    if message.hasSeed { seed = message.seed }
    if message.hasFrameCount { frameCount = try within(message.frameCount, 16...(1 << 24), "frameCount") }
    switch message.recycleOrder {
    case .unspecified, .lastInFirstOut: recycleOrder = .lastInFirstOut
    case .firstInFirstOut: recycleOrder = .firstInFirstOut
    case .random: recycleOrder = .random
    case .UNRECOGNIZED: throw .wire(WireError(.unknownValue, field: "recycleOrder"))
    }
    switch message.kernel {
    case .unspecified, .kernel2014: kernel = .linux2014
    case .now: kernel = .now
    case .UNRECOGNIZED: throw .wire(WireError(.unknownValue, field: "kernel"))
    }
    switch message.kernelTableFree {
    case .unspecified: kernelTableFree = nil
    case .sync: kernelTableFree = .atOnce
    case .async: kernelTableFree = .afterFlush
    case .UNRECOGNIZED: throw .wire(WireError(.unknownValue, field: "kernelTableFree"))
    }
    for order in message.orders {
      guard let kind = OperationKind(order.operation) else {
        throw .service(.badSettings, "an order needs an operation", fields: ["settings.orders.operation"])
      }
      guard !orders.contains(where: { $0.kind == kind }) else {
        throw .service(
          .badSettings, "there are two orders for \(kind.identifier)", fields: ["settings.orders.operation"])
      }
      do throws(UserOrder.Mistake) {
        orders.append(
          try UserOrder(
            kind, kernel, letters: order.letters, batch: order.batch.isEmpty ? UserOrder.usualBatch : order.batch))
      } catch {
        throw .service(.badSettings, error.text, fields: ["settings.orders"])
      }
    }
    if message.hasCpuCount { cpuCount = UInt8(try within(message.cpuCount, 1...64, "cpuCount")) }
    if message.hasGatherBatchPages {
      gatherBatch = try within(message.gatherBatchPages, 1...10_240, "gatherBatchPages")
    }
    if message.hasHoldNanoseconds { hold = try within(message.holdNanoseconds, 0...60_000_000_000, "holdNanoseconds") }
    costs = try CostModel(message.costs)
    if message.hasPageRequestQueueCapacity {
      pageRequestQueueCapacity = try within(message.pageRequestQueueCapacity, 1...0x7fff, "pageRequestQueueCapacity")
    }
    if message.hasHandlerWorkers { handlerWorkers = try within(message.handlerWorkers, 1...1024, "handlerWorkers") }
    if message.hasInvalidationTimeoutNanoseconds {
      invalidationTimeout = try within(
        message.invalidationTimeoutNanoseconds, 1...3_600_000_000_000, "invalidationTimeoutNanoseconds")
    }
    if message.hasNotifierTimeoutNanoseconds {
      notifierTimeout = try within(
        message.notifierTimeoutNanoseconds, 1...3_600_000_000_000, "notifierTimeoutNanoseconds")
    }
    if message.hasLivelockLimit { livelockLimit = try within(message.livelockLimit, 1...1_000_000, "livelockLimit") }
    if message.hasFlushQueueEntries {
      flushQueueEntries = try within(message.flushQueueEntries, 1...65_536, "flushQueueEntries")
    }
    if message.hasFlushQueueTimeoutNanoseconds {
      flushQueueTimeout = try within(
        message.flushQueueTimeoutNanoseconds, 1...3_600_000_000_000, "flushQueueTimeoutNanoseconds")
    }
    if message.hasCachesRights { cachesRights = message.cachesRights }
    switch message.oracleAction {
    case .unspecified, .perform: oracleAction = .perform
    case .block: oracleAction = .block
    case .poison: oracleAction = .poison
    case .UNRECOGNIZED: throw .wire(WireError(.unknownValue, field: "oracleAction"))
    }
    let sizes = message.caches
    if sizes.hasDeviceContext { caches.deviceContext = try cacheSize(sizes.deviceContext, "deviceContext") }
    if sizes.hasPasid { caches.pasid = try cacheSize(sizes.pasid, "pasid") }
    if sizes.hasIotlb { caches.iotlb = try cacheSize(sizes.iotlb, "iotlb") }
    if sizes.hasWalk { caches.walk = try cacheSize(sizes.walk, "walk") }
    if sizes.hasCpuTlb { caches.cpuTLB = try cacheSize(sizes.cpuTlb, "cpuTlb") }
    let bounds = message.limits
    if bounds.hasAddressSpaces { limits.addressSpaces = try within(bounds.addressSpaces, 1...16_384, "addressSpaces") }
    if bounds.hasAreasPerAddressSpace {
      limits.areasPerAddressSpace = try within(bounds.areasPerAddressSpace, 1...65_536, "areasPerAddressSpace")
    }
    if bounds.hasDomains { limits.domains = try within(bounds.domains, 1...16_384, "domains") }
    if bounds.hasDevices { limits.devices = try within(bounds.devices, 1...16_384, "devices") }
    if bounds.hasSubscribers { limits.subscribers = try within(bounds.subscribers, 1...16_384, "subscribers") }
    if bounds.hasOperations { limits.operations = try within(bounds.operations, 1...4096, "operations") }
    if bounds.hasDmaInFlightPerDevice {
      limits.dmaInFlightPerDevice = try within(bounds.dmaInFlightPerDevice, 1...65_536, "dmaInFlightPerDevice")
    }
  }
}

private func within<Number: FixedWidthInteger>(
  _ value: Number, _ bounds: ClosedRange<Number>, _ field: String
) throws(CallError) -> Number {
  guard bounds.contains(value) else {
    throw .service(
      .badSettings, "\(field) must be \(bounds.lowerBound) to \(bounds.upperBound)", fields: ["settings.\(field)"])
  }
  return value
}

private func cacheSize(_ value: UInt32, _ field: String) throws(CallError) -> UInt32 {
  guard value.nonzeroBitCount == 1, value <= 1 << 20 else {
    throw .service(
      .badSettings, "\(field) must be a power of two, at most 1048576", fields: ["settings.caches.\(field)"])
  }
  return value
}

extension LabMachineSettings {
  /// Every field set.
  init(_ settings: Settings) {
    self.init()
    seed = settings.seed
    frameCount = settings.frameCount
    switch settings.recycleOrder {
    case .lastInFirstOut: recycleOrder = .lastInFirstOut
    case .firstInFirstOut: recycleOrder = .firstInFirstOut
    case .random: recycleOrder = .random
    }
    switch settings.kernelTableFree {
    case nil: kernelTableFree = .unspecified
    case .atOnce?: kernelTableFree = .sync
    case .afterFlush?: kernelTableFree = .async
    }
    switch settings.kernel {
    case .linux2014: kernel = .kernel2014
    case .now: kernel = .now
    }
    orders = settings.orders.map { order in
      .with {
        $0.operation = LabOperationKind(order.kind)
        $0.letters = order.letters
        $0.batch = order.batch
      }
    }
    cpuCount = UInt32(settings.cpuCount)
    gatherBatchPages = settings.gatherBatch
    holdNanoseconds = settings.hold
    costs = LabCostModel(settings.costs)
    pageRequestQueueCapacity = settings.pageRequestQueueCapacity
    handlerWorkers = settings.handlerWorkers
    invalidationTimeoutNanoseconds = settings.invalidationTimeout
    notifierTimeoutNanoseconds = settings.notifierTimeout
    livelockLimit = settings.livelockLimit
    flushQueueEntries = settings.flushQueueEntries
    flushQueueTimeoutNanoseconds = settings.flushQueueTimeout
    cachesRights = settings.cachesRights
    switch settings.oracleAction {
    case .perform: oracleAction = .perform
    case .block: oracleAction = .block
    case .poison: oracleAction = .poison
    }
    caches = .with {
      $0.deviceContext = settings.caches.deviceContext
      $0.pasid = settings.caches.pasid
      $0.iotlb = settings.caches.iotlb
      $0.walk = settings.caches.walk
      $0.cpuTlb = settings.caches.cpuTLB
    }
    limits = .with {
      $0.addressSpaces = settings.limits.addressSpaces
      $0.areasPerAddressSpace = settings.limits.areasPerAddressSpace
      $0.domains = settings.limits.domains
      $0.devices = settings.limits.devices
      $0.operations = settings.limits.operations
      $0.dmaInFlightPerDevice = settings.limits.dmaInFlightPerDevice
      $0.subscribers = settings.limits.subscribers
    }
  }
}

/// The durations of the model and their fields in the contract, stated once.
private let durations:
  [(
    name: String, has: @Sendable (LabCostModel) -> Bool,
    message: WritableKeyPath<LabCostModel, LabDistribution> & Sendable,
    model: WritableKeyPath<CostModel, Distribution> & Sendable
  )] = [
    ("start", { $0.hasStart }, \.start, \.start), ("end", { $0.hasEnd }, \.end, \.end),
    ("entry", { $0.hasEntry }, \.entry, \.entry),
    ("cpuFlush", { $0.hasCpuFlush }, \.cpuFlush, \.cpuFlush),
    ("frameFree", { $0.hasFrameFree }, \.frameFree, \.frameFree),
    ("iotlbFlush", { $0.hasIotlbFlush }, \.iotlbFlush, \.iotlbFlush),
    ("faultService", { $0.hasFaultService }, \.faultService, \.faultService),
    ("interrupt", { $0.hasInterrupt }, \.interrupt, \.interrupt),
    ("dmaLanding", { $0.hasDmaLanding }, \.dmaLanding, \.dmaLanding),
    ("cpuFault", { $0.hasCpuFault }, \.cpuFault, \.cpuFault),
  ]

extension CostModel {
  init(_ message: LabCostModel) throws(CallError) {
    switch message.preset {
    case .unspecified, .measured: self.init()
    case .zero: self = .zero
    case .UNRECOGNIZED: throw .wire(WireError(.unknownValue, field: "preset"))
    }
    if message.hasDilationMilli {
      dilationMilli = try within(message.dilationMilli, 1...1_000_000, "costs.dilationMilli")
    }
    for duration in durations where duration.has(message) {
      self[keyPath: duration.model] = try Distribution(message[keyPath: duration.message], duration.name)
    }
  }
}

extension LabCostModel {
  init(_ costs: CostModel) {
    self.init()
    preset = .measured
    dilationMilli = costs.dilationMilli
    for duration in durations { self[keyPath: duration.message] = LabDistribution(costs[keyPath: duration.model]) }
  }
}

extension Distribution {
  init(_ message: LabDistribution, _ name: String) throws(CallError) {
    var last: UInt32 = 0
    for bucket in message.buckets {
      guard bucket.upToThousandths > last, bucket.upToThousandths <= 1000,
        bucket.lowNanoseconds <= bucket.highNanoseconds, bucket.highNanoseconds <= 1_000_000_000
      else {
        throw .service(
          .badSettings, "buckets of \(name) must ascend to 1000 thousandths, with low ≤ high ≤ 1000000000 ns",
          fields: ["settings.costs.\(name)"])
      }
      last = bucket.upToThousandths
    }
    guard last == 1000, message.buckets.count <= 3 else {
      throw .service(
        .badSettings, "\(name) needs one to three buckets, the last up to 1000 thousandths",
        fields: ["settings.costs.\(name)"])
    }
    guard message.leanThousandths <= 1000 else {
      throw .service(
        .badSettings, "the lean of \(name) is a share of draws: at most 1000 thousandths",
        fields: ["settings.costs.\(name)"])
    }
    let buckets = message.buckets.map { Bucket(upTo: $0.upToThousandths, $0.lowNanoseconds, $0.highNanoseconds) }
    self.init(
      buckets[0], buckets.count > 1 ? buckets[1] : nil, buckets.count > 2 ? buckets[2] : nil,
      lean: message.leanThousandths)
  }
}

extension LabDistribution {
  init(_ distribution: Distribution) {
    self.init()
    leanThousandths = distribution.lean
    for bucket in [distribution.a, distribution.b, distribution.c] {
      if let last = buckets.last, last.upToThousandths >= bucket.upTo { break }
      buckets.append(
        .with {
          $0.upToThousandths = bucket.upTo
          $0.lowNanoseconds = bucket.low
          $0.highNanoseconds = bucket.high
        })
    }
  }
}
