// SPDX-License-Identifier: Apache-2.0
// Goal: page requests, groups, the bounded queue and the response codes keep PCIe's contract.
@testable import IOMMUModel
import Testing

@Suite struct PageRequestTests {
  @Test func `a group of several members is answered once, when its last member has come`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange)
    for page in UInt64(0x100)..<0x103 { try bench.send(device, page, index: 7, last: false) }
    bench.settle()
    #expect(bench.responses(device).isEmpty)
    #expect(bench.machine.devices[device].outstanding == 3)
    try bench.send(device, 0x103, index: 7)
    bench.settle()
    #expect(bench.responses(device).map(\.memberCount) == [4])
    #expect(bench.counters.membersServed == 4)
    #expect(bench.machine.devices[device].outstanding == 0)
  }

  @Test func `two groups of one device whose members interleave are kept apart by index`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange)
    try bench.send(device, 0x100, index: 1, last: false)
    try bench.send(device, 0x101, index: 2, last: false)
    try bench.send(device, 0x102, index: 2)
    try bench.send(device, 0x103, index: 1)
    bench.settle()
    #expect(bench.responses(device).map(\.groupIndex) == [2, 1])
    #expect(bench.responses(device).map(\.memberCount) == [2, 2])
  }

  @Test func `a member that cannot be served makes the whole group an Invalid Request, and PRI stays on`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange)
    try bench.send(device, 0x100, index: 1, last: false)
    try bench.send(device, 0x900, index: 1, last: false)
    try bench.send(device, 0x101, index: 1)
    bench.settle()
    #expect(bench.responses(device).map(\.code) == [.invalidRequest])
    // The second member failed, and the third is not handled: errors are sticky.
    #expect(bench.counters.refusedFaults == 2)
    #expect(bench.machine.devices[device].priEnabled)
    #expect(try bench.request(device, 6, 0x100) == .invalidRequest, "no such PASID: no handler")
    #expect(try bench.request(device, 5, 0x100) == .success)
  }

  @Test
  func
    `without a free frame the answer is Response Failure, PRI is off until it is enabled anew, and requests are ignored`()
    throws
  {
    var (bench, device) = try RegressionTests().benchWithPRIOff()
    #expect(bench.seen.contains { if case .device(device, .priDisabled) = $0 { true } else { false } })
    try bench.send(device, 0x100, index: 1)
    #expect(bench.ignored(device) == [.pageRequestWhileDisabled])
    #expect(bench.refusal(.enablePRI(device, allocation: 0)) == .allocationTooLarge)
    #expect(bench.refusal(.enablePRI(device, allocation: 513)) == .allocationTooLarge)
    try bench.apply(.enablePRI(device, allocation: 3))
    #expect(bench.refusal(.enablePRI(device, allocation: 3)) == .priEnabled)
    #expect(try bench.request(device, 5, 0x100) == .success)
    #expect(bench.machine.devices[device].allocation == 3)
  }

  @Test func `a request beyond the allocation, or under an index that waits for its answer, is ignored`() throws {
    var bench = Bench { $0.costs.faultService = .constant(1000) }
    let space = try bench.addressSpace()
    let profile = DeviceProfile(rid: 1, priAllocation: 2)
    guard case .device(let device, _) = try bench.apply(.registerDevice(profile)) else { throw Surprise() }
    try bench.apply(.attach(device, 5, .addressSpace(space, .invalidateRange)))
    try bench.map(space, 0x100, 8)
    try bench.send(device, 0x100, index: 1)
    try bench.send(device, 0x101, index: 1)
    #expect(bench.ignored(device) == [.groupIndexInUse])
    try bench.send(device, 0x102, index: 2)
    try bench.send(device, 0x103, index: 3)
    #expect(bench.ignored(device) == [.groupIndexInUse, .excessPageRequest])
    try bench.finish()
    #expect(bench.responses(device).count == 2)
    try bench.send(device, 0x103, index: 3)
    try bench.finish()
    #expect(bench.responses(device).count == 3)
  }

  @Test func `a Stop Marker is never answered, and an index above 511 is refused`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange)
    try bench.send(device, 0, index: 1, last: true, [])
    bench.settle()
    #expect(bench.responses(device).isEmpty)
    #expect(bench.machine.devices[device].outstanding == 0)
    let request = PageRequest(pasid: 5, page: 0x100, rights: .read, groupIndex: 512, last: true)
    #expect(bench.refusal(.pageRequest(device, request)) == .groupIndexOutOfRange)
  }

  @Test
  func `an overflow answers the last of a group with Success, drops others, and stays until the interrupt thread`()
    throws
  {
    var bench = Bench {
      $0.pageRequestQueueCapacity = 4
      $0.costs.interrupt = .constant(1000)
    }
    let space = try bench.addressSpace()
    var devices: [DeviceID] = []
    for rid in UInt16(1)...2 {
      let profile = DeviceProfile(rid: rid, priAllocation: 4)
      guard case .device(let device, _) = try bench.apply(.registerDevice(profile)) else { throw Surprise() }
      try bench.apply(.attach(device, 5, .addressSpace(space, .invalidateRange)))
      devices.append(device)
    }
    try bench.map(space, 0x100, 16)
    try bench.send(devices[0], 0x100, index: 1, last: false)
    for index in UInt16(2)...4 { try bench.send(devices[0], 0x100 + UInt64(index), index: index) }
    #expect(bench.counters.queueOverflows == 0)
    try bench.send(devices[1], 0x10a, index: 1)
    #expect(bench.responses(devices[1]).map(\.code) == [.success], "at once, and nothing was served")
    #expect(bench.responses(devices[1]).map(\.serviceNanoseconds) == [0])
    #expect(bench.counters.autoAnswers == 1)
    try bench.send(devices[1], 0x10b, index: 2, last: false)
    #expect(bench.ignored(devices[1]) == [.droppedByOverflow])
    #expect(bench.counters.membersServed == 0)
    bench.run(until: bench.machine.time + 1000)
    #expect(bench.counters.faultInterrupts == 1)
    #expect(bench.responses(devices[0]).map(\.groupIndex) == [2, 3, 4])
    #expect(bench.machine.devices[devices[0]].partial.isEmpty, "the partial group is discarded")
    try bench.send(devices[0], 0x105, index: 1)
    try bench.send(devices[1], 0x106, index: 3)
    bench.run(until: bench.machine.time + 1000)
    #expect(bench.responses(devices[0]).last?.memberCount == 2, "its credit comes back with the last")
    #expect(bench.counters.membersServed == 5)
    #expect(bench.counters.queueOverflows == 2)
    #expect(bench.machine.spaces[space].references.find(0x100, level: 0) == nil, "the discarded member was not served")
  }

  @Test func `an overflow is sticky: room in the queue does not end it, its interrupt does`() throws {
    var bench = Bench {
      $0.pageRequestQueueCapacity = 2
      $0.costs.interrupt = .constant(1000)
    }
    let space = try bench.addressSpace()
    let first = try bench.small(rid: 1, space)
    let second = try bench.small(rid: 2, space)
    try bench.map(space, 0x100, 16)
    try bench.send(first, 0x100, index: 1)
    try bench.send(first, 0x101, index: 2)
    try bench.send(second, 0x102, index: 1)
    try bench.apply(.removeDevice(first))
    #expect(bench.machine.queue.entries.isEmpty)
    try bench.send(second, 0x103, index: 2)
    #expect(bench.counters.autoAnswers == 2, "room again, and lost all the same")
    bench.run(until: bench.machine.time + 1000)
    try bench.send(second, 0x104, index: 3)
    bench.run(until: bench.machine.time + 1000)
    #expect(bench.counters.autoAnswers == 2)
    #expect(bench.counters.membersServed == 1)
  }

  @Test func `one interrupt serves all requests that came before its thread ran, and workers are bounded`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange) {
      $0.handlerWorkers = 2
      $0.costs.interrupt = .constant(100)
      $0.costs.faultService = .constant(1000)
    }
    for index in UInt16(0)..<5 { try bench.send(device, 0x100 + UInt64(index), index: index) }
    bench.run(until: 100)
    #expect(bench.counters.faultInterrupts == 1)
    bench.run(until: 1100)
    #expect(bench.responses(device).count == 2)
    bench.run(until: 2100)
    #expect(bench.responses(device).count == 4)
    bench.run(until: 3100)
    #expect(bench.responses(device).map(\.serviceNanoseconds) == [1100, 1100, 2100, 2100, 3100])
  }

  @Test func `a detach waits for the page requests of its PASID, queued and in service`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange) { $0.costs.faultService = .constant(1000) }
    try bench.send(device, 0x100, index: 1)
    bench.settle()
    let detach = try bench.start(.detach(device, 5))
    #expect(bench.refusal(.start(.detach(device, 5))) == .detachInProgress)
    try bench.completeAll(device)
    bench.settle()
    #expect(bench.outcome(detach) == nil, "one is in service")
    try bench.finish([device])
    #expect(bench.outcome(detach)?.status == .success)
    let answered = bench.seen.firstIndex { if case .pageResponse = $0 { true } else { false } }!
    let drained = bench.seen.firstIndex { if case .step(let step) = $0 { step.letter == .drain } else { false } }!
    #expect(answered < drained)
    #expect(bench.refusal(.start(.detach(device, 5))) == .pasidNotAttached)
    #expect(try bench.translate(device, 5, 0x100).status == .unsupportedRequest)
  }

  // MARK: Give-up and live-lock

  /// A window of the empty table that stays open, and a device that meets it.
  func window(_ change: (inout Settings) -> Void = { _ in }) throws -> (Bench, AddressSpaceID, DeviceID) {
    var (bench, space, device) = try Bench.shared(.emptyTable) {
      $0.hold = 1000
      change(&$0)
    }
    try bench.store(space, 0x10f, 1)
    try bench.start(.dontNeed(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    try bench.completeAll(device)
    return (bench, space, device)
  }

  @Test func `giving up is refused before the retries are used up, and is GAVE_UP after limit plus one requests`()
    throws
  {
    var (bench, _, device) = try window()
    #expect(bench.refusal(.giveUp(device, 5, 0x10f, .read)) == .retriesLeft)
    #expect(try bench.request(device, 5, 0x10f) == .success)
    #expect(bench.refusal(.giveUp(device, 5, 0x10f, .read)) == .retriesLeft)
    #expect(try bench.request(device, 5, 0x10f) == .success)
    try bench.apply(.giveUp(device, 5, 0x10f, .read))
    #expect(bench.kinds == [.gaveUp])
    #expect(bench.refusal(.giveUp(device, 5, 0x10f, .read)) == .retriesLeft, "one verdict for each access")
  }

  @Test func `no verdict when the page was unmapped between the first request and the give-up`() throws {
    var (bench, space, device) = try window()
    #expect(try bench.request(device, 5, 0x10f) == .success)
    bench.run(until: bench.machine.time + 10_000)
    try bench.start(.munmap(space, PageRange(first: 0x10f, count: 1)))
    try bench.finish([device])
    try bench.map(space, 0x10f, 1)
    try bench.send(device, 0x10f, index: 2)
    bench.settle()
    try bench.apply(.giveUp(device, 5, 0x10f, .read))
    #expect(bench.kinds == [])
  }

  @Test func `no verdict for a right that the area has had only since the first request`() throws {
    for rights in [Rights.read, .readWrite] {
      var (bench, space, device) = try window()
      try bench.finish([device])
      try bench.map(space, 0x200, 1, .read)
      try bench.send(device, 0x200, index: 1, .read)
      bench.settle()
      try bench.start(.mprotect(space, PageRange(first: 0x200, count: 1), .readWrite))
      try bench.finish([device])
      try bench.send(device, 0x200, index: 2)
      bench.settle()
      try bench.apply(.giveUp(device, 5, 0x200, rights))
      #expect(bench.kinds == (rights == .read ? [.gaveUp] : []))
    }
  }

  @Test
  func
    `more successes for a page than the limit, without a change of it, are a LIVELOCK; a change starts the count anew`()
    throws
  {
    var (bench, _, device) = try window { $0.livelockLimit = 2 }
    for count in 1...3 {
      #expect(try bench.translate(device, 5, 0x10f).rights == [])
      #expect(try bench.request(device, 5, 0x10f) == .success)
      #expect(bench.kinds == (count == 3 ? [.livelock] : []))
    }
    #expect(bench.verdicts[0].requests == 3)
    #expect(bench.counters.needlessFaults == 3)
    var (other, space, sender) = try window { $0.livelockLimit = 2 }
    for _ in 0..<3 {
      #expect(try other.request(sender, 5, 0x10f) == .success)
      let turn = other.machine.turn
      other.machine.spaces[space].references.change(0x10f, level: 0) { $0.changedTurn = turn }
    }
    #expect(other.kinds == [])
  }
}

extension Bench {
  mutating func small(rid: UInt16, _ space: AddressSpaceID) throws -> DeviceID {
    guard case .device(let device, _) = try apply(.registerDevice(DeviceProfile(rid: rid, priAllocation: 2))) else {
      throw Surprise()
    }
    try apply(.attach(device, 5, .addressSpace(space, .invalidateRange)))
    return device
  }
}
