// SPDX-License-Identifier: Apache-2.0
//
// Goal: what the kernel's own `hmm-tests.c` checks of HMM holds of the mirror service: same names, same checks where they
// apply. Method: a device like that of `test_hmm.c`, over a socket, in one process with the memory that it mirrors.
import LabProtocol
import LabService
import RPCClient
import Testing

@Suite struct HMMTests {
  static let base: UInt64 = 0x7f00_0000_0000

  /// A process with an open device.
  struct Fixture {
    let device: DMirror
    var machine: String { device.machine }
    var space: String { device.space }

    init(_ lab: Lab, pages: UInt64 = 8, pageSize: UInt64 = 0x1000, write: Bool = true) throws {
      var settings = Bench.kernelOfNow
      // Seven blocks of 2 MiB, and as many small pages as two of them.
      settings.frameCount = 4096 + 500
      let bench = try Bench(lab.client(), settings: settings)
      device = try DMirror(
        DMirror.Connection(try lab.client()), machine: bench.machine, space: bench.space)
      try map(pages: pages, pageSize: pageSize, write: write)
    }

    func map(
      _ address: UInt64 = base, pages: UInt64, pageSize: UInt64 = 0x1000, write: Bool = true, in space: String? = nil
    ) throws {
      let response: LabMmapResponse = try device.call(
        .mmap,
        LabMmapRequest.with {
          $0.machine = machine
          $0.addressSpace = space ?? self.space
          $0.address = Hex.string(address)
          $0.byteCount = Hex.string(pages << 12)
          $0.read = true
          $0.write = write
          $0.pageSize = Hex.string(pageSize)
        })
      #expect(response.operation.status == .success)
    }

    func munmap(_ address: UInt64 = base, pages: UInt64) throws {
      let response: LabMunmapResponse = try device.call(
        .munmap,
        LabMunmapRequest.with {
          $0.machine = machine
          $0.addressSpace = space
          $0.address = Hex.string(address)
          $0.byteCount = Hex.string(pages << 12)
        })
      #expect(response.operation.status == .success)
    }

    func protect(_ address: UInt64 = base, pages: UInt64, read: Bool, write: Bool) throws {
      let response: LabMprotectResponse = try device.call(
        .mprotect,
        LabMprotectRequest.with {
          $0.machine = machine
          $0.addressSpace = space
          $0.address = Hex.string(address)
          $0.byteCount = Hex.string(pages << 12)
          $0.read = read
          $0.write = write
        })
      #expect(response.operation.status == .success)
    }

    func store(_ word: UInt64, page: UInt64, in space: String? = nil) throws {
      #expect(try storeStatus(word, page: page, in: space) == .success)
    }

    /// Page n gets the word n + 1.
    func fill(_ pages: UInt64) throws { for page in 0..<pages { try store(page + 1, page: page) } }

    func storeStatus(_ word: UInt64, page: UInt64, in space: String?) throws -> LabOperationStatus {
      let response: LabStoreResponse = try device.call(
        .store,
        LabStoreRequest.with {
          $0.machine = machine
          $0.addressSpace = space ?? self.space
          $0.address = Hex.string(base + page << 12)
          $0.value = Hex.string(word)
        })
      return response.operation.status
    }

    func load(page: UInt64, in space: String? = nil) throws -> UInt64 {
      let response: LabLoadResponse = try device.call(
        .load,
        LabLoadRequest.with {
          $0.machine = machine
          $0.addressSpace = space ?? self.space
          $0.address = Hex.string(base + page << 12)
        })
      #expect(response.operation.status == .success)
      return try Hex.parse(response.operation.value)
    }

    func fork() throws -> String {
      let response: LabForkResponse = try device.call(
        .fork,
        LabForkRequest.with {
          $0.machine = machine
          $0.addressSpace = space
        })
      return response.operation.addressSpace
    }

    func expectNoVerdict() throws {
      let response: LabListVerdictsResponse = try device.call(
        .listVerdicts, LabListVerdictsRequest.with { $0.machine = machine })
      #expect(response.verdicts.isEmpty, "\(response.verdicts.first?.explanation ?? "")")
    }
  }

