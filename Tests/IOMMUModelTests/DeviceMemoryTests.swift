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
}
