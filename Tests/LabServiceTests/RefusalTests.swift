// SPDX-License-Identifier: Apache-2.0
//
// Goal: what is wrong with a request is said — code, stable reason, field — and a refused call has changed nothing: the
// state hash of the machine is the same before and after. Method: one table, sent over both codecs' server paths.
import Foundation
import IOMMUModel
import LabProtocol
import RPCClient
import RPCServer
import Testing

@testable import LabService

@Suite struct RefusalTests {
  struct Case: CustomStringConvertible {
    var method: LabMethod
    /// `M`, `S`, `D`, `O` stand for the machine, its address space, a device and a domain.
    var json: String
    var code: String
    var reason: String
    var field: String
    init(_ method: LabMethod, _ json: String, _ code: String, _ reason: String, _ field: String) {
      (self.method, self.json, self.code, self.reason, self.field) = (method, json, code, reason, field)
    }
    var description: String { "\(method) \(json)" }
  }

  static let m = "\"machine\":\"M\""
  static let s = "\(m),\"addressSpace\":\"S\""
  static let d = "\(m),\"device\":\"D\""
  static let noMachine = "m-" + String(repeating: "0", count: 30) + "01"

  static let cases: [Case] = [
    // Text.
    .init(.getMachine, "{\(m)", "invalid_argument", "MALFORMED_JSON", ""),
    .init(.getMachine, "{\(m)}}", "invalid_argument", "MALFORMED_JSON", ""),
    .init(.getMachine, "", "invalid_argument", "MALFORMED_JSON", ""),
    .init(.getMachine, "null", "invalid_argument", "MALFORMED_JSON", ""),
    .init(.getMachine, "{\(m),\"x\":1}", "invalid_argument", "UNKNOWN_FIELD", "x"),
    .init(.getMachine, "{}", "invalid_argument", "MISSING_FIELD", "machine"),
    .init(.translate, "{\(d),\"translate\":{\"address\":\"0x1000\"", "invalid_argument", "MALFORMED_JSON", ""),
    .init(.translate, "{\(d),\"translate\":{\"adress\":\"0x1000\"}}", "invalid_argument", "UNKNOWN_FIELD", "adress"),
    .init(.translate, "{\(d),\"translate\":{\"address\":\"4096\"}}", "invalid_argument", "DECIMAL_NUMBER", "address"),
    .init(.translate, "{\(d),\"translate\":{\"address\":4096}}", "invalid_argument", "MALFORMED_JSON", "address"),
    .init(
      .translate, "{\(d),\"translate\":{\"address\":\"0x10000000000000000\"}}", "invalid_argument", "BAD_HEX", "address"
    ),
    .init(.translate, "{\(d),\"translate\":{}}", "invalid_argument", "MISSING_FIELD", "address"),
    .init(.translate, "{\(d)}", "invalid_argument", "MISSING_FIELD", "translate"),
    .init(.translate, "{\(d),\"translate\":{\"address\":\"0x1001\"}}", "invalid_argument", "MISALIGNED", "address"),
    .init(
      .translate, "{\(d),\"translate\":{\"address\":\"0x800000000000\"}}", "invalid_argument", "NOT_CANONICAL",
      "address"),
    .init(
      .giveUp, "{\(d),\"giveUp\":{\"address\":\"0xffff7ffffffff000\"}}", "invalid_argument", "NOT_CANONICAL", "address"),
    .init(
      .dma, "{\(d),\"dma\":{\"address\":\"0x1000000000000\"}}", "invalid_argument", "NOT_CANONICAL", "address"),
    .init(
      .kernelMap, "{\(m),\"address\":\"0x7f0000000000\",\"byteCount\":\"0x1000\"}", "out_of_range",
      "RANGE_OUTSIDE_KERNEL_HALF", "address"),
    .init(
      .kernelUnmap, "{\(m),\"address\":\"0xffff800000000000\",\"byteCount\":\"0x1000\"}", "failed_precondition",
      "NOT_MAPPED", "address"),
    .init(
      .translate, "{\(d),\"translate\":{\"address\":\"0x1000\",\"tag\":2147483648}}", "invalid_argument",
      "TAG_OUT_OF_RANGE",
      "tag"),
    .init(
      .translate, "{\(d),\"translate\":{\"address\":\"0x1000\",\"pasid\":1048576}}", "invalid_argument",
      "PASID_OUT_OF_RANGE",
      "pasid"),
    .init(
      .translate, "{\(d),\"requestId\":\"a b\",\"translate\":{\"address\":\"0x1000\"}}", "invalid_argument",
      "BAD_REQUEST_ID", "requestId"),
    // Ids.
    .init(.getMachine, "{\"machine\":\"\(noMachine)\"}", "not_found", "UNKNOWN_MACHINE", "machine"),
    .init(.getMachine, "{\"machine\":\"nonsense\"}", "not_found", "UNKNOWN_MACHINE", "machine"),
    .init(
      .translate, "{\"machine\":\"nonsense\",\"device\":\"D\",\"translate\":{\"address\":\"0x0\"}}", "not_found",
      "UNKNOWN_MACHINE", "machine"),
    .init(
      .translate, "{\(m),\"device\":\"d-00010063\",\"translate\":{\"address\":\"0x0\"}}", "not_found", "UNKNOWN_DEVICE",
      "device"),
    .init(
      .translate, "{\(m),\"device\":\"x\",\"translate\":{\"address\":\"0x0\"}}", "not_found", "UNKNOWN_DEVICE", "device"
    ),
    .init(.removeDevice, "{\(m),\"device\":\"S\"}", "not_found", "UNKNOWN_DEVICE", "device"),
    .init(.exit, "{\(m),\"addressSpace\":\"as-00090009\"}", "not_found", "UNKNOWN_ADDRESS_SPACE", "addressSpace"),
    .init(.destroyDomain, "{\(m),\"domain\":\"dom-00090009\"}", "not_found", "UNKNOWN_DOMAIN", "domain"),
    .init(.getOperation, "{\(m),\"operation\":\"op-00000000000000ff\"}", "not_found", "UNKNOWN_OPERATION", "operation"),
    .init(.getOperation, "{\(m),\"requestId\":\"never\"}", "not_found", "UNKNOWN_OPERATION", "operation"),
    // Ranges.
    .init(
      .mmap, "{\(s),\"address\":\"0x1001\",\"byteCount\":\"0x1000\",\"read\":true}", "invalid_argument", "MISALIGNED",
      "address"),
    .init(
      .mmap, "{\(s),\"address\":\"0x1000\",\"byteCount\":\"0x1001\",\"read\":true}", "invalid_argument", "MISALIGNED",
      "byteCount"),
    .init(
      .mmap, "{\(s),\"address\":\"0x1000\",\"byteCount\":\"0x0\",\"read\":true}", "invalid_argument", "EMPTY_RANGE",
      "byteCount"),
    .init(
      .mmap, "{\(s),\"address\":\"0x1000\",\"byteCount\":\"4096\",\"read\":true}", "invalid_argument", "DECIMAL_NUMBER",
      "byteCount"),
    .init(.mmap, "{\(s),\"address\":\"0x1000\",\"read\":true}", "invalid_argument", "MISSING_FIELD", "byteCount"),
    .init(
      .mmap, "{\(s),\"address\":\"0x7ffffffff000\",\"byteCount\":\"0x2000\",\"read\":true}", "out_of_range",
      "RANGE_OUTSIDE_ADDRESS_SPACE", "address"),
    .init(
      .mmap, "{\(s),\"address\":\"0x7f0000000000\",\"byteCount\":\"0x1000\",\"read\":true}", "already_exists",
      "OVERLAPS_AREA", "address"),
    .init(
      .mmap, "{\(s),\"address\":\"0x200000\",\"byteCount\":\"0x1000\",\"pageSize\":\"0x200000\",\"read\":true}",
      "invalid_argument", "MISALIGNED", "address"),
    .init(
      .mmap, "{\(s),\"address\":\"0x1000\",\"byteCount\":\"0x1000\",\"pageSize\":\"0x2000\"}", "invalid_argument",
      "BAD_VALUE", "pageSize"),
    .init(
      .mprotect, "{\(s),\"address\":\"0x1000\",\"byteCount\":\"0x1000\",\"read\":true}", "failed_precondition",
      "NO_AREA_IN_RANGE", "address"),
    .init(.load, "{\(s),\"address\":\"0x7f0000000004\"}", "invalid_argument", "MISALIGNED", "address"),
    .init(.load, "{\(s),\"address\":\"0x7f0000000000\",\"cpu\":99}", "invalid_argument", "CPU_OUT_OF_RANGE", "cpu"),
    .init(.store, "{\(s),\"address\":\"0x7f0000000000\"}", "invalid_argument", "MISSING_FIELD", "value"),
    // Domains.
    .init(.createDomain, "{\(m)}", "invalid_argument", "MISSING_FIELD", "kind"),
    .init(.createDomain, "{\(m),\"kind\":\"PAGING\"}", "invalid_argument", "BAD_VALUE", ""),
    .init(
      .unmap, "{\(m),\"domain\":\"O\",\"address\":\"0x1000\",\"byteCount\":\"0x1000\"}", "failed_precondition",
      "NOT_MAPPED", "address"),
    .init(
      .map, "{\(m),\"domain\":\"O\",\"address\":\"0x1000\",\"byteCount\":\"0x1000\"}", "invalid_argument", "NO_RIGHTS",
      "read"),
    .init(
      .map,
      "{\(m),\"domain\":\"O\",\"address\":\"0x1000\",\"byteCount\":\"0x1000\",\"read\":true,\"source\":{\"addressSpace\":\"S\",\"address\":\"0x1000\"}}",
      "failed_precondition", "NO_AREA_IN_RANGE", "source"),
    // Devices.
    .init(.registerDevice, "{\(m),\"rid\":65536}", "invalid_argument", "RID_OUT_OF_RANGE", "rid"),
    .init(.registerDevice, "{\(m),\"rid\":1}", "already_exists", "RID_TAKEN", "rid"),
    .init(
      .registerDevice, "{\(m),\"rid\":2,\"priAllocation\":100000}", "invalid_argument", "ALLOCATION_TOO_LARGE",
      "allocation"),
    .init(
      .registerDevice, "{\(m),\"rid\":2,\"leaseMilliseconds\":0}", "invalid_argument", "LEASE_OUT_OF_RANGE",
      "leaseMilliseconds"),
    .init(
      .bindPasid, "{\(d),\"pasid\":1,\"sva\":{\"addressSpace\":\"S\",\"strategy\":\"hope\"}}", "invalid_argument",
      "UNKNOWN_STRATEGY", "sva.strategy"),
    .init(
      .bindPasid, "{\(d),\"pasid\":1,\"sva\":{\"addressSpace\":\"S\",\"strategy\":\"none\",\"ownStrategy\":{}}}",
      "invalid_argument", "UNKNOWN_STRATEGY", "sva.strategy"),
    .init(
      .bindPasid,
      "{\(d),\"pasid\":1,\"sva\":{\"addressSpace\":\"S\",\"ownStrategy\":{\"flushAt\":[\"lunch\"],\"emptyTable\":\"full\",\"deferral\":\"long\",\"wholeFromPages\":0}}}",
      "invalid_argument", "UNKNOWN_STRATEGY",
      "sva.ownStrategy.flushAt"),
    .init(.bindPasid, "{\(d),\"pasid\":1}", "invalid_argument", "MISSING_FIELD", "sva"),
    .init(.bindPasid, "{\(d),\"pasid\":1048576,\"domain\":\"O\"}", "invalid_argument", "PASID_OUT_OF_RANGE", "pasid"),
    .init(.unbindPasid, "{\(d),\"pasid\":1}", "failed_precondition", "PASID_NOT_ATTACHED", "pasid"),
    .init(.enablePri, "{\(d),\"allocation\":1}", "already_exists", "PRI_ENABLED", "device"),
    .init(.requestPages, "{\(d),\"pageRequests\":[]}", "invalid_argument", "MISSING_FIELD", "pageRequests"),
    .init(
      .requestPages,
      "{\(d),\"pageRequests\":[{\"address\":\"0x1000\",\"read\":true,\"last\":true},{\"address\":\"0x1000\",\"read\":true,\"groupIndex\":512}]}",
      "invalid_argument", "GROUP_INDEX_OUT_OF_RANGE", "groupIndex"),
    .init(.dma, "{\(d),\"dma\":{\"address\":\"0x1004\"}}", "invalid_argument", "MISALIGNED", "address"),
    .init(.dma, "{\(d),\"dma\":{\"address\":\"0x1000\",\"iova\":\"0x1000\"}}", "invalid_argument", "BAD_VALUE", "iova"),
    .init(
      .completeInvalidations, "{\(d),\"complete\":{\"itagVector\":\"0x100000000\"}}", "invalid_argument", "BAD_VALUE",
      "itagVector"),
    .init(
      .giveUp, "{\(d),\"giveUp\":{\"address\":\"0x1000\",\"read\":true}}", "failed_precondition", "RETRIES_LEFT",
      "device"),
    // Machines.
    .init(.advance, "{\(m),\"maxTurns\":100001}", "invalid_argument", "VALUE_OUT_OF_RANGE", "maxTurns"),
    .init(.advance, "{\(m)}", "invalid_argument", "MISSING_FIELD", "untilNanoseconds"),
    .init(.listVerdicts, "{\(m),\"pageSize\":1001}", "invalid_argument", "VALUE_OUT_OF_RANGE", "pageSize"),
    .init(.listMachines, "{\"pageToken\":\"x\"}", "invalid_argument", "BAD_PAGE_TOKEN", "pageToken"),
    .init(
      .createMachine, "{\"settings\":{\"caches\":{\"iotlb\":3}}}", "invalid_argument", "BAD_SETTINGS",
      "settings.caches.iotlb"),
    .init(
      .createMachine, "{\"settings\":{\"frameCount\":1}}", "invalid_argument", "BAD_SETTINGS", "settings.frameCount"),
    .init(
      .createMachine, "{\"settings\":{\"costs\":{\"entry\":{\"buckets\":[{\"upToThousandths\":999}]}}}}",
      "invalid_argument", "BAD_SETTINGS", "settings.costs.entry"),
  ]

