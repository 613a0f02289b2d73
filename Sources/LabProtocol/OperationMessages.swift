// SPDX-License-Identifier: Apache-2.0
import SwiftProtobuf

/// What the requests of memory operations have in common.
public protocol AddressSpaceRequest: Message {
  var machine: String { get set }
  var addressSpace: String { get set }
  var startOnly: Bool { get set }
  var requestID: String { get set }
}

public protocol RangeRequest: AddressSpaceRequest {
  var address: String { get set }
  var byteCount: String { get set }
}

public protocol MoveRequest: RangeRequest {
  var destination: String { get set }
}

/// A range of the kernel's memory, which is of no address space.
public protocol KernelRangeRequest: Message {
  var machine: String { get set }
  var startOnly: Bool { get set }
  var requestID: String { get set }
  var address: String { get set }
  var byteCount: String { get set }
}

/// The answer of every method that starts an operation.
public protocol OperationResponse: Message {
  var operation: LabOperation { get set }
}

extension LabClearSoftDirtyRequest: AddressSpaceRequest {}
extension LabExitRequest: AddressSpaceRequest {}
extension LabForkRequest: AddressSpaceRequest {}
extension LabLoadRequest: AddressSpaceRequest {}
extension LabOomReapRequest: AddressSpaceRequest {}
extension LabStoreRequest: AddressSpaceRequest {}
extension LabTouchRequest: AddressSpaceRequest {}

extension LabClearYoungRequest: RangeRequest {}
extension LabKsmReplacePageRequest: RangeRequest {}
extension LabKsmWriteProtectRequest: RangeRequest {}
extension LabMadviseDontNeedRequest: RangeRequest {}
extension LabMigratePagesRequest: RangeRequest {}
extension LabMmapRequest: RangeRequest {}
extension LabMprotectRequest: RangeRequest {}
extension LabMunmapRequest: RangeRequest {}
extension LabNumaHintRequest: RangeRequest {}
extension LabMadviseFreeRequest: RangeRequest {}
extension LabReclaimPagesRequest: RangeRequest {}
extension LabWritebackPagesRequest: RangeRequest {}
extension LabMigrateToDeviceRequest: RangeRequest {}
extension LabMakeDeviceExclusiveRequest: RangeRequest {}
extension LabMadviseCollapseRequest: RangeRequest {}
extension LabSplitPagesRequest: RangeRequest {}
extension LabRetractTablesRequest: RangeRequest {}
extension LabUffdWriteProtectRequest: RangeRequest {}

extension LabKernelMapRequest: KernelRangeRequest {}
extension LabKernelUnmapRequest: KernelRangeRequest {}

extension LabMremapRequest: MoveRequest {}
extension LabUffdioMoveRequest: MoveRequest {}

extension LabClearSoftDirtyResponse: OperationResponse {}
extension LabClearYoungResponse: OperationResponse {}
extension LabExitResponse: OperationResponse {}
extension LabForkResponse: OperationResponse {}
extension LabKernelMapResponse: OperationResponse {}
extension LabKernelUnmapResponse: OperationResponse {}
extension LabKsmReplacePageResponse: OperationResponse {}
extension LabKsmWriteProtectResponse: OperationResponse {}
extension LabLoadResponse: OperationResponse {}
extension LabMadviseDontNeedResponse: OperationResponse {}
extension LabMigratePagesResponse: OperationResponse {}
extension LabMmapResponse: OperationResponse {}
extension LabMprotectResponse: OperationResponse {}
extension LabMremapResponse: OperationResponse {}
extension LabMunmapResponse: OperationResponse {}
extension LabNumaHintResponse: OperationResponse {}
extension LabMadviseFreeResponse: OperationResponse {}
extension LabReclaimPagesResponse: OperationResponse {}
extension LabWritebackPagesResponse: OperationResponse {}
extension LabMigrateToDeviceResponse: OperationResponse {}
extension LabMakeDeviceExclusiveResponse: OperationResponse {}
extension LabMadviseCollapseResponse: OperationResponse {}
extension LabSplitPagesResponse: OperationResponse {}
extension LabRetractTablesResponse: OperationResponse {}
extension LabUffdWriteProtectResponse: OperationResponse {}
extension LabOomReapResponse: OperationResponse {}
extension LabStoreResponse: OperationResponse {}
extension LabTouchResponse: OperationResponse {}
extension LabUffdioMoveResponse: OperationResponse {}
extension LabUnbindPasidResponse: OperationResponse {}
extension LabUnmapResponse: OperationResponse {}

extension LabMethod {
  /// The message that answers a method which starts an operation; nil: it starts none.
  public var operationResponse: (any OperationResponse.Type)? {
    switch self {
    case .clearSoftDirty: LabClearSoftDirtyResponse.self
    case .clearYoung: LabClearYoungResponse.self
    case .exit: LabExitResponse.self
    case .fork: LabForkResponse.self
    case .kernelMap: LabKernelMapResponse.self
    case .kernelUnmap: LabKernelUnmapResponse.self
    case .ksmReplacePage: LabKsmReplacePageResponse.self
    case .ksmWriteProtect: LabKsmWriteProtectResponse.self
    case .load: LabLoadResponse.self
    case .madviseDontNeed: LabMadviseDontNeedResponse.self
    case .migratePages: LabMigratePagesResponse.self
    case .mmap: LabMmapResponse.self
    case .mprotect: LabMprotectResponse.self
    case .mremap: LabMremapResponse.self
    case .munmap: LabMunmapResponse.self
    case .numaHint: LabNumaHintResponse.self
    case .madviseFree: LabMadviseFreeResponse.self
    case .reclaimPages: LabReclaimPagesResponse.self
    case .writebackPages: LabWritebackPagesResponse.self
    case .migrateToDevice: LabMigrateToDeviceResponse.self
    case .makeDeviceExclusive: LabMakeDeviceExclusiveResponse.self
    case .madviseCollapse: LabMadviseCollapseResponse.self
    case .splitPages: LabSplitPagesResponse.self
    case .retractTables: LabRetractTablesResponse.self
    case .uffdWriteProtect: LabUffdWriteProtectResponse.self
    case .oomReap: LabOomReapResponse.self
    case .store: LabStoreResponse.self
    case .touch: LabTouchResponse.self
    case .uffdioMove: LabUffdioMoveResponse.self
    case .unbindPasid: LabUnbindPasidResponse.self
    case .unmap: LabUnmapResponse.self
    default: nil
    }
  }
}
