// SPDX-License-Identifier: Apache-2.0

/// The canonical byte form of a machine's whole state: equal states give equal bytes, whatever their history.
/// Containers are written in key order; what is void or free is written only where the future depends on it.
extension Machine {
  public func encode(to encoder: inout ByteEncoder) {
    settings.encode(to: &encoder)
    encoder.put(time)
    encoder.put(turn)
    encoder.put(costGenerator.state)
    encoder.put(serviceGenerator.state)
    encoder.put(lastOperationNumber)
    encoder.put(lastEpoch)
    for slots in [spaces.handleState, domains.handleState, devices.handleState, bindings.handleState]
      + [subscribers.handleState, files.handleState].filter({ !$0.isEmpty })
    {
      encoder.put(slots.count)
      for word in slots { encoder.put(word) }
    }
    encoder.put(freeOperationSlots.count)
    for slot in freeOperationSlots { encoder.put(slot) }
    encodeMemory(&encoder)
    encodeSpaces(&encoder)
    encodeDevices(&encoder)
    encodeSubscribers(&encoder)
    encodeOperations(&encoder)
    encodeCaches(&encoder)
    for record in history.records {
      encoder.put(record.operation.rawValue)
      encoder.put(record.kind.rawValue)
      encoder.put(record.startedAt)
      encoder.put(record.flushedAt)
    }
  }

  /// Our own hash over the canonical bytes.
  public func stateHash() -> UInt64 {
    var encoder = ByteEncoder()
    encode(to: &encoder)
    var digest = Digest()
    digest.combine(UInt64(encoder.bytes.count))
    var word: UInt64 = 0
    for (index, byte) in encoder.bytes.enumerated() {
      word = word << 8 | UInt64(byte)
      if index & 7 == 7 {
        digest.combine(word)
        word = 0
      }
    }
    digest.combine(word)
    return digest.value
  }

  private func encodeMemory(_ encoder: inout ByteEncoder) {
    encoder.put(memory.generatorState)
    encoder.put(memory.createdFrameCount)
    for number in 0..<memory.createdFrameCount {
      let frame = memory[FrameNumber(number)]
      encoder.put(frame.generation)
      encoder.put(frame.references)
      encoder.put(frame.use.rawValue | (frame.deviceOwner == 0 ? 0 : 16))
      if frame.deviceOwner != 0 { encoder.put(frame.deviceOwner) }
      encoder.put(frame.blockLog2)
      encoder.put(frame.explained)
      encoder.put(frame.checksum)
      encode(frame.freedBy, &encoder)
      if frame.words >= 0 {
        for index in 0..<Page.wordCount {
          let word = memory.load(FrameNumber(number), index)
          if word != 0 {
            encoder.put(index + 1)
            encoder.put(word)
          }
        }
      }
      encoder.put(0)
    }
    for slot in swap.slots.dropFirst() {
      encoder.put(slot.references)
      encode(slot.page, &encoder)
    }
    for slot in swap.free { encoder.put(slot) }
    for id in files.ids {
      encoder.put(id.rawValue)
      encoder.put(files[id].pageCount)
      encoder.put(files[id].level)
      for (page, cached) in files[id].sorted {
        encoder.put(page)
        encoder.put(cached.frame)
        encoder.put(cached.isDirty)
        encode(cached.stored, &encoder)
      }
    }
    encoder.put(memory.freeList.count)
    for frame in memory.freeList { encoder.put(frame) }
    for frame in memory.freeBlockList { encoder.put(frame) }
    for lock in tableLocks.held + pageLocks.held {
      encoder.put(lock.frame)
      encoder.put(lock.holder.rawValue)
      for waiter in lock.waiting { encoder.put(waiter.rawValue) }
    }
  }

  private func encode(_ page: StoredPage, _ encoder: inout ByteEncoder) {
    for (index, value) in page.words {
      encoder.put(index + 1)
      encoder.put(value)
    }
    encoder.put(0)
  }

