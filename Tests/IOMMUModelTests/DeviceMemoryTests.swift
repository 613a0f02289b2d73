// SPDX-License-Identifier: Apache-2.0
// Goal: pages that a device keeps in its own memory, or to itself in theirs, come back to a CPU, to another device and to a
// child with what was in them.
@testable import IOMMUModel
import Testing

@Suite struct DeviceMemoryTests {
  let area = PageRange(first: 0x100, count: 4)

  func run(_ bench: inout Bench, _ request: OperationRequest, _ device: DeviceID) throws -> OperationOutcome? {
    let id = try bench.start(request)
    try bench.finish([device])
    return bench.outcome(id)
  }

  func bench() throws -> (Bench, AddressSpaceID, DeviceID) {
    var (bench, space, device) = try Bench.shared(.secondaryTLB) { $0.kernel = .now }
    for page in area.first..<area.end { try bench.store(space, page, page) }
    return (bench, space, device)
  }

  @Test(arguments: [OperationKind.migrateToDevice, .makeDeviceExclusive])
  func `a page that is a device's own comes back to a CPU and to another device, inside S and E`(kind: OperationKind)
    throws
  {
    var (bench, space, device) = try bench()
    let before = try bench.grant(device, 0x100).physicalAddress
    #expect(try run(&bench, .range(kind, space, area), device)?.value == 4)
    #expect(try bench.translate(device, 5, 0x100).rights == [])
    #expect(try run(&bench, .range(kind, space, area), device)?.status == .busy)
    let load = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x101 << 12)))
    try bench.finish([device])
    #expect(bench.outcome(load)?.value == 0x101)
    #expect(bench.letters(of: load) == [.start, .entries, .entries, .end])
    let answer = try bench.grant(device, 0x100)
    #expect(answer.rights == .readWrite)
    if kind == .makeDeviceExclusive { #expect(answer.physicalAddress == before) }
    #expect(try bench.dma(device, 5, 0x100, at: answer.physicalAddress).value == 0x100)
    #expect(bench.verdicts.isEmpty)
  }

  @Test(arguments: [OperationKind.migrateToDevice, .makeDeviceExclusive])
  func `a fork, an mprotect, an mremap and a munmap find such pages as they find others`(kind: OperationKind) throws {
    var (bench, space, device) = try bench()
    #expect(try run(&bench, .range(kind, space, area), device)?.value == 4)
    let fork = try run(&bench, .fork(space), device)
    let child = AddressSpaceID(rawValue: UInt32(try #require(fork).value))
    try bench.store(space, 0x100, 1)
    #expect(try bench.load(child, 0x100) == 0x100)
    #expect(try run(&bench, .mprotect(space, area, .read), device)?.status == .success)
    let store = OperationRequest.cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: 0x101 << 12, value: 9))
    #expect(try run(&bench, store, device)?.status == .accessDenied)
    #expect(try bench.load(space, 0x101) == 0x101)
    #expect(
      try run(&bench, .move(.mremap, space, PageRange(first: 0x102, count: 2), to: 0x300), device)?.status == .success)
    #expect(try bench.load(space, 0x300) == 0x102)
    #expect(try run(&bench, .munmap(space, area), device)?.status == .success)
    #expect(try run(&bench, .exit(child), device)?.status == .success)
    #expect(try bench.load(space, 0x301) == 0x103)
  }

  @Test func `what a page's protection by a monitor forbids, it forbids when the page comes back`() throws {
    var (bench, space, device) = try bench()
    #expect(try run(&bench, .protect(.uffdWriteProtect, space, area, .read), device)?.status == .success)
    #expect(try run(&bench, .range(.migrateToDevice, space, area), device)?.value == 4)
    let store = OperationRequest.cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: 0x100 << 12, value: 9))
    #expect(try run(&bench, store, device)?.status == .accessDenied)
    #expect(try bench.load(space, 0x100) == 0x100)
    #expect(try run(&bench, store, device)?.status == .accessDenied)
    #expect(try run(&bench, .protect(.uffdWriteProtect, space, area, .readWrite), device)?.status == .success)
    #expect(try run(&bench, store, device)?.status == .success)
  }

  // MARK: Whose memory

  /// A driver that has taken the four pages, and another one.
  func drivers() throws -> (Bench, AddressSpaceID, own: SubscriberID, other: SubscriberID) {
    var (bench, space, _) = try Bench.mirrored(.secondaryTLB)
    for page in area.first..<area.end { try bench.store(space, page, page) }
    var ids: [SubscriberID] = []
    for owner in [7, 8] as [UInt32] {
      let profile = SubscriberProfile(kind: .interval, owner: owner)
      guard case .subscriber(let id, _, _) = try bench.apply(.subscribe(space, profile)) else { throw Surprise() }
      ids.append(id)
    }
    try bench.apply(.takePages(ids[0], .migrateToDevice, area))
    bench.settle()
    try bench.answerAll(bench.machine.subscribers.ids)
    return (bench, space, ids[0], ids[1])
  }

  @Test func `a fault of the owner finds its pages where they are, and another's brings them back`() throws {
    var (bench, _, own, other) = try drivers()
    let taken = try #require(bench.faults.last)
    #expect(taken.pages.allSatisfy { $0.isDeviceMemory })
    #expect(try bench.fault(own, 0x100, 4)?.pages == taken.pages)
    #expect(try bench.fault(own, 0x100, 4, [])?.pages == taken.pages, "a snapshot too")
    #expect(try bench.fault(other, 0x100, 4, [])?.pages.map(\.physicalAddress) == [0, 0, 0, 0])
    let fault = try bench.startFault(other, 0x100, 1)
    while bench.outcome(fault) == nil { try bench.answerAll(bench.machine.subscribers.ids) }
    let back = try #require(try bench.fault(own, 0x100, 4))
    #expect(back.pages.map(\.isDeviceMemory) == [false, true, true, true])
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `pages that another driver has are not handed to one that asks for them`() throws {
    var (bench, _, _, other) = try drivers()
    try bench.apply(.takePages(other, .migrateToDevice, area))
    bench.settle()
    #expect(bench.faults.last?.subscriber == other)
    #expect(bench.faults.last?.pages.map(\.physicalAddress) == [0, 0, 0, 0])
  }

  @Test func `what a fork shares of a device's memory is its owner's to read, and a write gets a copy`() throws {
    var (bench, space, own, _) = try drivers()
    let fork = try bench.start(.fork(space))
    bench.settle()
    try bench.answerAll(bench.machine.subscribers.ids)
    let child = AddressSpaceID(rawValue: UInt32(try #require(bench.outcome(fork)).value))
    let shared = try #require(try bench.fault(own, 0x100, 1, .read))
    #expect(shared.pages.map(\.rights) == [.read])
    #expect(shared.pages.allSatisfy { $0.isDeviceMemory })
    let write = try bench.startFault(own, 0x100, 1)
    while bench.outcome(write) == nil { try bench.answerAll(bench.machine.subscribers.ids) }
    let address = try #require(try bench.fault(own, 0x100, 1)).pages[0]
    #expect(address.rights == .readWrite && !address.isDeviceMemory)
    try bench.install(own, try #require(bench.faults.last))
    try bench.use(own, 0x100, address.physicalAddress, write: 1)
    #expect(try bench.load(child, 0x100) == 0x100)
    #expect(bench.verdicts.isEmpty)
  }
}
