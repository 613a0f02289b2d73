// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// AddressSpaceService: what memory management does to a process of its own accord, and mremap.
extension Shard {
  func mremap(_ host: MachineHost, _ r: LabMremapRequest, _ caller: Caller) throws(CallError) -> (any Message)? {
    let space = try space(r.addressSpace)
    let range = try range(r.address, r.byteCount)
    return try start(
      host, .mremap(space, range, to: try page(r.destination, "destination", .destination)), r.startOnly, caller)
  }

  func uffdioMove(_ host: MachineHost, _ r: LabUffdioMoveRequest, _ caller: Caller) throws(CallError) -> (any Message)?
  {
    let space = try space(r.addressSpace)
    let range = try range(r.address, r.byteCount)
    return try start(
      host, .uffdioMove(space, range, to: try page(r.destination, "destination", .destination)), r.startOnly, caller)
  }

  func numaHint(_ host: MachineHost, _ r: LabNumaHintRequest, _ caller: Caller) throws(CallError) -> (any Message)? {
    try start(host, .numaHint(try space(r.addressSpace), try range(r.address, r.byteCount)), r.startOnly, caller)
  }

  func clearYoung(_ host: MachineHost, _ r: LabClearYoungRequest, _ caller: Caller) throws(CallError) -> (any Message)?
  {
    try start(host, .clearYoung(try space(r.addressSpace), try range(r.address, r.byteCount)), r.startOnly, caller)
  }

  func ksmWriteProtect(_ host: MachineHost, _ r: LabKsmWriteProtectRequest, _ caller: Caller) throws(CallError) -> (
    any Message
  )? {
    try start(host, .ksmWriteProtect(try space(r.addressSpace), try range(r.address, r.byteCount)), r.startOnly, caller)
  }

  func migratePages(_ host: MachineHost, _ r: LabMigratePagesRequest, _ caller: Caller) throws(CallError) -> (
    any Message
  )? {
    try start(host, .migratePages(try space(r.addressSpace), try range(r.address, r.byteCount)), r.startOnly, caller)
  }

  func clearSoftDirty(
    _ host: MachineHost, _ r: LabClearSoftDirtyRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    try start(host, .clearSoftDirty(try space(r.addressSpace)), r.startOnly, caller)
  }

  func oomReap(_ host: MachineHost, _ r: LabOomReapRequest, _ caller: Caller) throws(CallError) -> (any Message)? {
    try start(host, .oomReap(try space(r.addressSpace)), r.startOnly, caller)
  }

  func ksmReplacePage(
    _ host: MachineHost, _ r: LabKsmReplacePageRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let space = try space(r.addressSpace)
    let range = try range(r.address, r.byteCount)
    let keeper = try self.space(r.keeper, "keeper")
    let first = try page(r.keeperAddress, "keeperAddress", .keeperAddress)
    return try start(
      host, .ksmReplacePage(space, range, keeper: keeper, keeperFirst: first), r.startOnly, caller)
  }
}
