// SPDX-License-Identifier: Apache-2.0
// Goal: I that waits: what a flush queue takes, when it is flushed, what it keeps until then, and who waits for it.
// Method: one machine with all durations zero, so that only the queue's own timer takes time.
@testable import IOMMUModel
import Testing

@Suite struct FlushQueueTests {
  static let timeout: Nanoseconds = 10_000_000
  let page = PageRange(first: 0x100, count: 1)

  @Test func `a deferred zap pushes nothing and frees at once, and the timer flushes the whole PASID`() throws {
    var (bench, space, device) = try Bench.shared(.deferred)
    let answer = try bench.grant(device, 0x100)
    let began = bench.machine.time
    let zap = try bench.start(.dontNeed(space, page))
    bench.settle()
    #expect(bench.outcome(zap)?.status == .success)
    #expect(
      bench.letters(of: zap) == [
        .start, .entries, .end, .flushQueued, .cpuFlush, .flushSite, .flushQueued, .framesFreed,
      ])
    #expect(bench.owed(device).isEmpty)
    #expect(bench.counters.deferredFlushes == 2 && bench.machine.spaces[space].flushQueue.entries.count == 1)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress)
    #expect(bench.kinds == [.staleDMA], "the stale window")
    #expect(bench.machine.nextDue() == began + Self.timeout)
    bench.run(until: began + Self.timeout)
    #expect(bench.owed(device).map(\.range) == [PageRange.all])
    try bench.completeAll(device)
    #expect(bench.machine.spaces[space].flushQueue.isIdle)
    #expect(bench.counters.queueFlushes == 1 && bench.counters.invalidations == 1)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress)
    #expect(bench.kinds == [.staleDMA, .usedAfterCompletion], "the device itself is at fault now")
  }

  @Test func `a held zap returns at once, its frame lives until the flush is complete, and no access is stale`() throws
  {
    var (bench, space, device) = try Bench.shared(.deferredHeld)
    let answer = try bench.grant(device, 0x100)
    let frame = FrameNumber(answer.physicalAddress >> 12)
    let life = bench.machine.memory.generation(frame)
    let zap = try bench.start(.dontNeed(space, page))
    bench.settle()
    #expect(bench.outcome(zap)?.status == .success)
    #expect(bench.machine.spaces[space].flushQueue.keptFrameCount == 1 && bench.counters.keptFrames == 1)
    #expect(bench.counters.framesFreed == 0 && bench.machine.memory[frame].references == 1)
    #expect(try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 3).status == .success)
    bench.run(until: bench.machine.time + Self.timeout)
    #expect(bench.owed(device).count == 1)
    #expect(try bench.dma(device, 5, 0x100, at: answer.physicalAddress).status == .success, "not completed yet")
    #expect(bench.machine.memory.generation(frame) == life)
    try bench.completeAll(device)
    #expect(bench.machine.memory.generation(frame) == life + 1 && bench.counters.framesFreed == 1)
    #expect(bench.kinds.isEmpty)
  }

  @Test func `page tables stay in the queue under both, data frames only when they are held`() throws {
    for (strategy, kept) in [(Strategy.deferred, 3), (.deferredHeld, 4)] {
      var (bench, space, device) = try Bench.shared(strategy)
      try bench.grant(device, 0x100)
      try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
      bench.settle()
      #expect(bench.machine.spaces[space].flushQueue.keptFrameCount == kept)
      #expect(bench.counters.tablesFreed == 0)
      bench.run(until: bench.machine.time + Self.timeout)
      try bench.completeAll(device)
      #expect(bench.counters.tablesFreed == 3 && bench.counters.framesFreed == 1 && bench.kinds.isEmpty)
    }
  }

  @Test func `the last entry that fits starts the flush, and whoever comes before its end waits for room`() throws {
    // Without a hook at E, a zap is one entry.
    var (bench, space, device) = try Bench.shared(Strategy(sites: .flushSite, deferral: .held)) {
      $0.flushQueueEntries = 2
    }
    for offset in UInt64(0)..<5 { try bench.grant(device, 0x100 + offset) }
    var zaps: [OperationID] = []
    for offset in UInt64(0)..<5 {
      zaps.append(try bench.start(.dontNeed(space, PageRange(first: 0x100 + offset, count: 1))))
      bench.settle()
    }
    let queue = bench.machine.spaces[space].flushQueue
    #expect(queue.inFlight == 2 && queue.waitingCount == 2 && bench.owed(device).count == 1)
    #expect(zaps.map { bench.outcome($0) != nil } == [true, true, true, true, false], "the fifth finds no room")
    try bench.completeAll(device)
    bench.run(until: bench.machine.time + Self.timeout)
    try bench.completeAll(device)
    #expect(zaps.allSatisfy { bench.outcome($0)?.status == .success } && bench.machine.spaces[space].flushQueue.isIdle)
    #expect(bench.counters.queueFlushes == 3 && bench.counters.framesFreed == 5 && bench.kinds.isEmpty)
  }

  @Test func `what cannot be kept back is flushed at once: rights, other pages, other places`() throws {
    var (bench, space, device) = try Bench.shared(.deferredHeld) { $0.kernel = .now }
    try bench.grant(device, 0x100)
    let others: [OperationRequest] = [
      .mprotect(space, page, .read), .range(.ksmWriteProtect, space, page),
      .move(.mremap, space, page, to: 0x200), .range(.migratePages, space, PageRange(first: 0x200, count: 1)),
    ]
    for request in others {
      let operation = try bench.start(request)
      bench.settle()
      #expect(!bench.letters(of: operation).contains(.flushQueued) || request == others[2], "\(request)")
      try bench.completeAll(device)
      try bench.finish([device])
      #expect(bench.outcome(operation) != nil, "\(request)")
    }
    #expect(bench.kinds.isEmpty)
  }

  @Test func `a fault where a page is kept waits for the flush, which it starts`() throws {
    var (bench, space, device) = try Bench.shared(.deferredHeld)
    let answer = try bench.grant(device, 0x100)
    try bench.store(space, 0x100, 7)
    try bench.start(.dontNeed(space, page))
    bench.settle()
    let load = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x100 << 12)))
    bench.settle()
    #expect(bench.outcome(load) == nil && bench.owed(device).count == 1)
    #expect(
      try bench.dma(device, 5, 0x100, at: answer.physicalAddress).value == 7, "the old page, before the new is seen")
    try bench.completeAll(device)
    #expect(bench.outcome(load)?.value == 0 && bench.kinds.isEmpty)
  }

  @Test func `mremap and UFFDIO_MOVE wait where a page is kept at their destination`() throws {
    for moves in [OperationKind.mremap, .uffdioMove] {
      var (bench, space, device) = try Bench.shared(.deferredHeld) { $0.kernel = .now }
      try bench.map(space, 0x400, 1)
      try bench.grant(device, 0x400)
      try bench.grant(device, 0x100)
      let destination = PageRange(first: 0x400, count: 1)
      try bench.start(moves == .mremap ? .munmap(space, destination) : .dontNeed(space, destination))
      bench.settle()
      let move = try bench.start(.move(moves, space, page, to: 0x400))
      bench.settle()
      #expect(bench.outcome(move) == nil && bench.owed(device).map(\.range) == [PageRange.all], "\(moves)")
      try bench.finish([device])
      #expect(bench.outcome(move)?.status == .success && bench.kinds.isEmpty, "\(moves)")
    }
  }

  @Test func `a page that came back before the flush site is flushed at once`() throws {
    var (bench, space, device) = try Bench.shared(.deferredHeld) { $0.costs.entry = .constant(1000) }
    try bench.grant(device, 0x100)
    let zap = try bench.start(.dontNeed(space, page))
    bench.settle()
    #expect(bench.letters(of: zap) == [.start, .entries])
    #expect(try bench.load(space, 0x100) == 0, "between P and the flush site")
    bench.run(until: bench.machine.time + 1000)
    #expect(!bench.letters(of: zap).contains(.flushQueued) && bench.owed(device).count == 1)
    try bench.finish([device])
    #expect(bench.outcome(zap)?.status == .success && bench.kinds.isEmpty)
  }

  @Test func `out of frames, a fault waits for those that the queue keeps`() throws {
    var (bench, space, device) = try Bench.shared(.deferredHeld) { $0.frameCount = 9 }
    for offset in UInt64(0)..<4 { try bench.grant(device, 0x100 + offset) }
    #expect(bench.machine.memory.freeCount == 0)
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 4)))
    bench.settle()
    let store = try bench.start(
      .cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: 0x108 << 12, value: 1)))
    bench.settle()
    #expect(bench.outcome(store) == nil && bench.owed(device).count == 1)
    try bench.completeAll(device)
    #expect(bench.outcome(store)?.status == .success)
  }

  @Test func `an exit and a detach flush the queue first`() throws {
    for leaves in [true, false] {
      var (bench, space, device) = try Bench.shared(.deferredHeld)
      try bench.grant(device, 0x100)
      try bench.start(.dontNeed(space, page))
      bench.settle()
      let last = try bench.start(leaves ? .exit(space) : .detach(device, 5))
      bench.settle()
      #expect(bench.outcome(last) == nil && bench.owed(device).count == 1)
      #expect(bench.letters(of: last).isEmpty, "neither cut nor released yet")
      try bench.finish([device])
      #expect(bench.outcome(last)?.status == .success && bench.kinds.isEmpty)
      #expect(leaves ? !bench.machine.spaces.contains(space) : bench.machine.spaces[space].flushQueue.isIdle)
      #expect(bench.counters.framesFreed == 1)
    }
  }

  @Test func `two strategies on one address space: one is flushed at once, for the other the frame is kept`() throws {
    var (bench, space, first) = try Bench.shared(.deferredHeld)
    let second = try bench.device(rid: 9)
    try bench.apply(.attach(second, 5, .addressSpace(space, .invalidateRange)))
    try bench.grant(first, 0x100)
    try bench.grant(second, 0x100)
    let zap = try bench.start(.dontNeed(space, page))
    bench.settle()
    #expect(bench.owed(first).isEmpty && bench.owed(second).count == 1 && bench.outcome(zap) == nil)
    try bench.completeAll(second)
    #expect(bench.outcome(zap)?.status == .success && bench.counters.framesFreed == 0)
    bench.run(until: bench.machine.time + Self.timeout)
    #expect(bench.owed(first).count == 1 && bench.owed(second).isEmpty)
    try bench.completeAll(first)
    #expect(bench.counters.framesFreed == 1 && bench.kinds.isEmpty)
  }

  @Test func `a device that does not complete the flush is fenced, and the kept frames are freed`() throws {
    var (bench, space, device) = try Bench.shared(.deferredHeld) { $0.invalidationTimeout = 1000 }
    try bench.grant(device, 0x100)
    try bench.start(.dontNeed(space, page))
    bench.settle()
    bench.run(until: bench.machine.time + Self.timeout + 1000)
    #expect(bench.counters.fenced == 1 && bench.counters.framesFreed == 1)
    #expect(bench.machine.spaces[space].flushQueue.isIdle && bench.kinds.isEmpty)
  }

  @Test func `what waits while a flush is slower than the time limit is flushed right behind it`() throws {
    var (bench, space, device) = try Bench.shared(.deferredHeld)
    try bench.grant(device, 0x100)
    try bench.grant(device, 0x101)
    try bench.start(.dontNeed(space, page))
    bench.run(until: bench.machine.time + Self.timeout)
    #expect(bench.owed(device).count == 1)
    try bench.start(.dontNeed(space, PageRange(first: 0x101, count: 1)))
    bench.run(until: bench.machine.time + 2 * Self.timeout)
    #expect(bench.counters.queueFlushes == 0 && bench.machine.spaces[space].flushQueue.isOverdue)
    try bench.completeAll(device)
    #expect(bench.counters.queueFlushes == 2 && bench.machine.spaces[space].flushQueue.isIdle)
  }

  @Test func `the device goes: what was kept for it is freed when the time has come`() throws {
    var (bench, space, device) = try Bench.shared(.deferredHeld)
    try bench.grant(device, 0x100)
    try bench.start(.dontNeed(space, page))
    bench.settle()
    try bench.apply(.removeDevice(device))
    #expect(bench.machine.spaces[space].flushQueue.keptFrameCount == 1)
    bench.run(until: bench.machine.time + Self.timeout)
    #expect(bench.counters.framesFreed == 1 && bench.machine.spaces[space].flushQueue.isIdle)
  }
}
