// SPDX-License-Identifier: Apache-2.0

/// Whole-structure checks: tests and simulations call them after every command on machines of at most 256 frames.
/// Each traps with the values that contradict each other.
extension Machine {
  /// As `precondition`, but says its message in release builds too.
  func check(_ condition: Bool, _ message: @autoclosure () -> String) {
    if !condition { fatalError(message()) }
  }

  public func checkInvariants() {
    checkFrames()
    checkDevices()
    checkOperations()
    checkSubscribers()
  }

  /// Every frame is held exactly as often as tables, batches and pins hold it, and its content is explained.
  private func checkFrames() {
    var slots = [UInt32](repeating: 0, count: swap.slots.count)
    var held = [UInt32](repeating: 0, count: memory.createdFrameCount)
    for id in spaces.ids {
      held[Int(spaces[id].root)] += 1
      for (key, table) in spaces[id].deposits.sorted {
        held[Int(table)] += 1
        check(memory[table].use == .table, "the table kept for huge page \(key.page) is \(memory[table].use)")
      }
      countHeld(spaces[id].root, walker.format.levelCount - 1, 0, .addressSpace(id), &held, &slots)
      for entry in spaces[id].flushQueue.entries {
        for frame in entry.tables + entry.frames { held[Int(frame)] += 1 }
      }
    }
    for id in domains.ids where domains[id].kind == .paging {
      held[Int(domains[id].root)] += 1
      countHeld(domains[id].root, walker.format.levelCount - 1, 0, .domain(id), &held, &slots)
    }
    for id in files.ids {
      for (page, cached) in files[id].sorted where cached.frame != 0 {
        held[Int(cached.frame)] += 1
        check(
          memory[cached.frame].filePage == FilePage(file: id, page: UInt32(page)),
          "frame \(cached.frame) caches page \(page) of a file, and knows of \(memory[cached.frame].filePage)")
      }
    }
    if kernel.root != 0 {
      held[Int(kernel.root)] += 1
      countHeld(kernel.root, walker.format.levelCount - 1, KernelHalf.rootBase, .kernel, &held, &slots)
    }
    for case let operation? in operations {
      for frame in operation.gathered + operation.tables { held[Int(frame)] += 1 }
      for page in operation.pagesOut where page.slot != 0 { slots[Int(page.slot)] += 1 }
      if operation.fault.ownsNewFrame { held[Int(operation.fault.newFrame)] += 1 }
      if operation.fault.ownsOldFrame { held[Int(operation.fault.oldFrame)] += 1 }
    }
    for number in 1..<memory.createdFrameCount {
      let frame = memory[FrameNumber(number)]
      check(
        frame.references == held[number] || frame.use == .hugeTail,
        "frame \(number) counts \(frame.references) references, \(held[number]) hold it")
      check(
        (frame.use == .free) == (frame.references == 0) || frame.use == .hugeTail,
        "frame \(number) is \(frame.use) with \(frame.references) references")
      check(
        frame.use == .free || frame.explained || memory.checksumAgrees(FrameNumber(number)),
        "frame \(number) has content that no accounted write explains")
    }
    for slot in slots.indices {
      check(
        swap.slots[slot].references == slots[slot],
        "swap slot \(slot) counts \(swap.slots[slot].references) references, \(slots[slot]) hold it")
    }
    let free = memory.freeList
    check(Set(free).count == free.count, "a frame is free once")
    for frame in free {
      check(memory[frame].use == .free, "frame \(frame) is in the free list and \(memory[frame].use)")
    }
  }

  private func countHeld(
    _ table: FrameNumber, _ level: UInt8, _ base: PageNumber, _ target: Binding.Target, _ held: inout [UInt32],
    _ slots: inout [UInt32]
  ) {
    let span = UInt64(1) << (9 * UInt64(level))
    for index in 0..<Page.wordCount {
      let entry = PageTableEntry(bits: memory.load(table, index))
      if level == walker.format.levelCount - 1, target != .kernel, KernelHalf.rootEntries.contains(index) {
        checkKernelEntry(entry, index, target)
        continue
      }
      if entry.bits == 0 { continue }
      let page = base + UInt64(index) * span
      if level > 0 && entry.isTable {
        check(memory[entry.frame].use == .table, "entry of page \(page) points to table \(entry.frame)")
        held[Int(entry.frame)] += 1
        if held[Int(entry.frame)] == 1 {
          countHeld(entry.frame, level - 1, page, target, &held, &slots)
        } else {
          // What a shared table maps it holds once; every sharer has the references.
          var (again, slotsAgain) = (held, slots)
          countHeld(entry.frame, level - 1, page, target, &again, &slotsAgain)
        }
      } else if entry.isSwapped {
        slots[Int(entry.slot)] += 1
      } else {
        let frame = entry.leafFrame(level: level)
        held[Int(frame)] += 1
        let reference: Reference?
        switch target {
        case .addressSpace(let id): reference = spaces[id].references.find(page, level: level)
        case .domain(let id): reference = domains[id].references.find(page, level: level)
        case .kernel: reference = kernel.references.find(page, level: level)
        }
        check(
          reference?.held == true && reference?.frame == frame && reference?.generation == memory.generation(frame),
          "page \(page) maps frame \(frame), and the oracle's account says \(String(describing: reference))")
        check(
          reference!.rights == entry.rights, "page \(page) has rights \(entry.rights), the account \(reference!.rights)"
        )
      }
    }
  }

