// SPDX-License-Identifier: Apache-2.0
import DeviceEndpoint
import LabProtocol

/// The endpoint's own message; inside `Wire` the short name means the contract's.
typealias EndpointMessage = DeviceMessage
typealias LandedDMA = DMAResult

/// The device's words in the contract's form: pages become addresses, and back.
extension Wire.DeviceMessage {
  @inline(__always) init(_ message: EndpointMessage) {
    switch message {
    case .translate(let request):
      self = .translate(
        Wire.TranslationRequest(
          tag: request.tag, pasid: request.pasid, address: request.page << 12, noWrite: request.noWrite))
    case .pageRequest(let request):
      self = .pageRequest(
        Wire.PageRequest(
          pasid: request.pasid, address: request.page << 12, read: request.rights.contains(.read),
          write: request.rights.contains(.write), groupIndex: UInt32(request.groupIndex), last: request.last))
    case .dma(let dma):
      self = .dma(
        Wire.DMAAccess(
          tag: dma.tag, write: dma.write, translated: dma.translated, pasid: dma.pasid, address: dma.address,
          iova: dma.translated ? dma.page << 12 : 0, value: dma.value))
    case .complete(let itagVector): self = .complete(itagVector: itagVector)
    case .giveUp(let abandonment):
      self = .giveUp(
        Wire.Abandonment(
          pasid: abandonment.pasid, address: abandonment.page << 12, read: abandonment.rights.contains(.read),
          write: abandonment.rights.contains(.write)))
    }
  }
}

/// What the contract's events cost a device beyond what its endpoint counts.
struct MessageFaults: Codable, Equatable {
  /// Messages that the service refused as a caller's error.
  var refused: UInt64 = 0
  /// Messages that broke the device's contract and were dropped.
  var ignored: UInt64 = 0
  /// Reason of the first refusal.
  var firstReason: String?
}

extension DeviceEndpoint {
  /// Hands one event to the device.
  @inline(__always)
  mutating func receive(
    _ event: Wire.DeviceEvent, now: UInt64, into out: inout EndpointOutput, faults: inout MessageFaults
  ) {
    switch event {
    case .translation(let answer): receive(ATSAnswer(answer), now: now, into: &out)
    case .pageResponse(let response): receive(PRGResponse(response), now: now, into: &out)
    case .invalidation(let invalidation):
      receive(
        ATSInvalidation(
          itag: invalidation.itag, pasid: invalidation.pasid, firstPage: invalidation.address >> 12,
          sizeLog2: invalidation.sizeLog2, order: invalidation.order), now: now, into: &out)
    case .dma(let result):
      receive(
        LandedDMA(tag: result.tag, status: .init(result.status), value: result.value), now: now,
        into: &out)
    case .device(.fencedInvalidationTimedOut, _), .device(.fencedRemoved, _), .device(.removed, _):
      fence(now: now, into: &out)
    case .device(.priDisabled, _): disablePRI(now: now, into: &out)
    case .device(.priEnabled, _), .heartbeat: break
    case .ignored: faults.ignored += 1
    case .refused(_, let reason):
      faults.refused += 1
      if faults.firstReason == nil { faults.firstReason = reason.map { "\($0.name)" } ?? "of an unknown kind" }
    }
  }
}

extension ATSAnswer {
  @inline(__always) init(_ answer: Wire.Translation) {
    let status: ATSAnswer.Status =
      switch answer.status {
      case .success: .success
      case .unsupportedRequest: .unsupportedRequest
      case .completerAbort: .completerAbort
      }
    self.init(
      tag: answer.tag, status: status, page: answer.address >> 12, physicalAddress: answer.physicalAddress,
      sizeLog2: answer.sizeLog2, rights: ATSRights(rawValue: (answer.read ? 1 : 0) | (answer.write ? 2 : 0)),
      order: answer.order)
  }
}

extension PRGResponse {
  @inline(__always) init(_ response: Wire.PageResponse) {
    let code: PRGResponse.Code =
      switch response.code {
      case .success: .success
      case .invalidRequest: .invalidRequest
      case .responseFailure: .responseFailure
      }
    self.init(pasid: response.pasid, groupIndex: UInt16(truncatingIfNeeded: response.groupIndex), code: code)
  }
}

extension DMAResult.Status {
  @inline(__always) init(_ status: Wire.DMAStatus) {
    switch status {
    case .success: self = .success
    case .fenced: self = .fenced
    case .refused: self = .refused
    case .blocked: self = .blocked
    case .unsupportedRequest: self = .unsupportedRequest
    }
  }
}
