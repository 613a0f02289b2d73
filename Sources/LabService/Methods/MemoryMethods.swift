// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// AddressSpaceService: the operations whose requests are of one form each.
extension Shard {
  func onSpace<R: AddressSpaceRequest & MutationRequest>(
    _: R.Type, _ kind: OperationKind, _ caller: Caller, _ bytes: UnsafeRawBufferPointer
  ) {
    on(R.self, caller, bytes) { host, r, caller throws(CallError) in
      try start(host, .space(kind, try space(r.addressSpace)), r.startOnly, caller)
    }
  }

  func onRange<R: RangeRequest & MutationRequest>(
    _: R.Type, _ kind: OperationKind, _ caller: Caller, _ bytes: UnsafeRawBufferPointer
  ) {
    on(R.self, caller, bytes) { host, r, caller throws(CallError) in
      let space = try space(r.addressSpace)
      return try start(host, .range(kind, space, try range(r.address, r.byteCount)), r.startOnly, caller)
    }
  }

  func onMove<R: MoveRequest & MutationRequest>(
    _: R.Type, _ kind: OperationKind, _ caller: Caller, _ bytes: UnsafeRawBufferPointer
  ) {
    on(R.self, caller, bytes) { host, r, caller throws(CallError) in
      let space = try space(r.addressSpace)
      let range = try range(r.address, r.byteCount)
      let destination = try page(r.destination, "destination", .destination)
      return try start(host, .move(kind, space, range, to: destination), r.startOnly, caller)
    }
  }

  func uffdWriteProtect(
    _ host: MachineHost, _ r: LabUffdWriteProtectRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let space = try space(r.addressSpace)
    let range = try range(r.address, r.byteCount)
    return try start(
      host, .protect(.uffdWriteProtect, space, range, r.protect ? .read : .readWrite), r.startOnly, caller)
  }

  func onKernelRange<R: KernelRangeRequest & MutationRequest>(
    _: R.Type, _ kind: OperationKind, _ caller: Caller, _ bytes: UnsafeRawBufferPointer
  ) {
    on(R.self, caller, bytes) { host, r, caller throws(CallError) in
      try start(host, .kernel(kind, try range(r.address, r.byteCount)), r.startOnly, caller)
    }
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