  private func encodeSpaces(_ encoder: inout ByteEncoder) {
    encoder.put(spaces.count)
    for id in spaces.ids {
      let space = spaces[id]
      encoder.put(id.rawValue)
      encoder.put(space.root)
      encoder.put((space.exiting ? 1 : 0) | (space.beingForked ? 2 : 0) | (space.reaped ? 4 : 0))
      for binding in space.bindings { encoder.put(binding.rawValue) }
      for area in space.areas.list {
        area.range.encode(to: &encoder)
        encoder.put(area.rights.rawValue)
        encoder.put(area.level)
        encoder.put(area.sinceTurn)
        encoder.put(area.writableSinceTurn)
        if let file = area.file {
          encoder.put(file.file.rawValue)
          encoder.put(file.offset)
          encoder.put(file.isShared)
        }
      }
      for (key, table) in space.deposits.sorted {
        encoder.put(key.page)
        encoder.put(table)
      }
      encode(space.lock, &encoder)
      encoder.put(space.emptyTable.count)
      encoder.put(space.emptyTable.racyCount)
      encoder.put(space.emptyTable.holder.rawValue)
      for waiter in space.emptyTable.waiting { encoder.put(waiter.rawValue) }
      encode(space.notifier, &encoder)
      encode(space.references, &encoder)
      encode(space.flushQueue, &encoder)
    }
    // Nothing lies there until the kernel maps its first page.
    if kernel.root != 0 {
      encoder.put(kernel.root)
      encode(kernel.lock, &encoder)
      encode(kernel.references, &encoder)
    }
    encoder.put(domains.count)
    for id in domains.ids {
      let domain = domains[id]
      encoder.put(id.rawValue)
      encoder.put(domain.kind.rawValue)
      encoder.put(domain.root)
      for binding in domain.bindings { encoder.put(binding.rawValue) }
      encode(domain.lock, &encoder)
      encode(domain.references, &encoder)
    }
    encoder.put(bindings.count)
    for id in bindings.ids {
      let binding = bindings[id]
      encoder.put(id.rawValue)
      encoder.put(binding.device.rawValue)
      encoder.put(binding.pasid)
      encoder.put(Self.tag(binding.target))
      binding.strategy.encode(to: &encoder)
      encoder.put(binding.root)
      encoder.put(binding.rootGeneration)
      encoder.put(binding.table.rawValue)
      encoder.put(binding.detaching)
    }
  }

  private func encode(_ queue: FlushQueue, _ encoder: inout ByteEncoder) {
    encoder.put(queue.entries.count)
    for entry in queue.entries {
      encoder.put(entry.sequence)
      encoder.put(entry.operation.rawValue)
      entry.range.encode(to: &encoder)
      encoder.put((entry.keepsTables ? 1 : 0) | (entry.keepsFrames ? 2 : 0))
      encoder.put(entry.tables.count)
      for frame in entry.tables + entry.frames { encoder.put(frame) }
      encode(entry.dropped, &encoder)
    }
    encoder.put(queue.inFlight)
    encoder.put(queue.flush.rawValue)
    encoder.put(queue.timer)
    encoder.put(queue.isOverdue)
    encoder.put(queue.lastSequence)
    for waiter in queue.waiting { encoder.put(waiter.rawValue) }
  }

  private func encode(_ dropped: [Dropped], _ encoder: inout ByteEncoder) {
    for page in dropped {
      encoder.put(page.page)
      encoder.put(page.level)
      encoder.put(page.frame)
      encoder.put(page.generation)
    }
  }

  private func encode(_ lock: MmapLock, _ encoder: inout ByteEncoder) {
    encoder.put(lock.readers)
    encoder.put(lock.writer.rawValue)
    for waiter in lock.waiting {
      encoder.put(waiter.operation.rawValue)
      encoder.put(waiter.mode.rawValue)
    }
  }

  private func encode(_ references: References, _ encoder: inout ByteEncoder) {
    for (key, reference) in references.sorted {
      encoder.put(key.owner)
      encoder.put(key.page)
      encoder.put(reference.frame)
      encoder.put(reference.generation)
      encoder.put(reference.rights.rawValue)
      encoder.put(reference.held)
      encoder.put(reference.changedTurn)
      encode(reference.by, &encoder)
      encoder.put(reference.replacedFrame)
      encoder.put(reference.replacedGeneration)
      encoder.put(reference.usedByCPU)
    }
  }

  func encode(_ stamp: OperationStamp, _ encoder: inout ByteEncoder) {
    encoder.put(stamp.operation.rawValue)
    encoder.put(stamp.at)
  }

