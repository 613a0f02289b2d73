// SPDX-License-Identifier: Apache-2.0
//
// The rest of HMMTests: files, a huge page of the processor's, and device memory that is given up.
import LabProtocol
import RPCClient
import Testing

extension HMMTests.Fixture {
  /// Maps eight pages of a new file.
  func mapFile(_ address: UInt64, isShared: Bool = true) throws {
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
        $0.shared = isShared
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

  func exit(_ space: String) throws {
    let response: LabExitResponse = try device.call(
      .exit,
      LabExitRequest.with {
        $0.machine = machine
        $0.addressSpace = space
      })
    #expect(response.operation.status == .success)
  }

  func createDomain() throws -> String {
    let response: LabCreateDomainResponse = try device.call(
      .createDomain,
      LabCreateDomainRequest.with {
        $0.machine = machine
        $0.kind = .paging
      })
    return response.domain
  }

  /// Pins pages from the first one on, as IOAS_MAP does.
  func pin(_ pages: UInt64, into domain: String) throws {
    let _: LabMapResponse = try device.call(
      .map,
      LabMapRequest.with {
        $0.machine = machine
        $0.domain = domain
        $0.address = "0x10000"
        $0.byteCount = Hex.string(pages << 12)
        $0.read = true
        $0.write = true
        $0.source.addressSpace = space
        $0.source.address = Hex.string(HMMTests.base)
      })
  }

  func unpin(_ pages: UInt64, from domain: String) throws {
    let response: LabUnmapResponse = try device.call(
      .unmap,
      LabUnmapRequest.with {
        $0.machine = machine
        $0.domain = domain
        $0.address = "0x10000"
        $0.byteCount = Hex.string(pages << 12)
      })
    #expect(response.operation.status == .success)
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
      try fixture.fill(8)
      #expect(try fixture.device.migrate(Self.base, pages: 8) == 8)
      #expect(try fixture.device.write(Self.base, Array(11...18)) == .done)
      try fixture.device.close()
      for page in 0..<UInt64(8) { #expect(try fixture.load(page: page) == page + 11, "what the device had comes back") }
      try fixture.expectNoVerdict()
    }
  }

  /// The page is somebody else's, as that which test_hmm's own mmap inserts: a file's, mapped privately.
  @Test func mixedmap() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.mapFile(Self.file, isShared: false)
      #expect(try fixture.load(page: Self.filePage) == 0)
      let pages = try fixture.device.snapshot(Self.file, pages: 1)
      #expect(pages.map(\.read) == [true])
      #expect(pages.map(\.write) == [false])
      #expect(try fixture.device.migrate(Self.file, pages: 1) == 0, "only a process's own pages go")
      #expect(try fixture.device.snapshot(Self.file, pages: 1) == pages)
      #expect(try fixture.device.read(Self.file, pages: 1) == (.done, [0]))
      try fixture.expectNoVerdict()
    }
  }

  @Test func hmm_cow_in_device() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(4)
      #expect(try fixture.device.migrate(Self.base, pages: 4) == 4)
      let child = try fixture.fork()
      for page in 0..<UInt64(4) { try fixture.store(page + 11, page: page) }
      for page in 0..<UInt64(4) { #expect(try fixture.load(page: page, in: child) == page + 1, "the child's copy") }
      for page in 0..<UInt64(4) { try fixture.store(page + 21, page: page, in: child) }
      try fixture.exit(child)
      let pages = try fixture.device.snapshot(Self.base, pages: 4)
      #expect(pages.allSatisfy { $0.write && !$0.deviceMemory }, "back in memory, and the parent's alone")
      #expect(try fixture.device.read(Self.base, pages: 4) == (.done, [11, 12, 13, 14]))
      try fixture.expectNoVerdict()
    }
  }

  /// The long-term pin is iommufd's: a PAGING domain maps the process's pages.
  @Test func hmm_gup_test() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(4)
      #expect(try fixture.device.migrate(Self.base, pages: 4) == 4)
      let domain = try fixture.createDomain()
      let failure = try #require(throws: RPCFailure.self, performing: { try fixture.pin(4, into: domain) })
      #expect(failure.reason == "NO_AREA_IN_RANGE", "what is in a device's memory is not pinned there")
      // The fault of get_user_pages, for each page.
      for page in 0..<UInt64(4) { #expect(try fixture.load(page: page) == page + 1) }
      try fixture.pin(4, into: domain)
      #expect(try fixture.device.snapshot(Self.base, pages: 4).allSatisfy { $0.write && !$0.deviceMemory })
      #expect(try fixture.device.migrate(Self.base, pages: 4) == 0, "a page that is pinned stays")
      for page in 0..<UInt64(4) { #expect(try fixture.load(page: page) == page + 1) }
      try fixture.unpin(4, from: domain)
      #expect(try fixture.device.migrate(Self.base, pages: 4) == 4)
      #expect(try fixture.device.read(Self.base, pages: 4) == (.done, [1, 2, 3, 4]))
      try fixture.expectNoVerdict()
    }
  }
}
