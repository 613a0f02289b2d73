// SPDX-License-Identifier: Apache-2.0
//
// The rest of HMMTests: huge pages that a device takes into its memory, whole or in parts.
import LabProtocol
import Testing

extension HMMTests {
  /// One huge page of 2 MiB at `base`, with something else in each of its pages.
  private func hugePage(_ fixture: Fixture, zero: Bool = false) throws {
    for page in 0..<UInt64(512) where !zero || page == 0 { try fixture.store(zero ? 0 : page + 1, page: page) }
    #expect(try fixture.collapse(Self.base) == 512)
  }

  /// As HMM_DMIRROR_FLAG_FAIL_ALLOC does: the next huge page finds no block, for huge pages of another process have all.
  private func takeAllBlocks(_ fixture: Fixture) throws -> String {
    let created: LabCreateAddressSpaceResponse = try fixture.device.call(
      .createAddressSpace, LabCreateAddressSpaceRequest.with { $0.machine = fixture.machine })
    let space = created.addressSpace
    try fixture.map(Self.base, pages: 512 * 8, pageSize: 0x20_0000, in: space)
    for block in 0..<UInt64(8) where try fixture.storeStatus(1, page: block * 512, in: space) != .success {
      return space
    }
    Issue.record("eight blocks were free")
    return space
  }

