// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import MirrorEndpoint

/// Between a mirror and a machine in the same process: what the wire's codec is over a network.
extension MirrorMessage {
  func command(_ subscriber: SubscriberID) -> Command {
    switch self {
    case .answer(let number, let refuses, let youngPages):
      .answer(subscriber, NotifierAnswer(number: number, refuses: refuses, youngPages: youngPages))
    case .fault(_, let range, let write):
      .rangeFault(subscriber, RangeFault(range: PageRange(range), rights: write ? .readWrite : .read))
    case .install(_, let fault, let range):
      .mirrorInstall(subscriber, MirrorInstall(fault: fault, range: PageRange(range)))
    case .access(_, let page, let physicalAddress, let write, let value):
      .mirrorAccess(
        subscriber, MirrorAccess(page: page, physicalAddress: physicalAddress, write: write, value: value))
    }
  }
}

extension PageRange {
  init(_ range: MirrorRange) { self.init(first: range.first, count: range.count) }
}

extension MirrorEvent {
  init(_ event: NotifierEvent) {
    self.init(
      number: event.number, hook: Hook(rawValue: event.hook.rawValue)!, isRelease: event.reason == .release,
      range: MirrorRange(first: event.range.first, count: event.range.count), sequence: event.sequence,
      mayBlock: event.mayBlock, owner: event.owner)
  }
}

extension MirrorFaultAnswer {
  init(tag: UInt32, _ answer: RangeFaultAnswer) {
    self.init(
      tag: tag, status: .success, fault: answer.number, sequence: answer.sequence,
      pages: answer.pages.map { Page(physicalAddress: $0.physicalAddress, isWritable: $0.rights.contains(.write)) })
  }

  init(tag: UInt32, _ status: OperationOutcome.Status) {
    let status: Status =
      switch status {
      case .busy: .busy
      case .objectGone: .gone
      default: .denied
      }
    self.init(tag: tag, status: status)
  }
}

extension SubscriberProfile {
  init(_ kind: MirrorKind, _ range: MirrorRange, owner: UInt32) {
    let subscriber: SubscriberKind =
      switch kind {
      case .kvm: .kvmLike
      case .hmm, .interval: .interval
      case .gntdev: .gntdevLike
      case .gru: .gruLike
      case .secondaryTLB: .secondaryTLB
      }
    self.init(kind: subscriber, range: PageRange(range), takesTwoPasses: kind.takesTwoPasses, owner: owner)
  }
}
