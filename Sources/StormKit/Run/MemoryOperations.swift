// SPDX-License-Identifier: Apache-2.0
import LabProtocol

/// The memory operations of one address space, as calls that return when the operation has returned.
struct MemoryOperations {
  let client: LabClient
  let machine: String
  let addressSpace: String
  let cpu: UInt32

  init(_ client: LabClient, machine: String, addressSpace: String, cpu: UInt32) {
    self.client = client
    self.machine = machine
    self.addressSpace = addressSpace
    self.cpu = cpu
  }

  func mmap(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    var request = LabMmapRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    request.read = true
    request.write = true
    let response: LabMmapResponse = try client.call(.mmap, request)
    try expectSuccess(response.operation, "mmap")
  }

  func munmap(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    var request = LabMunmapRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    let response: LabMunmapResponse = try client.call(.munmap, request)
    try expectSuccess(response.operation, "munmap")
  }

  func dontNeed(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    var request = LabMadviseDontNeedRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    let response: LabMadviseDontNeedResponse = try client.call(.madviseDontNeed, request)
    try expectSuccess(response.operation, "madvise(MADV_DONTNEED)")
  }

  /// The child's id.
  func fork() throws(StormFailure) -> String {
    var request = LabForkRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    let response: LabForkResponse = try client.call(.fork, request)
    try expectSuccess(response.operation, "fork")
    return response.operation.addressSpace
  }

  func exit(child: String) throws(StormFailure) {
    var request = LabExitRequest()
    request.machine = machine
    request.addressSpace = child
    let response: LabExitResponse = try client.call(.exit, request)
    try expectSuccess(response.operation, "exit")
  }

  func store(_ address: UInt64, _ value: UInt64) throws(StormFailure) {
    var request = LabStoreRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.cpu = cpu
    request.address = Hex.string(address)
    request.value = Hex.string(value)
    let response: LabStoreResponse = try client.call(.store, request)
    try expectSuccess(response.operation, "store")
  }

  func load(_ address: UInt64) throws(StormFailure) -> UInt64 {
    var request = LabLoadRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.cpu = cpu
    request.address = Hex.string(address)
    let response: LabLoadResponse = try client.call(.load, request)
    try expectSuccess(response.operation, "load")
    do { return try Hex.parse(response.operation.value) } catch {
      throw .broken("a load answered '\(response.operation.value)', which is no data word")
    }
  }

  /// - Parameter orBusy: whether the operation may have found nothing that it could take.
  func expectSuccess(_ operation: LabOperation, _ name: String, orBusy: Bool = false) throws(StormFailure) {
    guard operation.done, operation.status == .success || orBusy && operation.status == .busy else {
      throw .broken("\(name) in \(addressSpace) ended with \(operation.status)")
    }
  }
}