  @Test("each wrong request gets its code, reason and field, and changes nothing", arguments: [1, 2])
  func refusals(loops: Int) async throws {
    try await Lab.run(loops: loops) { lab in
      let clients = [try lab.client(), try lab.client()]
      let bench = try Bench(clients[0], pacing: .manual)
      try bench.mmap()
      let device = try bench.register(rid: 1)
      let domain: LabCreateDomainResponse = try clients[0].call(
        .createDomain,
        LabCreateDomainRequest.with {
          $0.machine = bench.machine
          $0.kind = .paging
        })
      let before = try bench.stateHash()
      for (index, item) in Self.cases.enumerated() {
        let json = item.json.replacingOccurrences(of: "\"M\"", with: "\"\(bench.machine)\"")
          .replacingOccurrences(of: "\"S\"", with: "\"\(bench.space)\"")
          .replacingOccurrences(of: "\"D\"", with: "\"\(device)\"")
          .replacingOccurrences(of: "\"O\"", with: "\"\(domain.domain)\"")
        let failure = try clients[index % 2].failure(item.method, json)
        #expect(failure.code == item.code && failure.reason == item.reason, "\(item): \(failure)")
        #expect(failure.fields.first ?? "" == item.field, "\(item): \(failure)")
        #expect(!failure.message.isEmpty)
        #expect(try bench.stateHash() == before, "\(item) changed the machine")
      }
      let list: LabListMachinesResponse = try clients[0].call(.listMachines, LabListMachinesRequest())
      #expect(list.machines.count == 1)
    }
  }

