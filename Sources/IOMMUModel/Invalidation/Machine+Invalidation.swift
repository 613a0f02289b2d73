// SPDX-License-Identifier: Apache-2.0

/// Invalidations of device caches: pushed under one of 32 tags, completed by the device, or ended by a fence.
extension Machine {
  /// Pushes an invalidation to the binding's device, or queues it for a free tag, and adds what the operation waits for.
  mutating func pushInvalidation(
    to id: BindingID, _ range: PageRange, _ operation: inout Operation, _ effects: inout Effects
  ) {
    let binding = bindings[id]
    let device = binding.device
    // The fence command: what passed the IOMMU untranslated before the flush lands before the wait is over.
    if devices[device].posted.contains(where: { if case .dma(let dma) = $0 { !dma.request.translated } else { false } }) {
      devices[device].posted.append(.drain(operation.id))
      operation.owed += 1
    }
    guard binding.strategy.flushesATC, devices[device].profile.ats, !devices[device].fenced else { return }
    operation.owed += 1
    let queued = QueuedInvalidation(operation: operation.id, pasid: binding.pasid, range: range)
    if devices[device].itagQueue.isEmpty, let itag = devices[device].itags.firstIndex(where: { $0.state == .idle }) {
      push(queued, device, itag, &effects)
    } else {
      devices[device].itagQueue.append(queued)
    }
  }

  private mutating func push(
    _ queued: QueuedInvalidation, _ id: DeviceID, _ itag: Int, _ effects: inout Effects
  ) {
    let sizeLog2 = queued.range.coveringBlockSizeLog2
    devices[id].order += 1
    let invalidation = Invalidation(
      itag: UInt8(itag), pasid: queued.pasid,
      first: queued.range.first & ~(1 << UInt64(sizeLog2 - Page.sizeLog2) - 1), sizeLog2: sizeLog2,
      order: devices[id].order)
    let timeout = pending.schedule(
      .timeout(id, itag: UInt8(itag)), at: time + dilated(settings.invalidationTimeout))
    devices[id].itags[itag] = ITag(
      state: .owed, invalidation: invalidation, pushedAt: time, operation: queued.operation, timeoutTurn: timeout)
    effects.counters.invalidations += 1
    if devices[id].grants.hasLive(queued.pasid, invalidation.range) { effects.counters.liveHits += 1 }
    effects.append(.invalidation(id, invalidation))
  }

  /// Takes an Invalidate Completion; it takes effect behind the DMA that arrived before it.
  mutating func post(
    _ id: DeviceID, completion vector: UInt32, _ effects: inout Effects
  ) throws(Refusal) {
    try require(id)
    if devices[id].posted.isEmpty {
      complete(id, vector, &effects)
    } else {
      guard devices[id].completionsPosted < Device.completionsPostedLimit else {
        throw Refusal(.limitReached, .device, figure: UInt64(Device.completionsPostedLimit))
      }
      devices[id].completionsPosted += 1
      devices[id].posted.append(.completion(itagVector: vector))
    }
  }

  /// Applies a completion: retires the grants that its invalidations cover and that are older, and frees the tags.
  mutating func complete(_ id: DeviceID, _ vector: UInt32, _ effects: inout Effects) {
    var rest = vector
    while rest != 0 {
      let itag = rest.trailingZeroBitCount
      rest &= rest - 1
      let tag = devices[id].itags[itag]
      guard tag.state == .owed else {
        effects.counters.unexpectedCompletions += 1
        effects.append(.device(id, .ignored(.unexpectedCompletion)))
        continue
      }
      devices[id].grants.retire(tag.invalidation.pasid, tag.invalidation.range, before: tag.invalidation.order)
      devices[id].itags[itag].state = .idle
      effects.counters.completions += 1
      effects.append(
        .invalidationEnded(id, InvalidationEnd(itag: UInt8(itag), kind: .completed, nanoseconds: time - tag.pushedAt)))
      settle(tag.operation)
    }
    while !devices[id].itagQueue.isEmpty,
      let itag = devices[id].itags.firstIndex(where: { $0.state == .idle })
    {
      push(devices[id].itagQueue.removeFirst(), id, itag, &effects)
    }
  }

  /// One thing less that an operation waits for.
  mutating func settle(_ id: OperationID) {
    guard operations[id.slot]?.id == id else { return }
    operations[id.slot]!.owed -= 1
    if operations[id.slot]!.owed == 0 { wake(id) }
  }

  /// A device did not answer in time: it is fenced first, then the waits complete.
  mutating func fence(_ id: DeviceID, _ effects: inout Effects) {
    devices[id].fenced = true
    effects.counters.fenced += 1
    effects.append(.device(id, .fenced(.invalidationTimedOut)))
    endInvalidations(id, culprit: time, .fenced, &effects)
  }

  /// Ends all that a device owes. Its tags are dead for this epoch.
  /// - Parameter culprit: invalidations whose time-out is due by then count as timed out.
  mutating func endInvalidations(
    _ id: DeviceID, culprit: Nanoseconds?, _ kind: InvalidationEnd.Kind, _ effects: inout Effects
  ) {
    for itag in 0..<ITag.count where devices[id].itags[itag].state == .owed {
      let tag = devices[id].itags[itag]
      devices[id].itags[itag].state = .dead
      let late = culprit.map { tag.pushedAt + dilated(settings.invalidationTimeout) <= $0 } ?? false
      if late { effects.counters.timeouts += 1 }
      effects.append(
        .invalidationEnded(
          id,
          InvalidationEnd(itag: UInt8(itag), kind: late ? .timedOut : kind, nanoseconds: time - tag.pushedAt)))
      settle(tag.operation)
    }
    let queued = devices[id].itagQueue
    devices[id].itagQueue.removeAll()
    for waiting in queued { settle(waiting.operation) }
  }
}