  /// Every address space has the kernel's tables in its root, and a domain has none.
  private func checkKernelEntry(_ entry: PageTableEntry, _ index: Int, _ target: Binding.Target) {
    var expected: UInt64 = 0
    if kernel.root != 0, case .addressSpace = target { expected = memory.load(kernel.root, index) }
    check(
      entry.bits & ~PageTableEntry.accessed == expected,
      "root entry \(index) of \(target) is \(entry.bits), the kernel's is \(expected)")
  }

  private func checkDevices() {
    for id in devices.ids {
      let device = devices[id]
      var members: UInt32 = 0
      for group in device.groups { members += UInt32(group.members) }
      check(device.outstanding == members, "device \(id.slot) has \(device.outstanding) of \(members) outstanding")
      check(device.outstanding <= device.allocation, "outstanding requests stay within the allocation")
      check(
        device.itagQueue.isEmpty || device.itags.allSatisfy { $0.state != .idle }, "none waits while a tag is idle")
      check(!device.fenced || device.itags.allSatisfy { $0.state != .owed }, "a fenced device owes nothing")
      for tag in device.itags where tag.state == .owed {
        check(
          kind(tag.operation) != nil && operations[tag.operation.slot]!.owed > 0,
          "an owed invalidation has an operation that waits")
      }
      var landings = 0
      for case .dma in device.posted { landings += 1 }
      check(landings == Int(device.dmaInFlight), "every DMA in flight is counted")
      for binding in device.bindings {
        check(bindings[binding].device == id, "a binding knows its device")
      }
    }
    check(queue.entries.count <= queue.capacity, "the page-request queue is bounded")
  }

  private func checkOperations() {
    var live = 0
    var serving = 0
    for case let operation? in operations {
      live += 1
      if operation.kind == .pageRequestGroup { serving += 1 }
      if operation.target == .kernel, operation.heldLock {
        check(kernel.lock.writer == operation.id, "the kernel's lock that an operation holds is held")
      }
      if let space = operation.space, spaces.contains(space), operation.heldLock {
        let lock = spaces[space].lock
        check(lock.writer == operation.id || lock.readers > 0, "the lock that an operation holds is held")
      }
    }
    check(live == operationCount, "\(live) operations run, \(operationCount) are counted")
    check(
      serving + handler.idleWorkers == Int(settings.handlerWorkers), "every worker serves a group or is idle")
    for id in spaces.ids {
      let lock = spaces[id].lock
      check(lock.writer == .none || lock.readers == 0, "a writer is alone")
      checkFlushQueue(id)
    }
  }

  private func checkFlushQueue(_ id: AddressSpaceID) {
    let queue = spaces[id].flushQueue
    check(queue.waitingCount <= Int(settings.flushQueueEntries), "a flush queue is bounded")
    check(queue.timer == 0 || pending.sorted.contains { $0.sequence == queue.timer }, "a timer that runs will end")
    check(queue.inFlight == 0 || queue.flush != .none, "what is in flight has its flush")
    check(queue.flush == .none || kind(queue.flush) == .flushQueue, "the flush of a queue runs")
    check(
      queue.waitingCount == 0 || queue.flush != .none || queue.timer != 0 || flushesWanted.contains(id),
      "what waits in a flush queue is flushed some time")
    check(queue.waiting.isEmpty || queue.flush != .none || flushesWanted.contains(id), "who waits for a flush gets one")
    for entry in queue.entries {
      check(entry.dropped.count == entry.frames.count, "a kept frame has its reference")
      for dropped in entry.dropped {
        check(memory.generation(dropped.frame) == dropped.generation, "a kept frame is in the life that was kept")
        check(
          spaces[id].references.find(dropped.page, level: dropped.level)?.held != true,
          "no page has come back where one is kept for devices")
      }
    }
  }
}
