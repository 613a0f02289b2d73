// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// What random commands know of subscribers and mirrors.
struct RandomMirrors {
  private(set) var subscribers: [SubscriberID] = []
  var owed: [NotifierEvent] = []
  private(set) var faults: [RangeFaultAnswer] = []

  mutating func remember(_ id: SubscriberID) {
    subscribers.append(id)
    if subscribers.count > 12 { subscribers.removeFirst(6) }
  }
  mutating func remember(_ event: NotifierEvent) {
    owed.append(event)
    if owed.count > 64 { owed.removeFirst(32) }
  }
  mutating func remember(_ fault: RangeFaultAnswer) {
    faults.append(fault)
    if faults.count > 24 { faults.removeFirst(12) }
  }
}

extension RandomCommands {
  /// Subscribers that mostly answer, and mirrors that obey nothing.
  mutating func notifierCommand() -> Command {
    let subscriber = pick(mirrors.subscribers)
    switch generator.next(below: 100) {
    case 0..<4:
      return .subscribe(
        pick(spaces),
        SubscriberProfile(
          kind: SubscriberKind.allCases[Int(generator.next(below: 5))], range: chance(50) ? .all : range(),
          takesTwoPasses: chance(50), owner: UInt32(generator.next(below: 2))))
    case 4..<9: return chance(15) ? .unsubscribe(subscriber) : .rangeFault(subscriber, fault())
    case 9..<60 where !mirrors.owed.isEmpty:
      // The newest are likelier to be owed still.
      let last = UInt64(min(mirrors.owed.count, 6))
      let event = mirrors.owed.remove(at: mirrors.owed.count - 1 - Int(generator.next(below: last)))
      return .answer(
        event.subscriber,
        NotifierAnswer(number: event.number, refuses: chance(event.mayBlock ? 2 : 50), youngPages: chance(10) ? 2 : 0))
    case 60..<70: return .rangeFault(subscriber, fault())
    case 70..<72: return .takePages(subscriber, chance(50) ? .migrateToDevice : .makeDeviceExclusive, fault().range)
    case 72..<86 where !mirrors.faults.isEmpty:
      let fault = mirrors.faults[
        mirrors.faults.count - 1 - Int(generator.next(below: UInt64(min(mirrors.faults.count, 3))))]
      return .mirrorInstall(
        fault.subscriber,
        MirrorInstall(
          fault: fault.number,
          range: chance(90) ? PageRange(first: fault.first, count: UInt64(fault.pages.count)) : range()))
    case 86... where !mirrors.faults.isEmpty:
      let fault = mirrors.faults[Int(generator.next(below: UInt64(mirrors.faults.count)))]
      let index = Int(generator.next(below: UInt64(fault.pages.count)))
      return .mirrorAccess(
        fault.subscriber,
        MirrorAccess(
          page: fault.first + UInt64(index),
          physicalAddress: fault.pages[index].physicalAddress + 8 * generator.next(below: 512), write: chance(50),
          value: generator.next()))
    default:
      return .answer(subscriber, NotifierAnswer(number: generator.next(below: 8)))
    }
  }

  private mutating func fault() -> RangeFault {
    var range = range()
    if chance(90) { range.count = min(max(range.count, 1), 8) }
    return RangeFault(range: range, rights: chance(60) ? [] : rights())
  }
}