  private func encodeDevices(_ encoder: inout ByteEncoder) {
    encoder.put(devices.count)
    for id in devices.ids {
      let device = devices[id]
      encoder.put(id.rawValue)
      encoder.put(device.epoch)
      Command.registerDevice(device.profile).encode(to: &encoder)
      for binding in device.bindings { encoder.put(binding.rawValue) }
      encoder.put(device.fenced)
      encoder.put(device.order)
      encoder.put(device.priEnabled)
      encoder.put(device.allocation)
      encoder.put(device.outstanding)
      for group in device.groups { encoder.put(UInt64(group.members) << 1 | (group.closed ? 1 : 0)) }
      for entry in device.partial { encode(entry, &encoder) }
      for tag in device.itags {
        encoder.put(tag.state.rawValue)
        if tag.state == .owed {
          encode(tag.invalidation, &encoder)
          encoder.put(tag.pushedAt)
          encoder.put(tag.operation.rawValue)
          encoder.put(tag.timeoutTurn)
        }
      }
      for waiting in device.itagQueue {
        encoder.put(waiting.operation.rawValue)
        encoder.put(waiting.pasid)
        waiting.range.encode(to: &encoder)
      }
      encoder.put(device.lastLanding)
      encoder.put(device.posted.count)
      for item in device.posted {
        switch item {
        case .dma(let dma):
          Command.dma(id, dma.request).encode(to: &encoder)
          encoder.put(dma.physicalAddress)
          encoder.put(dma.landsAt)
          encoder.put(dma.translation != nil)
          if let grant = dma.translation { encode(grant, &encoder) }
        case .completion(let vector): encoder.put(UInt64(vector) | 1 << 40)
        case .drain(let operation): encoder.put(operation.rawValue | 1 << 62)
        }
      }
      for (key, grants) in device.grants.sorted {
        encoder.put(key.owner)
        encoder.put(key.page)
        encoder.put(grants.count)
        for grant in grants { encode(grant, &encoder) }
      }
      for (key, attempt) in device.attempts.sorted {
        encoder.put(key.owner)
        encoder.put(key.page)
        encoder.put(attempt.sinceTurn)
        encoder.put(attempt.sinceTime)
        encoder.put(attempt.requests)
        encoder.put(attempt.rights.rawValue)
        encoder.put(attempt.needless)
        encoder.put(attempt.successes)
        encoder.put(attempt.changedTurn)
      }
    }
  }

  private func encode(_ entry: QueuedPageRequest, _ encoder: inout ByteEncoder) {
    Command.pageRequest(entry.device, entry.request).encode(to: &encoder)
    encoder.put(entry.arrivedAt)
  }

  private func encode(_ invalidation: Invalidation, _ encoder: inout ByteEncoder) {
    encoder.put(invalidation.pasid)
    encoder.put(invalidation.first)
    encoder.put(invalidation.sizeLog2)
    encoder.put(invalidation.order)
  }

  private func encode(_ grant: Grant, _ encoder: inout ByteEncoder) {
    encoder.put(grant.frame)
    encoder.put(grant.generation)
    encoder.put(grant.level)
    encoder.put(grant.rights.rawValue)
    encoder.put(grant.via.rawValue)
    encoder.put((grant.throughFreedTable ? 1 : 0) | (grant.retired ? 2 : 0))
    encoder.put(grant.order)
    encoder.put(grant.at)
  }

  private func encodeOperations(_ encoder: inout ByteEncoder) {
    encoder.put(operationCount)
    for case let operation? in operations {
      encoder.put(operation.id.rawValue)
      encoder.put(operation.kind.rawValue)
      encoder.put(operation.target.map(Self.tag) ?? 0)
      encoder.put(operation.acceptedAt)
      encoder.put(operation.step)
      operation.range.encode(to: &encoder)
      operation.window.encode(to: &encoder)
      encoder.put(operation.cursor)
      encoder.put(operation.rights.rawValue)
      encoder.put(operation.level)
      encoder.put(operation.destination)
      encoder.put(operation.keeper?.rawValue ?? 0)
      if let access = operation.cpuAccess, let space = operation.space {
        OperationRequest.cpuAccess(space, access).encode(to: &encoder)
      }
      if let (device, pasid, binding) = operation.detached {
        encoder.put(device.rawValue)
        encoder.put(pasid)
        encoder.put(binding.rawValue)
      }
      encoder.put(operation.status.rawValue)
      encoder.put(operation.value)
      encoder.put(operation.turn)
      encoder.put(
        (operation.heldLock ? 1 : 0) | (operation.countedInEmptyTable ? 2 : 0) | (operation.countedDown ? 4 : 0)
          | (operation.restoresRacy ? 8 : 0) | (operation.flushesWhole ? 16 : 0) | (operation.forcesFlush ? 32 : 0)
          | (operation.isAnswered ? 64 : 0) | (operation.isTold ? 128 : 0) | (operation.isRefused ? 256 : 0)
          | (operation.isWindowOpen ? 512 : 0))
      if let file = operation.file {
        encoder.put(file.file.rawValue)
        encoder.put(file.firstPage)
        encoder.put(file.isShared)
      }
      encoder.put(operation.telling.rawValue)
      for subscriber in operation.awaitEnd + operation.awaitFinish { encoder.put(subscriber.rawValue) }
      if let fault = operation.mirrorFault {
        encoder.put(fault.subscriber.rawValue)
        encoder.put(fault.sequence)
        encoder.put(operation.owner)
      }
      for frame in operation.gathered + operation.tables { encoder.put(frame) }
      for page in operation.pagesOut {
        encoder.put(page.page)
        encoder.put(page.frame)
        encoder.put(page.slot)
        encoder.put(page.isUnmapped)
      }
      encoder.put(operation.gatherFirst)
      encoder.put(operation.gatherEnd)
      encode(operation.dropped, &encoder)
      encoder.put(operation.lockedTable)
      encoder.put(operation.lockedDestination)
      encoder.put(operation.lockedPage)
      encoder.put(operation.flushPhase)
      encoder.put(operation.owed)
      for binding in operation.flushes { encoder.put(binding.rawValue) }
      operation.flushRange.encode(to: &encoder)
      encoder.put(operation.queued)
      encoder.put(operation.fault.page)
      encoder.put(operation.fault.wanted.rawValue)
      encoder.put(operation.fault.index)
      encoder.put(operation.fault.code.rawValue)
      encoder.put(operation.fault.level)
      encoder.put(operation.fault.oldFrame)
      encoder.put(operation.fault.oldEntry)
      encoder.put(operation.fault.newFrame)
      encoder.put(
        (operation.fault.lost ? 1 : 0) | (operation.fault.ownsOldFrame ? 2 : 0) | (operation.fault.ownsNewFrame ? 4 : 0)
          | (operation.fault.copiesLate ? 8 : 0) | (operation.fault.splits ? 128 : 0)
          | (operation.fault.newRights == .readWrite ? 0 : 16 | Int(operation.fault.newRights.rawValue) << 5)
      )
      if let group = operation.group { encode(group, &encoder) }
      encoder.put(operation.child?.rawValue ?? 0)
    }
    encoder.put(queue.entries.count)
    for entry in queue.entries { encode(entry, &encoder) }
    encoder.put((queue.overflowed ? 1 : 0) | (queue.interruptPending ? 2 : 0))
    encoder.put(handler.idleWorkers)
    for group in handler.groups { encode(group, &encoder) }
    for operation in drains { encoder.put(operation.rawValue) }
    for space in flushesWanted { encoder.put(space.rawValue) }
    encoder.put(pending.lastSequence)
    for turn in enabledTurns() {
      encoder.put(turn.due)
      encoder.put(turn.sequence)
    }
  }