  @Test func open_close() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.device.close()
      let failure = try #require(
        throws: RPCFailure.self, performing: { try fixture.device.read(Self.base, pages: 1) })
      #expect(failure.reason == "UNKNOWN_SUBSCRIBER")
    }
  }

  @Test func anon_read() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      #expect(try fixture.device.read(Self.base, pages: 8) == (.done, Array(1...8)))
      #expect(fixture.device.faults == 1)
      try fixture.expectNoVerdict()
    }
  }

  @Test func anon_write() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      #expect(try fixture.device.write(Self.base, Array(1...8)) == .done)
      #expect(fixture.device.faults == 1)
      for page in 0..<UInt64(8) { #expect(try fixture.load(page: page) == page + 1) }
      try fixture.expectNoVerdict()
    }
  }

  @Test func anon_write_hugetlbfs() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, pages: 512, pageSize: 0x20_0000)
      #expect(try fixture.device.write(Self.base, Array(1...512)) == .done)
      #expect(fixture.device.faults == 1)
      for page in [UInt64(0), 1, 511] { #expect(try fixture.load(page: page) == page + 1) }
      try fixture.expectNoVerdict()
    }
  }

  @Test func anon_read_prot() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      try fixture.protect(pages: 8, read: false, write: false)
      #expect(try fixture.device.read(Self.base, pages: 8).outcome == .fault)
      try fixture.protect(pages: 8, read: true, write: true)
      #expect(try fixture.device.read(Self.base, pages: 8) == (.done, Array(1...8)), "the data is still there")
      try fixture.expectNoVerdict()
    }
  }

  @Test func anon_write_prot() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, write: false)
      #expect(try fixture.device.read(Self.base, pages: 8) == (.done, Array(repeating: 0, count: 8)))
      #expect(try fixture.device.write(Self.base, Array(1...8)) == .notPermitted)
      #expect(try fixture.load(page: 0) == 0)
      try fixture.protect(pages: 8, read: true, write: true)
      #expect(try fixture.device.write(Self.base, Array(1...8)) == .done)
      for page in 0..<UInt64(8) { #expect(try fixture.load(page: page) == page + 1) }
      try fixture.expectNoVerdict()
    }
  }

  @Test func anon_write_child() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      #expect(try fixture.device.read(Self.base, pages: 8).outcome == .done)
      let child = try fixture.fork()
      #expect(fixture.device.events.contains { $0.reason == .protectionPage })
      #expect(try fixture.device.write(Self.base, Array(101...108)) == .done)
      for page in 0..<UInt64(8) {
        #expect(try fixture.load(page: page) == page + 101)
        #expect(try fixture.load(page: page, in: child) == page + 1, "the child keeps what it had")
      }
      try fixture.expectNoVerdict()
    }
  }

  @Test func anon_read_multiple() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      for round in UInt64(0)..<16 {
        for page in 0..<UInt64(8) { try fixture.store(round << 8 + page, page: page) }
        let (outcome, words) = try fixture.device.read(Self.base, pages: 8)
        #expect(outcome == .done)
        #expect(words == (0..<8).map { round << 8 + $0 }, "round \(round)")
        try fixture.munmap(pages: 8)
        try fixture.map(pages: 8)
      }
      #expect(fixture.device.faults == 16)
      try fixture.expectNoVerdict()
    }
  }

  @Test func anon_teardown() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      #expect(try fixture.device.read(Self.base, pages: 4).words == [1, 2, 3, 4])
      try fixture.munmap(Self.base + 2 << 12, pages: 6)
      let (outcome, words) = try fixture.device.read(Self.base, pages: 8)
      #expect(outcome == .fault)
      #expect(words == [1, 2], "whole data up to the hole, and an error")
      try fixture.expectNoVerdict()
    }
  }

  @Test func snapshot() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      let second = try fixture.device.beside(owner: 2)
      try fixture.protect(pages: 1, read: false, write: false)
      try fixture.munmap(Self.base + 1 << 12, pages: 1)
      try fixture.protect(Self.base + 2 << 12, pages: 1, read: true, write: false)
      #expect(try fixture.load(page: 2) == 0)
      try fixture.store(3, page: 3)
      try fixture.protect(Self.base + 3 << 12, pages: 1, read: true, write: false)
      for page in 4..<UInt64(7) { try fixture.store(page, page: page) }
      #expect(try fixture.device.migrate(Self.base + 5 << 12, pages: 1) == 1)
      #expect(try second.migrate(Self.base + 6 << 12, pages: 1) == 1)
      let pages = try fixture.device.snapshot(Self.base, pages: 7)
      #expect(pages.map(\.read) == [false, false, true, true, true, true, false])
      #expect(pages.map(\.write) == [false, false, false, false, true, true, false])
      #expect(pages.map(\.deviceMemory) == [false, false, false, false, false, true, false], "local, and remote")
      #expect(pages.map(\.physicalAddress.isEmpty) == [true, true, false, false, false, false, true])
      #expect(try fixture.device.snapshot(Self.base, pages: 7) == pages, "it faulted nothing in")
      try fixture.expectNoVerdict()
    }
  }

  @Test func compound() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, pages: 512, pageSize: 0x20_0000)
      try fixture.store(1, page: 0)
      let pages = try fixture.device.snapshot(Self.base, pages: 512)
      #expect(pages.allSatisfy { $0.sizeLog2 == 21 && $0.write })
      try fixture.protect(pages: 512, read: true, write: false)
      #expect(try fixture.device.snapshot(Self.base, pages: 512).allSatisfy { $0.sizeLog2 == 21 && !$0.write })
      try fixture.expectNoVerdict()
    }
  }

  @Test func double_map() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      try fixture.protect(pages: 8, read: true, write: false)
      let second = try fixture.device.beside(owner: 2)
      for device in [fixture.device, second] {
        #expect(try device.read(Self.base, pages: 8) == (.done, Array(1...8)))
        #expect(device.faults == 1)
      }
      #expect(try second.migrate(Self.base, pages: 8) == 8)
      #expect(try second.read(Self.base, pages: 8) == (.done, Array(1...8)))
      #expect(second.faults == 1, "it has them already")
      #expect(
        try fixture.device.read(Self.base, pages: 8) == (.done, Array(1...8)), "they come back out of the other one")
      #expect(fixture.device.faults == 2)
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      #expect(try fixture.device.migrate(Self.base, pages: 8) == 8)
      #expect(try fixture.device.read(Self.base, pages: 8) == (.done, Array(1...8)))
      #expect(try fixture.device.write(Self.base, Array(11...18)) == .done)
      #expect(fixture.device.faults == 0, "it has them already")
      for page in 0..<UInt64(8) { #expect(try fixture.load(page: page) == page + 11) }
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_fault() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      #expect(try fixture.device.migrate(Self.base, pages: 8) == 8)
      for page in 0..<UInt64(4) { #expect(try fixture.load(page: page) == page + 1, "half of it faults back") }
      #expect(try fixture.device.migrate(Self.base, pages: 4) == 4)
      #expect(try fixture.device.read(Self.base, pages: 8) == (.done, Array(1...8)))
      for page in 0..<UInt64(8) { #expect(try fixture.load(page: page) == page + 1) }
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_multiple() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      for round in UInt64(0)..<8 {
        for page in 0..<UInt64(8) { try fixture.store(round << 8 + page, page: page) }
        #expect(try fixture.device.migrate(Self.base, pages: 8) == 8)
        #expect(try fixture.device.read(Self.base, pages: 8).words == (0..<8).map { round << 8 + $0 })
      }
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_shared() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      _ = try fixture.fork()
      #expect(try fixture.device.migrate(Self.base, pages: 8) == 0, "others use the pages too")
      #expect(try fixture.device.read(Self.base, pages: 8) == (.done, Array(1...8)))
      try fixture.expectNoVerdict()
    }
  }

  @Test func migrate_mixed() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab, pages: 6)
      let second = try fixture.device.beside(owner: 2)
      try fixture.protect(pages: 6, read: false, write: false)
      #expect(try second.migrate(Self.base, pages: 6) == 0, "nobody may reach them")
      try fixture.munmap(Self.base + 1 << 12, pages: 1)
      #expect(try second.migrate(Self.base, pages: 3) == 0, "a hole, which the driver's ioctl answers with EINVAL")
      try fixture.protect(Self.base + 2 << 12, pages: 1, read: true, write: false)
      #expect(try fixture.load(page: 2) == 0)
      try fixture.protect(Self.base + 3 << 12, pages: 3, read: true, write: true)
      for page in 3..<UInt64(6) { try fixture.store(page, page: page) }
      try fixture.protect(Self.base + 3 << 12, pages: 1, read: true, write: false)
      #expect(try second.migrate(Self.base, pages: 6) == 4, "of all that, four pages go")
      #expect(try second.read(Self.base + 2 << 12, pages: 4) == (.done, [0, 3, 4, 5]))
      #expect(try second.write(Self.base + 3 << 12, [9]) == .notPermitted)
      #expect(try fixture.device.migrate(Self.base + 5 << 12, pages: 1) == 0, "it is on the other device")
      #expect(try fixture.device.read(Self.base + 2 << 12, pages: 4) == (.done, [0, 3, 4, 5]))
      try fixture.expectNoVerdict()
    }
  }

  @Test func exclusive() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      #expect(try fixture.device.makeExclusive(Self.base, pages: 8) == 8)
      #expect(try fixture.device.write(Self.base, Array(11...18)) == .done)
      #expect(fixture.device.faults == 0)
      let before = fixture.device.events.count
      #expect(try fixture.load(page: 3) == 14)
      #expect(fixture.device.events.count == before + 1, "a touch of the CPU revokes it, and says so first")
      #expect(try fixture.device.read(Self.base, pages: 8) == (.done, Array(11...18)))
      #expect(fixture.device.faults == 1)
      try fixture.expectNoVerdict()
    }
  }

  @Test func exclusive_mprotect() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      #expect(try fixture.device.makeExclusive(Self.base, pages: 8) == 8)
      try fixture.protect(pages: 8, read: true, write: false)
      #expect(try fixture.device.write(Self.base, Array(11...18)) == .notPermitted)
      #expect(try fixture.load(page: 0) == 1)
      try fixture.expectNoVerdict()
    }
  }

  @Test func exclusive_cow() async throws {
    try await Lab.run { lab in
      let fixture = try Fixture(lab)
      try fixture.fill(8)
      #expect(try fixture.device.makeExclusive(Self.base, pages: 8) == 8)
      let child = try fixture.fork()
      for page in 0..<UInt64(8) { try fixture.store(page + 11, page: page) }
      for page in 0..<UInt64(8) {
        #expect(try fixture.load(page: page) == page + 11)
        #expect(try fixture.load(page: page, in: child) == page + 1)
      }
      try fixture.expectNoVerdict()
    }
  }
}
