// SPDX-License-Identifier: Apache-2.0
import LabProtocol

/// What memory management does of its own accord, and mremap.
extension MemoryOperations {
  func mprotect(_ firstPage: UInt64, _ pageCount: UInt64, write: Bool) throws(StormFailure) {
    var request = LabMprotectRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    request.read = true
    request.write = write
    let response: LabMprotectResponse = try client.call(.mprotect, request)
    try expectSuccess(response.operation, "mprotect")
  }

  func mremap(_ firstPage: UInt64, _ pageCount: UInt64, to destination: UInt64) throws(StormFailure) {
    var request = LabMremapRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    request.destination = Hex.string(destination << 12)
    let response: LabMremapResponse = try client.call(.mremap, request)
    try expectSuccess(response.operation, "mremap")
  }

  func numaHint(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    var request = LabNumaHintRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    let response: LabNumaHintResponse = try client.call(.numaHint, request)
    try expectSuccess(response.operation, "NUMA hint")
  }

  func clearSoftDirty() throws(StormFailure) {
    var request = LabClearSoftDirtyRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    let response: LabClearSoftDirtyResponse = try client.call(.clearSoftDirty, request)
    try expectSuccess(response.operation, "soft-dirty clear")
  }

  func clearYoung(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    var request = LabClearYoungRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    let response: LabClearYoungResponse = try client.call(.clearYoung, request)
    try expectSuccess(response.operation, "young clear")
  }

  /// Pages that are absent or shared are passed over; that there was none at all is no failure.
  func ksmWriteProtect(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    var request = LabKsmWriteProtectRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    let response: LabKsmWriteProtectResponse = try client.call(.ksmWriteProtect, request)
    try expectSuccess(response.operation, "KSM protect", orBusy: true)
  }

  func migrate(_ firstPage: UInt64, _ pageCount: UInt64) throws(StormFailure) {
    var request = LabMigratePagesRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    let response: LabMigratePagesResponse = try client.call(.migratePages, request)
    try expectSuccess(response.operation, "migration", orBusy: true)
  }

  func uffdioMove(_ firstPage: UInt64, _ pageCount: UInt64, to destination: UInt64) throws(StormFailure) {
    var request = LabUffdioMoveRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.address = Hex.string(firstPage << 12)
    request.byteCount = Hex.string(pageCount << 12)
    request.destination = Hex.string(destination << 12)
    let response: LabUffdioMoveResponse = try client.call(.uffdioMove, request)
    try expectSuccess(response.operation, "UFFDIO_MOVE", orBusy: true)
  }

  func oomReap(_ child: String) throws(StormFailure) {
    var request = LabOomReapRequest()
    request.machine = machine
    request.addressSpace = child
    let response: LabOomReapResponse = try client.call(.oomReap, request)
    try expectSuccess(response.operation, "OOM reap", orBusy: true)
  }
}
