// SPDX-License-Identifier: Apache-2.0
// Goal: invalidations, their tags, completions, time-outs and fences, and the DMA that they must stay behind.
@testable import IOMMUModel
import Testing

@Suite struct InvalidationTests {
  /// As many mprotects as wanted, in as many address spaces, each of which owes the device one invalidation.
  func flood(_ count: Int, _ change: (inout Settings) -> Void = { _ in }) throws -> (Bench, DeviceID, [OperationID]) {
    var bench = Bench(change)
    let device = try bench.device()
    var operations: [OperationID] = []
    for index in 0..<count {
      let space = try bench.addressSpace()
      try bench.apply(.attach(device, PASID(index + 1), .addressSpace(space, .flushAtEnd)))
      try bench.map(space, 0x100, 1)
      operations.append(try bench.start(.mprotect(space, PageRange(first: 0x100, count: 1), .read)))
      bench.settle()
    }
    return (bench, device, operations)
  }

  func vector(_ itags: some Sequence<Int>) -> UInt32 { itags.reduce(0) { $0 | 1 << UInt32($1) } }

  @Test func `the 33rd invalidation waits for a tag, and goes out under the one that is completed first`() throws {
    var (bench, device, operations) = try flood(34)
    #expect(bench.owed(device).count == 32)
    #expect(bench.machine.devices[device].itagQueue.map(\.pasid) == [33, 34])
    try bench.apply(.complete(device, itagVector: vector([7])))
    bench.settle()
    #expect(bench.outcome(operations[7])?.status == .success)
    #expect(bench.outcome(operations[32]) == nil)
    #expect(bench.machine.devices[device].itags[7].invalidation.pasid == 33)
    #expect(bench.owed(device).count == 32)
    try bench.apply(.complete(device, itagVector: .max))
    bench.settle()
    #expect(bench.owed(device).map(\.pasid) == [34])
    try bench.completeAll(device)
    #expect(operations.allSatisfy { bench.outcome($0)?.status == .success })
    #expect(bench.counters.completions == 34)
    #expect(
      Set(bench.seen.compactMap { if case .invalidation(_, let pushed) = $0 { pushed.order } else { nil } }).count == 34
    )
  }

  @Test
  func `a time-out fences first, then ends the waits, also of those in the queue; its tags are dead in this epoch`()
    throws
  {
    var (bench, device, operations) = try flood(33) { $0.invalidationTimeout = 1000 }
    try bench.apply(.complete(device, itagVector: 1))
    bench.settle()
    let before = bench.seen.count
    bench.run(until: bench.machine.time + 1000)
    let after = bench.seen[before...]
    guard case .device(device, .fenced(.invalidationTimedOut))? = after.first else { throw Surprise() }
    #expect(operations.allSatisfy { bench.outcome($0)?.status == .success })
    #expect(bench.counters.fenced == 1)
    #expect(bench.counters.timeouts == 32)
    #expect(bench.machine.devices[device].itags.allSatisfy { $0.state == .dead })
    try bench.apply(.complete(device, itagVector: 1 << 5))
    #expect(bench.ignored(device) == [.unexpectedCompletion], "late")
    #expect(bench.counters.completions == 1)
    #expect(try bench.translate(device, 1, 0x100).status == .unsupportedRequest)
    try bench.issue(device, 0x100, pasid: 1)
    bench.settle()
    #expect(bench.answers(device).last?.status == .fenced)
    // A fenced device holds nobody up any more.
    let space = bench.machine.spaces.ids[0]
    let next = try bench.start(.munmap(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    #expect(bench.outcome(next)?.status == .success)
  }

  @Test func `DMA in flight when the fence falls is refused at its landing`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) {
      $0.invalidationTimeout = 1000
      $0.costs.dmaLanding = .constant(5000)
    }
    let answer = try bench.grant(device, 0x100)
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    try bench.issue(device, 0x100, at: answer.physicalAddress, write: 1)
    bench.run(until: bench.machine.time + 10_000)
    #expect(bench.answers(device).map(\.status) == [.fenced])
    #expect(bench.kinds == [])
  }

  @Test func `only what is owed past its time is timed out; the rest ends by the fence`() throws {
    var (bench, device, _) = try flood(1) { $0.invalidationTimeout = 1000 }
    let space = try bench.addressSpace()
    try bench.apply(.attach(device, 9, .addressSpace(space, .flushAtEnd)), at: 600)
    try bench.map(space, 0x100, 1)
    try bench.start(.mprotect(space, PageRange(first: 0x100, count: 1), .read))
    bench.settle()
    bench.run(until: 5000)
    let ends = bench.seen.compactMap { if case .invalidationEnded(_, let end) = $0 { end.kind } else { nil } }
    #expect(ends == [.timedOut, .fenced])
  }

  @Test func `late, duplicate and forged completions are counted and change nothing`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    let answer = try bench.grant(device, 0x100)
    let id = try bench.start(.mprotect(space, PageRange(first: 0x100, count: 1), .read))
    bench.settle()
    let owed = bench.owed(device)[0]
    try bench.apply(.complete(device, itagVector: ~(1 << UInt32(owed.itag))))
    bench.settle()
    #expect(bench.counters.unexpectedCompletions == 31)
    #expect(bench.outcome(id) == nil)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress)
    #expect(bench.kinds == [], "nothing was retired")
    try bench.completeAll(device)
    try bench.apply(.complete(device, itagVector: 1 << UInt32(owed.itag)))
    #expect(bench.counters.unexpectedCompletions == 32)
    #expect(bench.counters.completions == 1)
  }

  @Test func `a completion takes effect behind the DMA that arrived before it, and not before later DMA`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.costs.dmaLanding = .constant(1000) }
    let answer = try bench.grant(device, 0x100)
    let id = try bench.start(.mprotect(space, PageRange(first: 0x100, count: 1), .read))
    bench.settle()
    try bench.issue(device, 0x100, at: answer.physicalAddress, write: 1)
    let itag = bench.owed(device)[0].itag
    try bench.apply(.complete(device, itagVector: 1 << UInt32(itag)))
    bench.settle()
    #expect(bench.outcome(id) == nil)
    #expect(bench.owed(device).count == 1)
    try bench.issue(device, 0x100, at: answer.physicalAddress, write: 2)
    bench.run(until: bench.machine.time + 2000)
    #expect(bench.outcome(id)?.status == .success)
    #expect(bench.kinds == [.usedAfterCompletion], "the second write, and not the first")
    #expect(bench.answers(device).count == 2)
  }

  @Test func `untranslated DMA that passed the IOMMU has landed before I is complete, with and without an ATC`() throws
  {
    for strategy in [Strategy.invalidateRange, .invalidateRangeWithoutATC] {
      var (bench, space, device) = try Bench.shared(strategy) { $0.costs.dmaLanding = .constant(1000) }
      try bench.store(space, 0x100, 1)
      try bench.issue(device, 0x100, write: 7)
      let id = try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
      bench.settle()
      try bench.completeAll(device)
      #expect(bench.outcome(id) == nil, "the write is still on its way")
      try bench.finish([device])
      #expect(bench.outcome(id)?.status == .success)
      let landed = bench.seen.firstIndex { if case .dma = $0 { true } else { false } }!
      let freed = bench.seen.firstIndex { if case .step(let step) = $0 { step.letter == .framesFreed } else { false } }!
      #expect(landed < freed)
      #expect(bench.kinds == [])
    }
  }

  @Test func `surprise removal ends every wait, and a device that comes back is another epoch`() throws {
    var (bench, device, operations) = try flood(34)
    try bench.issue(device, 0x100, pasid: 1)
    try bench.apply(.removeDevice(device))
    bench.settle()
    #expect(operations.allSatisfy { bench.outcome($0)?.status == .success })
    let ends = bench.seen.compactMap { if case .invalidationEnded(_, let end) = $0 { end.kind } else { nil } }
    #expect(ends == Array(repeating: .removed, count: 32))
    #expect(bench.answers(device).isEmpty)
    #expect(bench.refusal(.complete(device, itagVector: 1)) == .unknownDevice)
    guard case .device(let again, let epoch) = try bench.apply(.registerDevice(DeviceProfile(rid: 8))) else {
      throw Surprise()
    }
    #expect(again != device)
    #expect(epoch == 2)
    #expect(bench.machine.bindings.count == 0)
  }

  @Test func `a removal in the middle of a detach, a page request and a flush leaves nobody waiting`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange) { $0.costs.faultService = .constant(1000) }
    try bench.send(device, 0x100, index: 1)
    bench.settle()
    let detach = try bench.start(.detach(device, 5))
    let zap = try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 4)))
    bench.settle()
    try bench.apply(.removeDevice(device))
    try bench.finish()
    #expect(bench.outcome(detach)?.status == .objectGone)
    #expect(bench.outcome(zap)?.status == .success)
    #expect(bench.machine.operationCount == 0)
    #expect(bench.machine.handler.idleWorkers == 4)
  }

  // MARK: The empty table's counter

  @Test
  func `a second S returns only after the first one's flush is complete, a third at once, and the last E restores`()
    throws
  {
    var (bench, space, device) = try Bench.shared(.emptyTable) { $0.hold = 1000 }
    try bench.store(space, 0x10f, 1)
    func letters(_ id: OperationID) -> [OperationStep.Letter] { bench.letters(of: id) }
    let first = try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    let second = try bench.start(.dontNeed(space, PageRange(first: 0x102, count: 1)))
    bench.settle()
    #expect(letters(first) == [.start])
    #expect(letters(second) == [], "the counter's lock is held across the flush of the first S")
    try bench.completeAll(device)
    #expect(letters(first) == [.start, .flushed, .hold])
    #expect(letters(second) == [.start, .hold])
    #expect(bench.machine.spaces[space].emptyTable.count == 2)
    let opened = bench.machine.time
    let request = OperationRequest.dontNeed(space, PageRange(first: 0x104, count: 1))
    guard case .operation(let third) = try bench.apply(.start(request), at: opened + 500) else { throw Surprise() }
    #expect(letters(third) == [.start], "at once")
    bench.run(until: opened + 1000)
    #expect(letters(first).last == .end)
    #expect(bench.outcome(first) != nil, "its E had nothing to restore")
    #expect(try bench.translate(device, 5, 0x10f).rights == [], "one is still inside")
    #expect(bench.owed(device).isEmpty)
    bench.run(until: opened + 1500)
    #expect(letters(third).last == .end)
    #expect(bench.outcome(third) == nil, "the last E flushes")
    #expect(bench.owed(device).map(\.range) == [.all])
    let fourth = try bench.start(.dontNeed(space, PageRange(first: 0x106, count: 1)))
    bench.settle()
    #expect(letters(fourth) == [], "and holds the counter's lock across it")
    try bench.completeAll(device)
    #expect(bench.outcome(third)?.status == .success)
    #expect(letters(fourth).first == .start)
    try bench.finish([device])
    #expect(bench.machine.spaces[space].emptyTable.count == 0)
    #expect(try bench.translate(device, 5, 0x10f).rights == .readWrite)
  }

  @Test func `the last user of the empty table goes inside the window, and the counter comes back to zero`() throws {
    var (bench, space, device) = try Bench.shared(.emptyTable) { $0.hold = 1000 }
    let id = try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    let waiting = try bench.start(.dontNeed(space, PageRange(first: 0x102, count: 1)))
    try bench.apply(.removeDevice(device))
    try bench.finish()
    #expect(bench.outcome(id)?.status == .success)
    #expect(bench.outcome(waiting)?.status == .success)
    #expect(bench.machine.spaces[space].emptyTable.count == 0)
    #expect(bench.machine.spaces[space].emptyTable.holder == .none)
  }

  @Test func `the empty table covers the whole PASID and no other`() throws {
    var (bench, space, device) = try Bench.shared(.emptyTable) { $0.hold = 1000 }
    let other = try bench.addressSpace()
    try bench.apply(.attach(device, 6, .addressSpace(other, .emptyTable)))
    try bench.map(other, 0x100, 1)
    try bench.store(other, 0x100, 1)
    try bench.store(space, 0x10f, 1)
    #expect(try bench.translate(device, 5, 0x10f).rights == .readWrite)
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    #expect(bench.owed(device).map(\.range) == [.all])
    #expect(try bench.translate(device, 5, 0x10f).rights == [])
    #expect(try bench.translate(device, 6, 0x100).rights == .readWrite)
    try bench.finish([device])
  }
}
