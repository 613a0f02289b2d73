// SPDX-License-Identifier: Apache-2.0
//
// Goal: every memory operation has its method, does what its name says over the network, and says what is wrong with a
// request. Method: one machine of each kernel; data is stored and loaded by CPUs, so that what moved can be seen.
import Foundation
import LabProtocol
import RPCClient
import Testing

@Suite struct MemoryMethodsTests {
  /// Calls with an address space's fields before the rest; answers the operation.
  func operation(_ bench: Bench, _ method: LabMethod, _ rest: String = "", space: String? = nil) throws -> LabOperation
  {
    bench.client.note(method)
    let json =
      "{\"machine\":\"\(bench.machine)\",\"addressSpace\":\"\(space ?? bench.space)\"\(rest.isEmpty ? "" : ",")\(rest)}"
    let reply = try bench.client.rpc.call(method.path, json: json)
    try #require(reply.failure == nil, "\(method) \(json): \(reply.text)")
    // Every response of an operation has the same one field.
    return try Array(reply.text.utf8).withUnsafeBytes { try LabCodec.decode(LabMunmapResponse.self, json: $0) }
      .operation
  }

  func store(_ bench: Bench, _ address: UInt64, _ value: UInt64, space: String? = nil) throws {
    let done = try operation(
      bench, .store, "\"address\":\"\(Hex.string(address))\",\"value\":\"\(Hex.string(value))\"", space: space)
    #expect(done.status == .success)
  }

  let base = Bench.base
  var range: String { "\"address\":\"\(Hex.string(base))\",\"byteCount\":\"0x2000\"" }

  func bench(_ lab: Lab, _ kernel: LabKernel) throws -> Bench {
    let settings = LabMachineSettings.with {
      $0.costs.preset = .zero
      $0.kernel = kernel
    }
    let bench = try Bench(try lab.client(), settings: settings)
    try bench.mmap()
    return bench
  }

  @Test("memory operations of both kernels over the network", arguments: [LabKernel.kernel2014, .now])
  func operations(kernel: LabKernel) async throws {
    try await Lab.run(loops: 2) { lab in
      let bench = try bench(lab, kernel)
      try store(bench, base, 5)
      try store(bench, base + 0x1000, 6)

      #expect(try operation(bench, .clearYoung, range).pageCount == 2)
      #expect(try operation(bench, .clearYoung, range).pageCount == 0)
      #expect(try operation(bench, .numaHint, range).status == .success)
      #expect(try bench.load() == "0x5")
      #expect(try bench.load(base + 0x1000) == "0x6")
      #expect(try operation(bench, .clearSoftDirty).status == .success)
      #expect(try operation(bench, .migratePages, range).pageCount == 2)
      #expect(try bench.load(base + 0x1000) == "0x6")

      // The writes bring the write right back that the soft-dirty clear took away.
      try store(bench, base, 5)
      try store(bench, base + 0x1000, 6)

      let other: LabCreateAddressSpaceResponse = try bench.client.call(
        .createAddressSpace, LabCreateAddressSpaceRequest.with { $0.machine = bench.machine })
      let area = "\"address\":\"\(Hex.string(base))\",\"byteCount\":\"0x2000\",\"read\":true,\"write\":true"
      #expect(try operation(bench, .mmap, area, space: other.addressSpace).status == .success)
      try store(bench, base, 5, space: other.addressSpace)
      try store(bench, base + 0x1000, 7, space: other.addressSpace)
      for space in [bench.space, other.addressSpace] {
        #expect(try operation(bench, .ksmWriteProtect, range, space: space).pageCount == 2)
      }
      let merged = try operation(
        bench, .ksmReplacePage,
        range + ",\"keeper\":\"\(other.addressSpace)\",\"keeperAddress\":\"\(Hex.string(base))\"")
      #expect(merged.pageCount == 1 && merged.kind == .ksmReplacePage)
      #expect(try bench.load() == "0x5")

      let moved = try operation(bench, .mremap, range + ",\"destination\":\"\(Hex.string(base + 0x100_0000))\"")
      #expect(moved.status == .success)
      #expect(try bench.load(base + 0x100_1000) == "0x6")
    }
  }

