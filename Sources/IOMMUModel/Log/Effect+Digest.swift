// SPDX-License-Identifier: Apache-2.0

extension Effects {
  /// Adds every field of every effect to a digest: what replays and differential runs compare.
  public func digest(into digest: inout Digest) {
    for effect in list { effect.digest(self, into: &digest) }
  }
}

extension Effect {
  fileprivate func digest(_ effects: borrowing Effects, into digest: inout Digest) {
    switch self {
    case .translation(let device, let answer):
      digest.combine(1 << 32 | UInt64(device.rawValue))
      digest.combine(UInt64(answer.tag) << 32 | UInt64(answer.pasid))
      digest.combine(answer.page)
      digest.combine(answer.physicalAddress)
      digest.combine(
        UInt64(answer.status.rawValue) << 16 | UInt64(answer.sizeLog2) << 8 | UInt64(answer.rights.rawValue))
      digest.combine(answer.order)
    case .pageResponse(let device, let response):
      digest.combine(2 << 32 | UInt64(device.rawValue))
      digest.combine(UInt64(response.pasid) << 32 | UInt64(response.groupIndex) << 16 | UInt64(response.code.rawValue))
      digest.combine(response.serviceNanoseconds)
      digest.combine(UInt64(response.memberCount))
    case .invalidation(let device, let invalidation):
      digest.combine(3 << 32 | UInt64(device.rawValue))
      digest.combine(UInt64(invalidation.pasid) << 16 | UInt64(invalidation.itag) << 8 | UInt64(invalidation.sizeLog2))
      digest.combine(invalidation.first)
      digest.combine(invalidation.order)
    case .dma(let device, let answer):
      digest.combine(4 << 32 | UInt64(device.rawValue))
      digest.combine(UInt64(answer.tag) << 16 | UInt64(answer.status.rawValue) << 1 | (answer.write ? 1 : 0))
      digest.combine(answer.value)
    case .invalidationEnded(let device, let end):
      digest.combine(5 << 32 | UInt64(device.rawValue))
      digest.combine(UInt64(end.itag) << 8 | UInt64(end.kind.rawValue))
      digest.combine(end.nanoseconds)
    case .device(let device, let change):
      digest.combine(6 << 32 | UInt64(device.rawValue))
      switch change {
      case .fenced(let reason): digest.combine(1 << 8 | UInt64(reason.rawValue))
      case .priDisabled: digest.combine(2 << 8)
      case .priEnabled(let allocation): digest.combine(3 << 32 | UInt64(allocation))
      case .removed: digest.combine(4 << 8)
      case .ignored(let message): digest.combine(5 << 8 | UInt64(message.rawValue))
      }
    case .step(let step):
      digest.combine(7 << 32 | UInt64(step.kind.rawValue) << 8 | UInt64(step.letter.rawValue))
      digest.combine(step.operation.rawValue)
      digest.combine(step.range.first)
      digest.combine(step.range.count)
    case .operation(let outcome):
      digest.combine(8 << 32 | UInt64(outcome.kind.rawValue) << 8 | UInt64(outcome.status.rawValue))
      digest.combine(outcome.operation.rawValue)
      digest.combine(outcome.value)
      digest.combine(outcome.nanoseconds)
    case .verdict(let index):
      let verdict = effects.verdicts[index]
      digest.combine(
        9 << 32 | UInt64(verdict.kind.rawValue) << 16 | UInt64(verdict.via.rawValue) << 8 | (verdict.write ? 1 : 0))
      digest.combine(UInt64(verdict.device.rawValue) << 32 | UInt64(verdict.pasid))
      digest.combine(verdict.page)
      digest.combine(UInt64(verdict.frame) << 32 | UInt64(verdict.grantGeneration))
      digest.combine(UInt64(verdict.frameGeneration) << 32 | UInt64(verdict.requests))
      digest.combine(verdict.grantedAt)
      digest.combine(UInt64(verdict.grantedVia.rawValue))
      digest.combine(verdict.at)
      for mark in [verdict.dropped, verdict.freed] {
        digest.combine(mark.operation.rawValue)
        digest.combine(mark.at)
        digest.combine(mark.startedAt)
        digest.combine(mark.flushedAt)
      }
      if verdict.subscriber.rawValue != 0 { digest.combine(UInt64(verdict.subscriber.rawValue)) }
    case .notifierEvent(let index):
      let event = effects.notifierEvents[index]
      digest.combine(10 << 32 | UInt64(event.subscriber.rawValue))
      digest.combine(event.number)
      digest.combine(
        UInt64(event.hook.rawValue) << 16 | UInt64(event.reason.rawValue) << 8 | (event.mayBlock ? 1 : 0))
      digest.combine(event.range.first)
      digest.combine(event.range.count)
      digest.combine(event.operation.rawValue)
      digest.combine(event.sequence)
      digest.combine(UInt64(event.owner))
    case .rangeFault(let index):
      let answer = effects.rangeFaults[index]
      digest.combine(11 << 32 | UInt64(answer.subscriber.rawValue))
      digest.combine(answer.operation.rawValue)
      digest.combine(answer.number)
      digest.combine(answer.sequence)
      digest.combine(answer.first)
      for page in answer.pages {
        digest.combine(
          page.physicalAddress | UInt64(page.rights.rawValue) << 8
            | UInt64(page.sizeLog2 | (page.isDeviceMemory ? 128 : 0)))
      }
    case .subscriber(let subscriber, .lost):
      digest.combine(12 << 32 | UInt64(subscriber.rawValue))
    }
  }
}
