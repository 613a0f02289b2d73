// SPDX-License-Identifier: Apache-2.0

extension Settings {
  func encode(to encoder: inout ByteEncoder) {
    encoder.put(seed)
    encoder.put(frameCount)
    encoder.put(recycleOrder.rawValue)
    encoder.put(cpuCount)
    encoder.put(gatherBatch)
    encoder.put(hold)
    encoder.put(costs.dilationMilli)
    for path in CostModel.all { costs[keyPath: path].encode(to: &encoder) }
    encoder.put(pageRequestQueueCapacity)
    encoder.put(handlerWorkers)
    encoder.put(invalidationTimeout)
    encoder.put(livelockLimit)
    encoder.put(oracleAction.rawValue)
    for size in [caches.deviceContext, caches.pasid, caches.iotlb, caches.walk, caches.cpuTLB] { encoder.put(size) }
    for limit in [
      limits.addressSpaces, limits.areasPerAddressSpace, limits.domains, limits.devices, limits.operations,
      limits.dmaInFlightPerDevice,
    ] { encoder.put(limit) }
    encoder.put(chunkFramesLog2)
    encoder.put(kernel.rawValue)
    encoder.put(orders.count)
    for order in orders { order.encode(to: &encoder) }
    encoder.put(flushQueueEntries)
    encoder.put(flushQueueTimeout)
    encoder.put(cachesRights)
    encoder.put(limits.subscribers)
    encoder.put(notifierTimeout)
    encoder.put(kernelTableFree.map { $0.rawValue + 1 } ?? 0)
  }

  init(from decoder: inout ByteDecoder, version: UInt64 = Log.version) throws(LogError) {
    self.init()
    seed = try decoder.number()
    frameCount = try decoder.number(UInt32.self)
    recycleOrder = try decoder.value(RecycleOrder.self)
    cpuCount = try decoder.number(UInt8.self)
    gatherBatch = try decoder.number(UInt32.self)
    hold = try decoder.number()
    costs.dilationMilli = try decoder.number()
    for path in CostModel.all { costs[keyPath: path] = try Distribution(from: &decoder) }
    pageRequestQueueCapacity = try decoder.number(UInt32.self)
    handlerWorkers = try decoder.number(UInt32.self)
    invalidationTimeout = try decoder.number()
    livelockLimit = try decoder.number(UInt32.self)
    oracleAction = try decoder.value(OracleAction.self)
    caches.deviceContext = try decoder.number(UInt32.self)
    caches.pasid = try decoder.number(UInt32.self)
    caches.iotlb = try decoder.number(UInt32.self)
    caches.walk = try decoder.number(UInt32.self)
    caches.cpuTLB = try decoder.number(UInt32.self)
    limits.addressSpaces = try decoder.number(UInt32.self)
    limits.areasPerAddressSpace = try decoder.number(UInt32.self)
    limits.domains = try decoder.number(UInt32.self)
    limits.devices = try decoder.number(UInt32.self)
    limits.operations = try decoder.number(UInt32.self)
    limits.dmaInFlightPerDevice = try decoder.number(UInt32.self)
    chunkFramesLog2 = try decoder.number(UInt8.self)
    if version >= 2 {
      kernel = try decoder.value(KernelColumn.self)
      let count = try decoder.number()
      guard count <= UInt64(OperationKind.allCases.count) else { throw .malformed(offset: decoder.offset) }
      for _ in 0..<count { orders.append(try UserOrder(from: &decoder)) }
    }
    if version >= 3 {
      flushQueueEntries = try decoder.number(UInt32.self)
      flushQueueTimeout = try decoder.number()
      cachesRights = try decoder.flag()
      limits.subscribers = try decoder.number(UInt32.self)
      notifierTimeout = try decoder.number()
    }
    if version >= 4 {
      let free = try decoder.number(UInt8.self)
      kernelTableFree = free == 0 ? nil : KernelTableFree(rawValue: free - 1)
      guard free == 0 || kernelTableFree != nil else { throw .malformed(offset: decoder.offset) }
    }
  }
}

extension UserOrder {
  func encode(to encoder: inout ByteEncoder) {
    encoder.put(kind.rawValue)
    encoder.put(column.rawValue)
    for words in [letters, batch] {
      encoder.put(words.count)
      for word in words { encoder.put(word) }
    }
  }

  init(from decoder: inout ByteDecoder) throws(LogError) {
    let kind = try decoder.value(OperationKind.self)
    let column = try decoder.value(KernelColumn.self)
    var lists: [[String]] = []
    for _ in 0..<2 {
      let count = try decoder.number()
      guard count <= UInt64(UserOrder.letterLimit) else { throw .malformed(offset: decoder.offset) }
      var words: [String] = []
      for _ in 0..<count { words.append(try decoder.text()) }
      lists.append(words)
    }
    do throws(Mistake) {
      try self.init(kind, column, letters: lists[0], batch: lists[1])
    } catch {
      throw .malformed(offset: decoder.offset)
    }
  }
}

extension Distribution {
  /// A share has ten bits; the lean stands above the first one.
  private static let leanShift: UInt32 = 10

  func encode(to encoder: inout ByteEncoder) {
    for (index, bucket) in [a, b, c].enumerated() {
      encoder.put(index == 0 ? bucket.upTo | lean << Self.leanShift : bucket.upTo)
      encoder.put(bucket.low)
      encoder.put(bucket.high)
    }
  }

  init(from decoder: inout ByteDecoder) throws(LogError) {
    var buckets: [Bucket] = []
    var lean: UInt32 = 0
    for index in 0..<3 {
      var upTo = try decoder.number(UInt32.self)
      if index == 0 {
        lean = upTo >> Self.leanShift
        upTo &= 1 << Self.leanShift - 1
        guard lean <= 1000 else { throw .malformed(offset: decoder.offset) }
      }
      let low = try decoder.number(UInt32.self)
      buckets.append(Bucket(upTo: upTo, low, try decoder.number(UInt32.self)))
    }
    self.init(buckets[0], buckets[1], buckets[2], lean: lean)
  }
}