  private func encode(_ group: PageRequestGroup, _ encoder: inout ByteEncoder) {
    encoder.put(group.device.rawValue)
    encoder.put(group.index)
    encoder.put(group.count)
    for member in 0..<group.count { Command.pageRequest(group.device, group[member]).encode(to: &encoder) }
    encoder.put(group.arrivedAt)
    encoder.put(group.answered)
  }

  private func encodeCaches(_ encoder: inout ByteEncoder) {
    for slot in caches.contexts.slots {
      guard let (key, value) = caches.contexts.entry(at: slot) else { continue }
      encoder.put(slot)
      encoder.put(key.owner)
      encoder.put(value.device.rawValue)
    }
    for slot in caches.pasids.slots {
      guard let (key, value) = caches.pasids.entry(at: slot) else { continue }
      encoder.put(slot)
      encoder.put(key.owner)
      encoder.put(key.page)
      encoder.put(value.kind.rawValue)
      encoder.put(value.binding.rawValue)
      encoder.put(value.tag)
      encoder.put(value.root)
      encoder.put(value.rootGeneration)
    }
    for slot in caches.translations.slots {
      guard let (key, value) = caches.translations.entry(at: slot) else { continue }
      encoder.put(slot)
      encoder.put(key.owner)
      encoder.put(key.page)
      encoder.put(value.frame)
      encoder.put(value.generation)
      encoder.put(value.rights.rawValue)
      encoder.put((value.dirty ? 1 : 0) | (value.throughFreedTable ? 2 : 0))
    }
    for slot in caches.walks.slots {
      guard let (key, value) = caches.walks.entry(at: slot) else { continue }
      encoder.put(slot)
      encoder.put(key.owner)
      encoder.put(key.page)
      encoder.put(value.table)
      encoder.put(value.generation)
      encoder.put((value.writable ? 1 : 0) | (value.throughFreedTable ? 2 : 0))
    }
    for victims in [
      caches.contexts.victimOrder, caches.pasids.victimOrder, caches.translations.victimOrder, caches.walks.victimOrder,
    ] {
      for (set, victim) in victims.enumerated() where victim != 0 {
        encoder.put(set)
        encoder.put(victim)
      }
    }
    for (cpu, entries) in cpuTLB.entries.enumerated() {
      for case let entry? in entries {
        encoder.put(cpu)
        encoder.put(entry.space.rawValue)
        encoder.put(entry.page)
        encoder.put(entry.frame)
        encoder.put(entry.generation)
        encoder.put(entry.writable)
        encoder.put(entry.at)
      }
    }
  }
}
