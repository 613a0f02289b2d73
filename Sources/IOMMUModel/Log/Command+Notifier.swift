// SPDX-License-Identifier: Apache-2.0

/// The byte form of the commands of subscribers and mirrors.
extension Command {
  static let notifierNumbers: ClosedRange<UInt64> = 32...38

  func encodeNotifier(to encoder: inout ByteEncoder) {
    switch self {
    case .subscribe(let space, let profile):
      encoder.put(32)
      encoder.put(space.rawValue)
      profile.encode(to: &encoder)
    case .unsubscribe(let subscriber):
      encoder.put(33)
      encoder.put(subscriber.rawValue)
    case .answer(let subscriber, let answer):
      encoder.put(34)
      encoder.put(subscriber.rawValue)
      encoder.put(answer.number)
      encoder.put(answer.refuses)
      encoder.put(answer.youngPages)
    case .rangeFault(let subscriber, let fault):
      encoder.put(35)
      encoder.put(subscriber.rawValue)
      fault.range.encode(to: &encoder)
      encoder.put(fault.rights.rawValue)
    case .mirrorInstall(let subscriber, let install):
      encoder.put(36)
      encoder.put(subscriber.rawValue)
      encoder.put(install.fault)
      install.range.encode(to: &encoder)
    case .mirrorAccess(let subscriber, let access):
      encoder.put(37)
      encoder.put(subscriber.rawValue)
      encoder.put(access.page)
      encoder.put(access.physicalAddress)
      encoder.put(access.write)
      encoder.put(access.value)
    case .takePages(let subscriber, let kind, let range):
      encoder.put(38)
      encoder.put(subscriber.rawValue)
      encoder.put(kind.rawValue)
      range.encode(to: &encoder)
    default: preconditionFailure("a command of another room")
    }
  }

  static func notifier(_ number: UInt64, from decoder: inout ByteDecoder) throws(LogError) -> Command {
    if number == 32 {
      let space = try decoder.space()
      return .subscribe(space, try SubscriberProfile(from: &decoder))
    }
    let subscriber = try decoder.subscriber()
    switch number {
    case 33: return .unsubscribe(subscriber)
    case 34:
      let event = try decoder.number()
      let refuses = try decoder.flag()
      return .answer(
        subscriber, NotifierAnswer(number: event, refuses: refuses, youngPages: try decoder.number(UInt32.self)))
    case 35:
      let range = try PageRange(from: &decoder)
      return .rangeFault(subscriber, RangeFault(range: range, rights: try decoder.rights()))
    case 36:
      let fault = try decoder.number()
      return .mirrorInstall(subscriber, MirrorInstall(fault: fault, range: try PageRange(from: &decoder)))
    case 38:
      let kind = try decoder.value(OperationKind.self)
      return .takePages(subscriber, kind, try PageRange(from: &decoder))
    default:
      let page = try decoder.number()
      let physicalAddress = try decoder.number()
      let write = try decoder.flag()
      return .mirrorAccess(
        subscriber,
        MirrorAccess(page: page, physicalAddress: physicalAddress, write: write, value: try decoder.number()))
    }
  }
}

extension SubscriberProfile {
  func encode(to encoder: inout ByteEncoder) {
    encoder.put(kind.rawValue)
    range.encode(to: &encoder)
    encoder.put(takesTwoPasses)
    encoder.put(owner)
  }

  init(from decoder: inout ByteDecoder) throws(LogError) {
    let kind = try decoder.value(SubscriberKind.self)
    let range = try PageRange(from: &decoder)
    let takesTwoPasses = try decoder.flag()
    self.init(kind: kind, range: range, takesTwoPasses: takesTwoPasses, owner: try decoder.number(UInt32.self))
  }
}
