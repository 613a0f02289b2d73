// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import SwiftProtobuf

/// What the requests of memory operations have in common, and their answers.
protocol AddressSpaceRequest: Message {
  var machine: String { get set }
  var addressSpace: String { get set }
}

protocol RangeRequest: AddressSpaceRequest {
  var address: String { get set }
  var byteCount: String { get set }
}

protocol MoveRequest: RangeRequest {
  var destination: String { get set }
}

protocol OperationResponse: Message {
  var operation: LabOperation { get }
}

extension LabClearSoftDirtyRequest: AddressSpaceRequest {}
extension LabExitRequest: AddressSpaceRequest {}
extension LabForkRequest: AddressSpaceRequest {}
extension LabLoadRequest: AddressSpaceRequest {}
extension LabOomReapRequest: AddressSpaceRequest {}
extension LabStoreRequest: AddressSpaceRequest {}

extension LabClearYoungRequest: RangeRequest {}
extension LabKsmWriteProtectRequest: RangeRequest {}
extension LabMadviseDontNeedRequest: RangeRequest {}
extension LabMigratePagesRequest: RangeRequest {}
extension LabMmapRequest: RangeRequest {}
extension LabMprotectRequest: RangeRequest {}
extension LabMremapRequest: MoveRequest {}
extension LabMunmapRequest: RangeRequest {}
extension LabNumaHintRequest: RangeRequest {}
extension LabUffdioMoveRequest: MoveRequest {}

extension LabClearSoftDirtyResponse: OperationResponse {}
extension LabClearYoungResponse: OperationResponse {}
extension LabExitResponse: OperationResponse {}
extension LabForkResponse: OperationResponse {}
extension LabKsmWriteProtectResponse: OperationResponse {}
extension LabLoadResponse: OperationResponse {}
extension LabMadviseDontNeedResponse: OperationResponse {}
extension LabMigratePagesResponse: OperationResponse {}
extension LabMmapResponse: OperationResponse {}
extension LabMprotectResponse: OperationResponse {}
extension LabMremapResponse: OperationResponse {}
extension LabMunmapResponse: OperationResponse {}
extension LabNumaHintResponse: OperationResponse {}
extension LabOomReapResponse: OperationResponse {}
extension LabStoreResponse: OperationResponse {}
extension LabUffdioMoveResponse: OperationResponse {}