  @Test("a machine with the greatest settings that the service takes can be replayed: the model takes them from a log")
  func greatestSettings() throws {
    let greatest = LabMachineSettings.with {
      $0.pageRequestQueueCapacity = 0x7fff
      $0.frameCount = 1 << 24
      $0.cpuCount = 64
      $0.handlerWorkers = 1024
      $0.limits.operations = 4096
      $0.limits.devices = 16_384
      $0.limits.domains = 16_384
      $0.limits.addressSpaces = 16_384
      $0.caches.iotlb = 1 << 20
      $0.caches.cpuTlb = 1 << 20
    }
    #expect(try Settings(greatest).isUsable)
    var more = greatest
    more.pageRequestQueueCapacity += 1
    #expect(throws: CallError.self) { try Settings(more) }
  }

  @Test("an id that never was and one that is gone get the same answer, byte for byte")
  func identicalNotFound() async throws {
    try await Lab.run(loops: 2) { lab in
      let client = try lab.client()
      let bench = try Bench(client)
      _ = try client.call(
        .deleteMachine, LabDeleteMachineRequest.with { $0.machine = bench.machine }, LabDeleteMachineResponse.self)
      let ids = [bench.machine, Self.noMachine, String(bench.machine.dropLast(2)) + "77", "x"]
      let bodies = try ids.map { try client.rpc.call(LabMethod.getMachine.path, json: "{\"machine\":\"\($0)\"}").text }
      #expect(Set(bodies).count == 1, "\(bodies)")
    }
  }