  @Test("UFFDIO_MOVE and the OOM reaper are in today's kernels, and refused by those of 2014")
  func kernels() async throws {
    try await Lab.run { lab in
      let now = try bench(lab, .now)
      try store(now, base, 5)
      let two =
        "\"address\":\"\(Hex.string(base))\",\"byteCount\":\"0x1000\",\"destination\":\"\(Hex.string(base + 0x2000))\""
      #expect(try operation(now, .uffdioMove, two).pageCount == 1)
      #expect(try now.load(base + 0x2000) == "0x5")
      #expect(try operation(now, .uffdioMove, two).status == .busy)
      #expect(try operation(now, .oomReap).status == .success)
      let load = try operation(now, .load, "\"address\":\"\(Hex.string(base))\"")
      #expect(load.status == .accessDenied)

      let old = try bench(lab, .kernel2014)
      let fields = "{\"machine\":\"\(old.machine)\",\"addressSpace\":\"\(old.space)\""
      for (method, json) in [(LabMethod.oomReap, fields + "}"), (.uffdioMove, fields + ",\(two)}")] {
        let failure = try old.client.failure(method, json)
        #expect(failure.code == "failed_precondition" && failure.reason == "NOT_IN_THIS_KERNEL")
      }
    }
  }

  @Test("pages leave memory by reclaim, come back from the swap device and from files, and are given up or protected")
  func storage() async throws {
    try await Lab.run { lab in
      let bench = try bench(lab, .now)
      try store(bench, base, 5)
      try store(bench, base + 0x1000, 6)
      #expect(try operation(bench, .reclaimPages, range).pageCount == 2)
      #expect(try operation(bench, .reclaimPages, range).status == .busy)
      #expect(try bench.load(base + 0x1000) == "0x6")
      #expect(try operation(bench, .uffdWriteProtect, range + ",\"protect\":true").status == .success)
      let refused = "\"address\":\"\(Hex.string(base))\",\"value\":\"0x1\""
      #expect(try operation(bench, .store, refused).status == .accessDenied)
      #expect(try operation(bench, .uffdWriteProtect, range).status == .success)
      #expect(try operation(bench, .store, refused).status == .success)
      #expect(try operation(bench, .madviseFree, range).status == .success)
      #expect(try operation(bench, .reclaimPages, range).pageCount == 2)
      #expect(try bench.load() == "0x0")

      for method in [LabMethod.migrateToDevice, .makeDeviceExclusive] {
        try store(bench, base, 7)
        #expect(
          try operation(bench, method, "\"address\":\"\(Hex.string(base))\",\"byteCount\":\"0x1000\"").pageCount == 1)
        #expect(try bench.load() == "0x7")
      }

      let created: LabCreateFileResponse = try bench.client.call(
        .createFile,
        LabCreateFileRequest.with {
          $0.machine = bench.machine
          $0.byteCount = "0x200000"
        })
      let place = "\"address\":\"0x40000000\",\"byteCount\":\"0x200000\""
      let mapping = ",\"read\":true,\"write\":true,\"file\":\"\(created.file)\",\"shared\":true"
      #expect(try operation(bench, .mmap, place + mapping).status == .success)
      try store(bench, 0x4000_1000, 8)
      #expect(try operation(bench, .writebackPages, place).pageCount == 1)
      #expect(try operation(bench, .retractTables, place).pageCount == 512)
      try store(bench, 0x4000_1000, 9)
      #expect(try operation(bench, .reclaimPages, place).pageCount == 1)
      #expect(try bench.load(0x4000_1000) == "0x9")
      let named = "{\"machine\":\"\(bench.machine)\",\"file\":\"\(created.file)\"}"
      #expect(try bench.client.failure(.deleteFile, named).reason == "FILE_IN_USE")
      #expect(try operation(bench, .munmap, place).status == .success)
      #expect(try bench.client.rpc.call(LabMethod.deleteFile.path, json: named).failure == nil)
      #expect(try bench.client.failure(.deleteFile, named).reason == "UNKNOWN_FILE")
    }
  }

  @Test(
    "a collapse makes a huge page, a split takes it apart, and the data stays", arguments: [LabKernel.kernel2014, .now])
  func hugePages(kernel: LabKernel) async throws {
    try await Lab.run { lab in
      let bench = try bench(lab, kernel)
      let place = "\"address\":\"0x40000000\",\"byteCount\":\"0x400000\""
      #expect(try operation(bench, .mmap, place + ",\"read\":true,\"write\":true").status == .success)
      try store(bench, 0x4000_1000, 8)
      #expect(try operation(bench, .madviseCollapse, place).pageCount == 512)
      #expect(try bench.load(0x4000_1000) == "0x8")
      #expect(try operation(bench, .splitPages, place).pageCount == 512)
      #expect(try bench.load(0x4000_1000) == "0x8")
      #expect(try operation(bench, .splitPages, place).status == .busy)
    }
  }

  @Test(
    "a child shares a page table of hugetlbfs, a DONTNEED leaves it, and both see what either writes",
    arguments: [LabKernel.kernel2014, .now])
  func sharedTables(kernel: LabKernel) async throws {
    try await Lab.run { lab in
      let bench = try bench(lab, kernel)
      let created: LabCreateFileResponse = try bench.client.call(
        .createFile,
        LabCreateFileRequest.with {
          $0.machine = bench.machine
          $0.byteCount = "0x40000000"
          $0.pageSize = "0x200000"
        })
      let place = "\"address\":\"0x40000000\",\"byteCount\":\"0x40000000\""
      let mapping = ",\"read\":true,\"write\":true,\"file\":\"\(created.file)\",\"shared\":true"
      #expect(try operation(bench, .mmap, place + mapping).status == .success)
      try store(bench, 0x4000_1000, 8)
      let child = try operation(bench, .fork, "").addressSpace
      func load(_ address: UInt64) throws -> String {
        let body =
          "{\"machine\":\"\(bench.machine)\",\"addressSpace\":\"\(child)\",\"address\":\"\(Hex.string(address))\"}"
        let response: LabLoadResponse = try bench.client.call(.load, LabLoadRequest(jsonString: body))
        return response.operation.value
      }
      #expect(try load(0x4000_1000) == "0x8")
      #expect(try operation(bench, .madviseDontNeed, place).status == .success)
      try store(bench, 0x4020_0000, 9)
      #expect(try load(0x4020_0000) == "0x9")
      #expect(try bench.load(0x4000_1000) == "0x8")
      #expect(try operation(bench, .munmap, place).status == .success)
      #expect(try load(0x4000_1000) == "0x8")
    }
  }

  @Test("what is wrong with a file or its mapping is named, and nothing has changed")
  func fileRefusals() async throws {
    try await Lab.run { lab in
      let bench = try bench(lab, .now)
      let created: LabCreateFileResponse = try bench.client.call(
        .createFile,
        LabCreateFileRequest.with {
          $0.machine = bench.machine
          $0.byteCount = "0x3000"
        })
      let before = try bench.stateHash()
      let file = "\"file\":\"\(created.file)\""
      let area = "\"address\":\"0x40000000\",\"byteCount\":\"0x2000\",\"read\":true"
      let cases: [(LabMethod, String, String, [String])] = [
        (.createFile, "\"byteCount\":\"0x0\"", "EMPTY_RANGE", ["byteCount"]),
        (.createFile, "\"byteCount\":\"0x1001\"", "MISALIGNED", ["byteCount"]),
        (.createFile, "\"byteCount\":\"0x1000\",\"pageSize\":\"0x200000\"", "MISALIGNED", ["byteCount"]),
        (.createFile, "\"byteCount\":\"0x40000000\",\"pageSize\":\"0x40000000\"", "BAD_VALUE", ["pageSize"]),
        (.createFile, "\"byteCount\":\"0x7fffffffffff000\"", "LIMIT_REACHED", ["byteCount"]),
        (.createFile, "", "MISSING_FIELD", ["byteCount"]),
        (.deleteFile, "\"file\":\"f-00090009\"", "UNKNOWN_FILE", ["file"]),
        (.deleteFile, "", "MISSING_FIELD", ["file"]),
        (.mmap, area + ",\"file\":\"f-00090009\"", "UNKNOWN_FILE", ["file"]),
        (.mmap, area + ",\(file),\"fileOffset\":\"0x2000\"", "OUTSIDE_FILE", ["byteCount", "fileOffset"]),
        (.mmap, area + ",\(file),\"fileOffset\":\"0x1\"", "MISALIGNED", ["fileOffset"]),
        (.mmap, area + ",\(file),\"pageSize\":\"0x200000\"", "BAD_VALUE", ["pageSize"]),
        (.mmap, area + ",\"shared\":true", "BAD_VALUE", ["shared"]),
        (.mmap, area + ",\"fileOffset\":\"0x0\"", "BAD_VALUE", ["fileOffset"]),
      ]
      for (method, rest, reason, fields) in cases {
        let space = method == .mmap ? "\"addressSpace\":\"\(bench.space)\"," : ""
        let json = "{\(space)\"machine\":\"\(bench.machine)\"\(rest.isEmpty ? "" : ",")\(rest)}"
        let failure = try bench.client.failure(method, json)
        #expect(failure.reason == reason && failure.fields == fields, "\(method) \(rest): \(failure)")
        #expect(try bench.stateHash() == before)
      }
    }
  }

  @Test("an order of letters goes into a machine by its settings, and comes back from them")
  func orders() async throws {
    try await Lab.run { lab in
      let client = try lab.client()
      let settings = LabMachineSettings.with {
        $0.costs.preset = .zero
        $0.orders = [
          .with {
            $0.operation = .madviseDontNeed
            $0.letters = ["S", "I", "P", "C", "F", "E"]
          }
        ]
      }
      let bench = try Bench(client, settings: settings)
      let shown: LabGetMachineResponse = try client.call(
        .getMachine, LabGetMachineRequest.with { $0.machine = bench.machine })
      #expect(shown.machine.settings.orders.map(\.letters) == [["S", "I", "P", "C", "F", "E"]])
      #expect(shown.machine.settings.orders[0].batch == ["C", "I", "F"])
      let wrong = "{\"settings\":{\"orders\":[{\"operation\":\"OPERATION_KIND_MREMAP\",\"letters\":[\"P\"]}]}}"
      let failure = try client.failure(.createMachine, wrong)
      #expect(
        failure.reason == "BAD_SETTINGS" && failure.fields == ["settings.orders"] && failure.message.contains("mremap"))
    }
  }

  @Test("what is wrong with a move or a merge is named, and nothing has changed")
  func refusals() async throws {
    try await Lab.run { lab in
      let bench = try bench(lab, .now)
      try store(bench, base, 5)
      let before = try bench.stateHash()
      let cases: [(LabMethod, String, String, [String])] = [
        (.mremap, "\"destination\":\"\(Hex.string(base + 0x1000))\"", "OVERLAPS_SOURCE", ["address", "destination"]),
        (.mremap, "\"destination\":\"\(Hex.string(base + 0x2000))\"", "OVERLAPS_AREA", ["byteCount", "destination"]),
        (.mremap, "\"destination\":\"0x1001\"", "MISALIGNED", ["destination"]),
        (.mremap, "\"destination\":\"0x7ffffffff000\"", "RANGE_OUTSIDE_ADDRESS_SPACE", ["byteCount", "destination"]),
        (.mremap, "\"destination\":\"4096\"", "DECIMAL_NUMBER", ["destination"]),
        (.uffdioMove, "", "MISSING_FIELD", ["destination"]),
        (.ksmReplacePage, "\"keeper\":\"as-00090009\",\"keeperAddress\":\"0x0\"", "UNKNOWN_ADDRESS_SPACE", ["keeper"]),
        (
          .ksmReplacePage, "\"keeper\":\"\(bench.space)\",\"keeperAddress\":\"0x7ffffffff000\"",
          "RANGE_OUTSIDE_ADDRESS_SPACE", ["byteCount", "keeperAddress"]
        ),
        (.ksmReplacePage, "\"keeperAddress\":\"0x0\"", "MISSING_FIELD", ["keeper"]),
      ]
      for (method, rest, reason, fields) in cases {
        let json =
          "{\"machine\":\"\(bench.machine)\",\"addressSpace\":\"\(bench.space)\",\(range)\(rest.isEmpty ? "" : ",")\(rest)}"
        let failure = try bench.client.failure(method, json)
        #expect(failure.reason == reason && failure.fields == fields, "\(method) \(rest): \(failure)")
        #expect(try bench.stateHash() == before)
      }
    }
  }
}
