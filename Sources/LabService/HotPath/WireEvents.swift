// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol

// From effects of a machine to what its devices hear.

extension Wire.Translation {
  @inline(__always)
  init(_ answer: TranslationAnswer) {
    let status: Wire.TranslationStatus =
      switch answer.status {
      case .success: .success
      case .unsupportedRequest: .unsupportedRequest
      case .completerAbort: .completerAbort
      }
    self.init(
      tag: answer.tag, status: status, pasid: answer.pasid, address: answer.page << 12,
      physicalAddress: answer.physicalAddress, sizeLog2: answer.sizeLog2, read: answer.rights.rawValue & 1 != 0,
      write: answer.rights.rawValue & 2 != 0, order: answer.order)
  }
}

extension Wire.PageResponse {
  @inline(__always)
  init(_ response: PageResponse) {
    let code: Wire.PageResponseCode =
      switch response.code {
      case .success: .success
      case .invalidRequest: .invalidRequest
      case .responseFailure: .responseFailure
      }
    self.init(
      pasid: response.pasid, groupIndex: UInt32(response.groupIndex), code: code,
      serviceNanoseconds: response.serviceNanoseconds, memberCount: UInt32(response.memberCount))
  }
}

extension Wire.Invalidation {
  @inline(__always)
  init(_ invalidation: Invalidation) {
    self.init(
      itag: invalidation.itag, pasid: invalidation.pasid, address: invalidation.first << 12,
      sizeLog2: invalidation.sizeLog2, order: invalidation.order)
  }
}

extension Wire.DMAResult {
  @inline(__always)
  init(_ answer: DMAAnswer, tag: UInt32) {
    let status: Wire.DMAStatus =
      switch answer.status {
      case .success: .success
      case .fenced: .fenced
      case .refused: .refused
      case .blocked: .blocked
      case .unsupportedRequest: .unsupportedRequest
      }
    self.init(tag: tag, status: status, write: answer.write, value: answer.value)
  }
}

extension Wire.IgnoredReason {
  init(_ message: IgnoredMessage) {
    self =
      switch message {
      case .unexpectedCompletion: .unexpectedCompletion
      case .excessPageRequest: .excessPageRequest
      case .pageRequestWhileDisabled: .pageRequestWhileDisabled
      case .groupIndexInUse: .groupIndexInUse
      case .droppedByOverflow: .droppedByOverflow
      }
  }
}

extension Wire.DeviceEvent {
  init(_ change: IOMMUModel.DeviceChange) {
    self =
      switch change {
      case .fenced(.invalidationTimedOut): .device(.fencedInvalidationTimedOut, allocation: 0)
      case .fenced(.removed): .device(.fencedRemoved, allocation: 0)
      case .priDisabled: .device(.priDisabled, allocation: 0)
      case .priEnabled(let allocation): .device(.priEnabled, allocation: allocation)
      case .removed: .device(.removed, allocation: 0)
      case .ignored(let message): .ignored(.init(message))
      }
  }
}
