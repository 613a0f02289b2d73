// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// AddressSpaceService.
extension Shard {
  func createAddressSpace(
    _ host: MachineHost, _ request: LabCreateAddressSpaceRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    guard case .addressSpace(let id) = try host.perform(.createAddressSpace, now) else { return nil }
    return LabCreateAddressSpaceResponse.with { $0.addressSpace = ObjectID.text(.addressSpace, UInt128(id.rawValue)) }
  }

  func mmap(_ host: MachineHost, _ r: LabMmapRequest, _ caller: Caller) throws(CallError) -> (any Message)? {
    let space = try space(r.addressSpace)
    let range = try range(r.address, r.byteCount)
    let size = try hex(r.pageSize, "pageSize") ?? Page.byteCount
    guard size.nonzeroBitCount == 1, [12, 21, 30].contains(size.trailingZeroBitCount) else {
      throw .service(.badValue, "a page has 0x1000, 0x200000 or 0x40000000 bytes", fields: ["pageSize"])
    }
    let rights = Rights(read: r.read, write: r.write)
    guard r.file.isEmpty else {
      guard size == Page.byteCount else {
        throw .service(.badValue, "a file has the pages that it was created with", fields: ["pageSize"])
      }
      let offset = try hex(r.fileOffset, "fileOffset") ?? 0
      guard offset & 0xfff == 0 else { throw .refusal(Refusal(.misaligned, .fileOffset, figure: Page.byteCount)) }
      let mapping = FileMapping(try file(r.file), firstPage: offset >> 12, isShared: r.shared)
      return try start(host, .mmapFile(space, range, rights, mapping), r.startOnly, caller)
    }
    for (field, isSet) in [("fileOffset", !r.fileOffset.isEmpty), ("shared", r.shared)] where isSet {
      throw .service(.badValue, "anonymous memory is private and has no offset; name a file", fields: [field])
    }
    return try start(
      host, .mmap(space, range, rights, pageSizeLog2: UInt8(size.trailingZeroBitCount)), r.startOnly, caller)
  }

  func mprotect(_ host: MachineHost, _ r: LabMprotectRequest, _ caller: Caller) throws(CallError) -> (any Message)? {
    let rights = Rights(read: r.read, write: r.write)
    return try start(
      host, .mprotect(try space(r.addressSpace), try range(r.address, r.byteCount), rights), r.startOnly, caller)
  }

  func load(_ host: MachineHost, _ r: LabLoadRequest, _ caller: Caller) throws(CallError) -> (any Message)? {
    let access = CPUAccess(cpu: try cpu(r.cpu, host), kind: .load, address: try word(r.address))
    return try start(host, .cpuAccess(try space(r.addressSpace), access), r.startOnly, caller, isLoad: true)
  }

  func store(_ host: MachineHost, _ r: LabStoreRequest, _ caller: Caller) throws(CallError) -> (any Message)? {
    let value = try required(r.value, "value")
    let access = CPUAccess(cpu: try cpu(r.cpu, host), kind: .store, address: try word(r.address), value: value)
    return try start(host, .cpuAccess(try space(r.addressSpace), access), r.startOnly, caller)
  }

  func touch(_ host: MachineHost, _ r: LabTouchRequest, _ caller: Caller) throws(CallError) -> (any Message)? {
    let range = try range(r.address, r.byteCount)
    let access = CPUAccess(
      cpu: try cpu(r.cpu, host), kind: .touch, address: range.first << 12, pageCount: range.count)
    return try start(host, .cpuAccess(try space(r.addressSpace), access), r.startOnly, caller)
  }

  func getOperation(
    _ host: MachineHost, _ r: LabGetOperationRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let id: UInt64
    switch r.key {
    case .operation(let text): id = UInt64(truncatingIfNeeded: ObjectID.value(.operation, text))
    case .requestID(let requestID):
      switch answers[AnswerCache.Key(tenant: caller.tenant, machine: host.id, requestID: requestID)] {
      case .waiting(_, let operation, _)?, .answered(_, let operation, _)?: id = operation
      case nil: id = 0
      }
    case nil: throw .wire(WireError(.missing, field: "operation"))
    }
    switch host.operations[id] {
    case .running?:
      return LabGetOperationResponse.with { $0.operation = LabOperation(running: OperationID(rawValue: id)) }
    case .done(let outcome, let isLoad)?:
      return LabGetOperationResponse.with { $0.operation = LabOperation(outcome, isLoad: isLoad) }
    case nil: throw .notFound(.operation)
    }
  }

  // MARK: - Operations

