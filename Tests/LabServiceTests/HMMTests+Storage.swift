// SPDX-License-Identifier: Apache-2.0
//
// The rest of HMMTests: files, huge pages, and device memory whose range is moved, cut or given up.
import LabProtocol
import Testing

extension HMMTests.Fixture {
  /// Maps eight pages of a new file, shared.
  func mapFile(_ address: UInt64) throws {
    let created: LabCreateFileResponse = try device.call(
      .createFile,
      LabCreateFileRequest.with {
        $0.machine = machine
        $0.byteCount = "0x8000"
      })
    let response: LabMmapResponse = try device.call(
      .mmap,
      LabMmapRequest.with {
        $0.machine = machine
        $0.addressSpace = space
        $0.address = Hex.string(address)
        $0.byteCount = "0x8000"
        $0.read = true
        $0.write = true
        $0.file = created.file
        $0.shared = true
      })
    #expect(response.operation.status == .success)
  }

  func reclaim(_ address: UInt64, pages: UInt64) throws -> UInt64 {
    let response: LabReclaimPagesResponse = try device.call(
      .reclaimPages,
      LabReclaimPagesRequest.with {
        $0.machine = machine
        $0.addressSpace = space
        $0.address = Hex.string(address)
        $0.byteCount = Hex.string(pages << 12)
      })
    return response.operation.pageCount
  }

  func collapse(_ address: UInt64) throws -> UInt64 {
    let response: LabMadviseCollapseResponse = try device.call(
      .madviseCollapse,
      LabMadviseCollapseRequest.with {
        $0.machine = machine
        $0.addressSpace = space
        $0.address = Hex.string(address)
        $0.byteCount = "0x200000"
      })
    return response.operation.pageCount
  }

  func mremap(_ address: UInt64, pages: UInt64, to destination: UInt64) throws {
    let response: LabMremapResponse = try device.call(
      .mremap,
      LabMremapRequest.with {
        $0.machine = machine
        $0.addressSpace = space
        $0.address = Hex.string(address)
        $0.byteCount = Hex.string(pages << 12)
        $0.destination = Hex.string(destination)
      })
    #expect(response.operation.status == .success)
  }
}

extension HMMTests {
  private static let filePage: UInt64 = 0x1000
  private static var file: UInt64 { base + filePage << 12 }

  @Test func file_read() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.mapFile(Self.file)
      for page in 0..<UInt64(8) { try fixture.store(page + 1, page: Self.filePage + page) }
      #expect(try fixture.reclaim(Self.file, pages: 8) == 8, "the file alone has the data")
      #expect(try fixture.device.read(Self.file, pages: 8) == (.done, Array(1...8)))
      #expect(fixture.device.faults == 1)
      try fixture.expectNoVerdict()
    }
  }

  @Test func file_write() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.mapFile(Self.file)
      #expect(try fixture.device.write(Self.file, Array(1...8)) == .done)
      #expect(fixture.device.faults == 1)
      #expect(try fixture.reclaim(Self.file, pages: 8) == 8, "the mirror lets go of the pages")
      for page in 0..<UInt64(8) { #expect(try fixture.load(page: Self.filePage + page) == page + 1) }
      try fixture.expectNoVerdict()
    }
  }

  @Test func anon_write_child_shared() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.mapFile(Self.file)
      for page in 0..<UInt64(8) { try fixture.store(page + 1, page: Self.filePage + page) }
      let child = try fixture.fork()
      #expect(try fixture.device.write(Self.file, Array(11...18)) == .done)
      for page in 0..<UInt64(8) {
        #expect(try fixture.load(page: Self.filePage + page) == page + 11)
        #expect(try fixture.load(page: Self.filePage + page, in: child) == page + 11, "the child sees it too")
      }
      try fixture.expectNoVerdict()
    }
  }

  @Test func anon_write_huge() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, pages: 512)
      try fixture.store(9, page: 5)
      #expect(try fixture.collapse(Self.base) == 512)
      #expect(try fixture.device.snapshot(Self.base, pages: 512).allSatisfy { $0.sizeLog2 == 21 })
      #expect(try fixture.device.write(Self.base, Array(1...512)) == .done)
      #expect(fixture.device.faults == 1)
      for page in [UInt64(0), 5, 511] { #expect(try fixture.load(page: page) == page + 1) }
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_release() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      for page in 0..<UInt64(8) { try fixture.store(page + 1, page: page) }
      #expect(try fixture.device.migrate(Self.base, pages: 8) == 8)
      #expect(try fixture.device.write(Self.base, Array(11...18)) == .done)
      try fixture.device.close()
      for page in 0..<UInt64(8) { #expect(try fixture.load(page: page) == page + 11, "what the device had comes back") }
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_remap_fault() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      for page in 0..<UInt64(8) { try fixture.store(page + 1, page: page) }
      #expect(try fixture.device.migrate(Self.base, pages: 8) == 8)
      try fixture.mremap(Self.base, pages: 8, to: Self.file)
      #expect(try fixture.device.read(Self.base, pages: 8).outcome == .fault)
      for page in 0..<UInt64(4) { #expect(try fixture.load(page: Self.filePage + page) == page + 1) }
      #expect(try fixture.device.read(Self.file, pages: 8) == (.done, Array(1...8)))
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_partial_unmap_fault() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      for page in 0..<UInt64(8) { try fixture.store(page + 1, page: page) }
      #expect(try fixture.device.migrate(Self.base, pages: 8) == 8)
      try fixture.munmap(Self.base + 4 << 12, pages: 4)
      #expect(try fixture.device.read(Self.base, pages: 4) == (.done, [1, 2, 3, 4]))
      for page in 0..<UInt64(4) { #expect(try fixture.load(page: page) == page + 1) }
      #expect(try fixture.device.read(Self.base + 4 << 12, pages: 4).outcome == .fault)
      try fixture.expectNoVerdict()
    }
  }
}