  @Test("a text that is wrong on an Attach stream ends the stream with the place, and the device is gone")
  func wrongAttach() async throws {
    try await Lab.run(loops: 2) { lab in
      let client = try lab.client()
      let bench = try Bench(client)
      let wrong: [(String, String)] = [
        ("{\"messages\":[]}", "HELLO_EXPECTED"),
        ("{\"hello\":{\"machine\":\"\(bench.machine)\",\"device\":\"d-0\"}}", "UNKNOWN_DEVICE"),
        ("{\"hello\":{\"machine\":\"x\",\"device\":\"d-0\"}}", "UNKNOWN_MACHINE"), ("{\"hello\":{}}", "MISSING_FIELD"),
        ("{", "MALFORMED_JSON"),
      ]
      for (text, reason) in wrong {
        let stream = try client.open(.attach)
        Array(text.utf8).withUnsafeBytes { _ = client.rpc.send(stream, $0) }
        #expect(try client.end(stream)?.reason == reason)
      }
      let device = try bench.register(rid: 4)
      let stream = try client.open(.attach)
      client.send(stream, bench.hello(device))
      _ = try client.next(stream, LabAttachResponse.self)
      let second = try client.watch(.watchDevice, bench.watchRequest(device))
      #expect(try client.end(second)?.reason == "STREAM_TAKEN")
      Array("{\"messages\":[{\"complete\":{\"itagVector\":\"0x0\"}},{\"translate\":{\"address\":\"12\"}}]}".utf8)
        .withUnsafeBytes { _ = client.rpc.send(stream, $0) }
      let failure = try #require(try client.end(stream))
      #expect(
        failure.reason == "DECIMAL_NUMBER" && failure.message.contains("element 1") && failure.message.contains("0xc"))
      #expect(try bench.statistics().devices == 0)
    }
  }

  @Test("every refusal of the model has a code, a reason of its own and a text")
  func everyRefusal() {
    var reasons: Set<ErrorReason> = []
    for reason in Refusal.Reason.allCases {
      let error = CallError.refusal(Refusal(reason, [.address, .rights], figure: 8))
      #expect(reasons.insert(error.reason).inserted)
      #expect("\(error.reason)" == "\(reason)", "the name on the wire is the model's")
      #expect(error.rpc.message.count > 15 && error.rpc.fields == ["address", "read", "write"])
    }
  }
}