  /// Starts an operation; the caller is answered when it has returned, or now with `only`.
  func start(
    _ host: MachineHost, _ request: OperationRequest, _ only: Bool, _ caller: Caller, isLoad: Bool = false
  ) throws(CallError) -> (any Message)? {
    guard case .operation(let id) = try host.perform(.start(request), now) else { return nil }
    if !caller.requestID.isEmpty { answers.note(operation: id.rawValue, caller.key) }
    host.operations.begin(id, isLoad: isLoad, only ? nil : caller)
    return only ? operationResponse(caller.method, LabOperation(running: id)) : nil
  }

  /// An operation has returned.
  func answer(_ caller: Caller, _ outcome: OperationOutcome, isLoad: Bool) {
    answer(caller, operationResponse(caller.method, LabOperation(outcome, isLoad: isLoad)))
  }

  private func operationResponse(_ method: LabMethod, _ operation: LabOperation) -> any Message {
    var response = method.operationResponse!.init()
    response.operation = operation
    return response
  }

  // MARK: - Files

  func createFile(
    _ host: MachineHost, _ r: LabCreateFileRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let length = try required(r.byteCount, "byteCount")
    guard length & 0xfff == 0 else { throw .refusal(Refusal(.misaligned, .byteCount, figure: Page.byteCount)) }
    let size = try hex(r.pageSize, "pageSize") ?? Page.byteCount
    guard size == Page.byteCount || size == Page.byteCount << 9 else {
      throw .service(.badValue, "a page of a file has 0x1000 or 0x200000 bytes", fields: ["pageSize"])
    }
    let command = Command.createFile(pageCount: length >> 12, pageSizeLog2: UInt8(size.trailingZeroBitCount))
    guard case .file(let id) = try host.perform(command, now) else { return nil }
    return LabCreateFileResponse.with { $0.file = ObjectID.text(.file, UInt128(id.rawValue)) }
  }

  func deleteFile(
    _ host: MachineHost, _ r: LabDeleteFileRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    _ = try host.perform(.deleteFile(try file(r.file)), now)
    return LabDeleteFileResponse()
  }

  private func file(_ text: String) throws(CallError) -> FileID { FileID(rawValue: try id(.file, text, "file")) }

  // MARK: - Fields

  func hex(_ text: String, _ field: String) throws(CallError) -> UInt64? {
    do throws(WireError) { return try LabCodec.hex(text, field: field) } catch { throw .wire(error) }
  }

  func required(_ text: String, _ field: String) throws(CallError) -> UInt64 {
    do throws(WireError) { return try LabCodec.required(text, field: field) } catch { throw .wire(error) }
  }

  func id(_ kind: ObjectID.Kind, _ text: String, _ field: String) throws(CallError) -> UInt32 {
    guard !text.isEmpty else { throw .wire(WireError(.missing, field: field)) }
    let value = UInt32(truncatingIfNeeded: ObjectID.value(kind, text))
    guard value != 0 else { throw .notFound(kind) }
    return value
  }

  func space(_ text: String, _ field: String = "addressSpace") throws(CallError) -> AddressSpaceID {
    AddressSpaceID(rawValue: try id(.addressSpace, text, field))
  }

  /// The page of an aligned address.
  func page(_ text: String, _ field: String, _ name: Refusal.Fields) throws(CallError) -> PageNumber {
    let address = try required(text, field)
    guard address & 0xfff == 0 else { throw .refusal(Refusal(.misaligned, name, figure: Page.byteCount)) }
    return address >> 12
  }

  /// An aligned range of whole pages.
  func range(_ address: String, _ byteCount: String) throws(CallError) -> PageRange {
    let first = try required(address, "address")
    let count = try required(byteCount, "byteCount")
    guard first & 0xfff == 0 else { throw .refusal(Refusal(.misaligned, .address, figure: Page.byteCount)) }
    guard count & 0xfff == 0 else { throw .refusal(Refusal(.misaligned, .byteCount, figure: Page.byteCount)) }
    return PageRange(first: first >> 12, count: count >> 12)
  }

  /// The address of an 8-byte word.
  private func word(_ text: String) throws(CallError) -> UInt64 {
    let address = try required(text, "address")
    guard address & 7 == 0 else { throw .refusal(Refusal(.misaligned, .address, figure: 8)) }
    return address
  }

  private func cpu(_ cpu: UInt32, _ host: MachineHost) throws(CallError) -> UInt8 {
    guard cpu < UInt32(host.machine.settings.cpuCount) else {
      throw .refusal(Refusal(.cpuOutOfRange, .cpu, figure: UInt64(host.machine.settings.cpuCount)))
    }
    return UInt8(cpu)
  }
}
