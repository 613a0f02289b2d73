// SPDX-License-Identifier: Apache-2.0
import DeviceEndpoint
import IOMMUModel

/// Between a device endpoint and a machine in the same process: what the wire's codec is over a network.
extension DeviceMessage {
  func command(_ device: DeviceID) -> Command {
    switch self {
    case .translate(let request):
      .translate(
        device,
        TranslationRequest(tag: request.tag, pasid: request.pasid, page: request.page, noWrite: request.noWrite))
    case .pageRequest(let request):
      .pageRequest(
        device,
        PageRequest(
          pasid: request.pasid, page: request.page, rights: Rights(rawValue: request.rights.rawValue),
          groupIndex: request.groupIndex, last: request.last))
    case .dma(let issue):
      .dma(
        device,
        DMARequest(
          tag: issue.tag, write: issue.write, translated: issue.translated, pasid: issue.pasid, address: issue.address,
          page: issue.page, value: issue.value))
    case .complete(let vector): .complete(device, itagVector: vector)
    case .giveUp(let abandoned):
      .giveUp(device, abandoned.pasid, abandoned.page, Rights(rawValue: abandoned.rights.rawValue))
    }
  }
}

extension DeviceEndpoint {
  mutating func receive(_ effect: Effect, now: UInt64, into output: inout EndpointOutput) {
    switch effect {
    case .translation(_, let answer):
      receive(
        ATSAnswer(
          tag: answer.tag, status: ATSAnswer.Status(rawValue: answer.status.rawValue)!, page: answer.page,
          physicalAddress: answer.physicalAddress, sizeLog2: answer.sizeLog2,
          rights: ATSRights(rawValue: answer.rights.rawValue), order: answer.order), now: now, into: &output)
    case .pageResponse(_, let response):
      receive(
        PRGResponse(
          pasid: response.pasid, groupIndex: response.groupIndex, code: .init(field: response.code.rawValue)),
        now: now, into: &output)
    case .invalidation(_, let invalidation):
      receive(
        ATSInvalidation(
          itag: invalidation.itag, pasid: invalidation.pasid, firstPage: invalidation.first,
          sizeLog2: invalidation.sizeLog2, order: invalidation.order), now: now, into: &output)
    case .dma(_, let answer):
      receive(
        DMAResult(tag: answer.tag, status: DMAResult.Status(rawValue: answer.status.rawValue)!, value: answer.value),
        now: now, into: &output)
    case .device(_, .fenced): fence(now: now, into: &output)
    case .device(_, .priDisabled): disablePRI(now: now, into: &output)
    default: break
    }
  }
}