  @Test func migrate_anon_huge_empty() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, pages: 512, write: false)
      #expect(try fixture.device.migrate(Self.base, pages: 512) == 512)
      #expect(fixture.device.blockSizes == [21], "as one")
      #expect(try fixture.device.read(Self.base, pages: 512) == (.done, Array(repeating: 0, count: 512)))
      #expect(fixture.device.faults == 0)
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_anon_huge_zero() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, pages: 512)
      try hugePage(fixture, zero: true)
      #expect(try fixture.device.migrate(Self.base, pages: 512) == 512)
      #expect(fixture.device.blockSizes == [21])
      #expect(try fixture.device.read(Self.base, pages: 512) == (.done, Array(repeating: 0, count: 512)))
      for page in 0..<UInt64(512) { #expect(try fixture.load(page: page) == 0) }
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_anon_huge_free() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, pages: 512)
      try hugePage(fixture)
      #expect(try fixture.device.migrate(Self.base, pages: 512) == 512)
      #expect(try fixture.device.read(Self.base, pages: 512) == (.done, Array(1...512)))
      let freed: LabMadviseFreeResponse = try fixture.device.call(
        .madviseFree,
        LabMadviseFreeRequest.with {
          $0.machine = fixture.machine
          $0.addressSpace = fixture.space
          $0.address = Hex.string(Self.base)
          $0.byteCount = "0x200000"
        })
      #expect(freed.operation.status == .success)
      try fixture.munmap(pages: 512)
      #expect(try fixture.device.read(Self.base, pages: 1).outcome == .fault)
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_anon_huge_fault() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, pages: 512)
      try hugePage(fixture)
      #expect(try fixture.device.migrate(Self.base, pages: 512) == 512)
      #expect(fixture.device.blockSizes == [21])
      #expect(try fixture.device.write(Self.base, Array(1001...1512)) == .done)
      let told = fixture.device.events.count
      for page in 0..<UInt64(512) { #expect(try fixture.load(page: page) == page + 1001) }
      #expect(fixture.device.events.count == told + 1, "all of it comes back with the first touch")
      #expect(try fixture.device.snapshot(Self.base, pages: 512).allSatisfy { $0.sizeLog2 == 21 && $0.write })
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_anon_huge_err() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, pages: 512)
      try hugePage(fixture)
      // No block for the device: the pages go one by one.
      let other = try takeAllBlocks(fixture)
      #expect(try fixture.device.migrate(Self.base, pages: 512) == 512)
      #expect(fixture.device.blockSizes == [12])
      #expect(try fixture.device.read(Self.base, pages: 512) == (.done, Array(1...512)))
      #expect(try fixture.load(page: 4) == 5, "one page comes back")
      #expect(try fixture.device.snapshot(Self.base, pages: 512).filter { !$0.deviceMemory }.count == 1)
      try fixture.exit(other)

      // No block for what comes back: one page does.
      try fixture.munmap(pages: 512)
      try fixture.map(pages: 512)
      try hugePage(fixture)
      #expect(try fixture.device.migrate(Self.base, pages: 512) == 512)
      #expect(fixture.device.blockSizes == [21])
      _ = try takeAllBlocks(fixture)
      #expect(try fixture.load(page: 4) == 5)
      let pages = try fixture.device.snapshot(Self.base, pages: 512)
      #expect(pages.indices.filter { !pages[$0].deviceMemory } == [4])
      for page in 0..<UInt64(512) { #expect(try fixture.load(page: page) == page + 1) }
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_anon_huge_zero_err() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, pages: 512, write: false)
      let other = try takeAllBlocks(fixture)
      #expect(try fixture.device.migrate(Self.base, pages: 512) == 512)
      #expect(fixture.device.blockSizes == [12], "nothing stood there, and no block was free")
      #expect(try fixture.device.read(Self.base, pages: 512) == (.done, Array(repeating: 0, count: 512)))
      #expect(try fixture.load(page: 4) == 0)
      try fixture.exit(other)

      try fixture.munmap(pages: 512)
      try fixture.map(pages: 512)
      try hugePage(fixture, zero: true)
      _ = try takeAllBlocks(fixture)
      #expect(try fixture.device.migrate(Self.base, pages: 512) == 512)
      for page in 0..<UInt64(512) { #expect(try fixture.load(page: page) == 0) }
      try fixture.expectNoVerdict()
    }
  }

  @Test(arguments: [0, 128, 256] as [UInt64])
  func migrate_partial_unmap_fault(_ offset: UInt64) async throws {
    try await Lab.run { lab in
      for isHuge in [false, true] {
        let fixture = try Fixture(lab, pages: 512)
        try fixture.fill(512)
        if isHuge { #expect(try fixture.collapse(Self.base) == 512) }
        #expect(try fixture.device.migrate(Self.base, pages: 512) == 512)
        #expect(fixture.device.blockSizes == [isHuge ? 21 : 12])
        #expect(try fixture.device.read(Self.base, pages: 512) == (.done, Array(1...512)))
        try fixture.munmap(Self.base + offset << 12, pages: 256)
        for page in 0..<UInt64(512) where page < offset || page >= offset + 256 {
          #expect(try fixture.load(page: page) == page + 1)
        }
        #expect(try fixture.device.read(Self.base + offset << 12, pages: 1).outcome == .fault)
        try fixture.expectNoVerdict()
      }
    }
  }

  /// Moved before the migration or after it, to a place where the huge page stays one, or where it cannot.
  @Test(arguments: [false, true], [0, 1] as [UInt64])
  func migrate_remap_fault(_ isMovedFirst: Bool, _ shift: UInt64) async throws {
    let place: UInt64 = 512 * 4 + shift
    let destination = Self.base + place << 12
    try await Lab.run { lab in
      for isHuge in [false, true] {
        let fixture = try Fixture(lab, pages: 512)
        try fixture.fill(512)
        if isHuge { #expect(try fixture.collapse(Self.base) == 512) }
        if isMovedFirst { try fixture.mremap(Self.base, pages: 512, to: destination) }
        #expect(try fixture.device.migrate(isMovedFirst ? destination : Self.base, pages: 512) == 512)
        if !isMovedFirst { try fixture.mremap(Self.base, pages: 512, to: destination) }
        #expect(try fixture.device.read(Self.base, pages: 1).outcome == .fault)
        for page in 0..<UInt64(512) { #expect(try fixture.load(page: place + page) == page + 1) }
        try fixture.expectNoVerdict()
      }
    }
  }

  /// What a migration there and back asks of the driver, with huge pages and without: a machine's figure, where the time
  /// of a round trip would be the host's.
  @Test func benchmark_thp_migration() async throws {
    try await Lab.run { lab in
      for pages in [128, 512, 1024] as [UInt64] {
        let small = try migrationEvents(lab, pages, isHuge: false)
        #expect(small == [Int(pages), Int(pages)])
        guard pages >= 512 else { continue }
        let huge = try migrationEvents(lab, pages, isHuge: true)
        #expect(huge == [Int(pages / 512), Int(pages / 512)])
      }
    }
  }

  /// Events on the way to the device, and on the way back.
  private func migrationEvents(_ lab: Lab, _ pages: UInt64, isHuge: Bool) throws -> [Int] {
    let fixture = try Fixture(lab, pages: pages)
    for page in 0..<pages { try fixture.store(page + 1, page: page) }
    for block in 0..<pages / 512 where isHuge { #expect(try fixture.collapse(Self.base + block << 21) == 512) }
    var before = fixture.device.events.count
    for first in stride(from: 0, to: pages, by: 512) {
      let count = min(512, pages)
      #expect(try fixture.device.migrate(Self.base + first << 12, pages: count) == Int(count))
    }
    let toDevice = fixture.device.events.count - before
    before = fixture.device.events.count
    for page in 0..<pages { #expect(try fixture.load(page: page) == page + 1) }
    try fixture.expectNoVerdict()
    return [toDevice, fixture.device.events.count - before]
  }
}
