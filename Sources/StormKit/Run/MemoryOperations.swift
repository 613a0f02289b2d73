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

  // MARK: What a process asks for

  func mmap(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    var request = range(LabMmapRequest(), firstPage, pageCount)
    request.read = true
    request.write = true
    try call(.mmap, request, LabMmapResponse.self)
  }

  /// A mapping of a file from its begin on.
  func mmap(_ firstPage: UInt64, _ pageCount: UInt64, file: String, shared: Bool) throws(StormFailure) {
    var request = range(LabMmapRequest(), firstPage, pageCount)
    request.read = true
    request.write = true
    request.file = file
    request.shared = shared
    try call(.mmap, request, LabMmapResponse.self)
  }

  /// The new file's id.
  func createFile(_ pageCount: UInt64, pageSize: UInt64? = nil) throws(StormFailure) -> String {
    var request = LabCreateFileRequest()
    request.machine = machine
    request.byteCount = Hex.string(pageCount << 12)
    if let pageSize { request.pageSize = Hex.string(pageSize) }
    let response: LabCreateFileResponse = try client.call(.createFile, request)
    return response.file
  }

  func deleteFile(_ file: String) throws(StormFailure) {
    var request = LabDeleteFileRequest()
    request.machine = machine
    request.file = file
    let _: LabDeleteFileResponse = try client.call(.deleteFile, request)
  }

  func munmap(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    try call(.munmap, range(LabMunmapRequest(), firstPage, pageCount), LabMunmapResponse.self)
  }

  func dontNeed(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    let request = range(LabMadviseDontNeedRequest(), firstPage, pageCount)
    try call(.madviseDontNeed, request, LabMadviseDontNeedResponse.self)
  }

  func madviseFree(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    try call(.madviseFree, range(LabMadviseFreeRequest(), firstPage, pageCount), LabMadviseFreeResponse.self)
  }

  func uffdWriteProtect(_ firstPage: UInt64, _ pageCount: UInt64, protect: Bool) throws(StormFailure) {
    var request = range(LabUffdWriteProtectRequest(), firstPage, pageCount)
    request.protect = protect
    try call(.uffdWriteProtect, request, LabUffdWriteProtectResponse.self)
  }

  func mprotect(_ firstPage: UInt64, _ pageCount: UInt64, write: Bool) throws(StormFailure) {
    var request = range(LabMprotectRequest(), firstPage, pageCount)
    request.read = true
    request.write = write
    try call(.mprotect, request, LabMprotectResponse.self)
  }

  func mremap(_ firstPage: UInt64, _ pageCount: UInt64, to destination: UInt64) throws(StormFailure) {
    let request = move(LabMremapRequest(), firstPage, pageCount, to: destination)
    try call(.mremap, request, LabMremapResponse.self)
  }

  func uffdioMove(_ firstPage: UInt64, _ pageCount: UInt64, to destination: UInt64) throws(StormFailure) {
    let request = move(LabUffdioMoveRequest(), firstPage, pageCount, to: destination)
    try call(.uffdioMove, request, LabUffdioMoveResponse.self, or: [.busy])
  }

  /// The child's id.
  func fork() throws(StormFailure) -> String {
    try call(.fork, of(addressSpace, LabForkRequest()), LabForkResponse.self).addressSpace
  }

  func exit(child: String) throws(StormFailure) {
    try call(.exit, of(child, LabExitRequest()), LabExitResponse.self)
  }

  /// - Parameter others: what is no failure either.
  @discardableResult
  func store(
    _ address: UInt64, _ value: UInt64, or others: [LabOperationStatus] = []
  ) throws(StormFailure) -> LabOperationStatus {
    var request = of(addressSpace, LabStoreRequest())
    request.cpu = cpu
    request.address = Hex.string(address)
    request.value = Hex.string(value)
    return try call(.store, request, LabStoreResponse.self, or: others).status
  }

  /// - Returns: whether a huge page was free for it.
  func storeHuge(_ address: UInt64, _ value: UInt64) throws(StormFailure) -> Bool {
    try store(address, value, or: [.outOfMemory]) == .success
  }

  func load(_ address: UInt64) throws(StormFailure) -> UInt64 {
    var request = of(addressSpace, LabLoadRequest())
    request.cpu = cpu
    request.address = Hex.string(address)
    let operation = try call(.load, request, LabLoadResponse.self)
    do { return try Hex.parse(operation.value) } catch {
      throw .broken("a load answered '\(operation.value)', which is no data word")
    }
  }

  // MARK: What memory management does of its own accord

  func numaHint(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    try call(.numaHint, range(LabNumaHintRequest(), firstPage, pageCount), LabNumaHintResponse.self)
  }

  func clearSoftDirty() throws(StormFailure) {
    try call(.clearSoftDirty, of(addressSpace, LabClearSoftDirtyRequest()), LabClearSoftDirtyResponse.self)
  }

  func clearYoung(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    try call(.clearYoung, range(LabClearYoungRequest(), firstPage, pageCount), LabClearYoungResponse.self)
  }

  func ksmWriteProtect(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    let request = range(LabKsmWriteProtectRequest(), firstPage, pageCount)
    try call(.ksmWriteProtect, request, LabKsmWriteProtectResponse.self, or: [.busy])
  }

  /// A page takes the frame of another one of the same address space that is equal.
  func ksmReplacePage(_ page: UInt64, keptAt keeper: UInt64) throws(StormFailure) {
    var request = range(LabKsmReplacePageRequest(), page, 1)
    request.keeper = addressSpace
    request.keeperAddress = Hex.string(keeper << 12)
    try call(.ksmReplacePage, request, LabKsmReplacePageResponse.self, or: [.busy])
  }

  func kernelMap(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    var request = LabKernelMapRequest()
    request.machine = machine
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    let response: LabKernelMapResponse = try client.call(.kernelMap, request)
    try expectSuccess(response.operation, .kernelMap)
  }

  func kernelUnmap(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    var request = LabKernelUnmapRequest()
    request.machine = machine
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    let response: LabKernelUnmapResponse = try client.call(.kernelUnmap, request)
    try expectSuccess(response.operation, .kernelUnmap)
  }

  func migrate(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    let request = range(LabMigratePagesRequest(), firstPage, pageCount)
    try call(.migratePages, request, LabMigratePagesResponse.self, or: [.busy])
  }

  func reclaim(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    let request = range(LabReclaimPagesRequest(), firstPage, pageCount)
    try call(.reclaimPages, request, LabReclaimPagesResponse.self, or: [.busy])
  }

  func writeback(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    let request = range(LabWritebackPagesRequest(), firstPage, pageCount)
    try call(.writebackPages, request, LabWritebackPagesResponse.self, or: [.busy])
  }

  func migrateToDevice(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    let request = range(LabMigrateToDeviceRequest(), firstPage, pageCount)
    try call(.migrateToDevice, request, LabMigrateToDeviceResponse.self, or: [.busy])
  }

  func makeDeviceExclusive(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    let request = range(LabMakeDeviceExclusiveRequest(), firstPage, pageCount)
    try call(.makeDeviceExclusive, request, LabMakeDeviceExclusiveResponse.self, or: [.busy])
  }

  func collapse(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    let request = range(LabMadviseCollapseRequest(), firstPage, pageCount)
    try call(.madviseCollapse, request, LabMadviseCollapseResponse.self, or: [.busy, .outOfMemory])
  }

  func splitPages(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    let request = range(LabSplitPagesRequest(), firstPage, pageCount)
    try call(.splitPages, request, LabSplitPagesResponse.self, or: [.busy])
  }

  func retractTables(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    let request = range(LabRetractTablesRequest(), firstPage, pageCount)
    try call(.retractTables, request, LabRetractTablesResponse.self, or: [.busy])
  }

  func oomReap(_ child: String) throws(StormFailure) {
    try call(.oomReap, of(child, LabOomReapRequest()), LabOomReapResponse.self, or: [.busy])
  }

  // MARK: Requests

  private func of<Request: AddressSpaceRequest>(_ addressSpace: String, _ empty: Request) -> Request {
    var request = empty
    request.machine = machine
    request.addressSpace = addressSpace
    return request
  }

  private func range<Request: RangeRequest>(_ empty: Request, _ firstPage: UInt64, _ pageCount: UInt64) -> Request {
    var request = of(addressSpace, empty)
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    return request
  }

  private func move<Request: MoveRequest>(
    _ empty: Request, _ firstPage: UInt64, _ pageCount: UInt64, to destination: UInt64
  ) -> Request {
    var request = range(empty, firstPage, pageCount)
    request.destination = Hex.string(destination << 12)
    return request
  }

  /// - Parameter others: what is no failure either: pages that are absent or shared are passed over, and there may be
  ///   none at all; a collapse may find no huge page free.
  @discardableResult
  private func call<Response: OperationResponse>(
    _ method: LabMethod, _ request: some AddressSpaceRequest, _: Response.Type, or others: [LabOperationStatus] = []
  ) throws(StormFailure) -> LabOperation {
    let response: Response = try client.call(method, request)
    try expectSuccess(response.operation, method, or: others)
    return response.operation
  }

  private func expectSuccess(
    _ operation: LabOperation, _ method: LabMethod, or others: [LabOperationStatus] = []
  ) throws(StormFailure) {
    guard operation.done, operation.status == .success || others.contains(operation.status) else {
      throw .broken("\(method.descriptor.name) beside \(addressSpace) ended with \(operation.status)")
    }
  }
}
