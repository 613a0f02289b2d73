// SPDX-License-Identifier: Apache-2.0

/// Notifier subscribers: they come and go, and their answers let operations go on.
extension Machine {
  /// A subscriber of a live handle. Lost ones are refused with what they must do.
  @inline(__always) func require(_ id: SubscriberID) throws(Refusal) {
    guard subscribers.contains(id) else { throw Refusal(.unknownSubscriber, .subscriber) }
    guard !subscribers[id].isLost else { throw Refusal(.subscriberLost, .subscriber) }
  }

  mutating func subscribe(_ space: AddressSpaceID, _ profile: SubscriberProfile) throws(Refusal) -> Reply {
    try require(space)
    guard subscribers.count < Int(settings.limits.subscribers) else {
      throw Refusal(.limitReached, .subscriber, figure: UInt64(settings.limits.subscribers))
    }
    if profile.kind.isInterval {
      // Interval notifiers came in 2019.
      guard settings.kernel != .linux2014 else { throw Refusal(.notInThisKernel, .subscriber) }
      try require(profile.range)
    }
    var profile = profile
    if !profile.kind.isInterval {
      profile.range = .all
      profile.takesTwoPasses = false
    }
    // Windows that are open have begun for it too: it is told of their ends (our choice; Linux lets nobody subscribe
    // inside a window, or defers it to the end).
    var windows: [Subscriber.Window] = []
    let open = spaces[space].operations.filter { operations[$0.slot]!.isWindowOpen }
    for operation in open {
      windows.append(Subscriber.Window(operation: operation, range: operations[operation.slot]!.window))
    }
    if profile.kind.isInterval && !open.isEmpty { spaces[space].notifier.sequence |= 1 }
    // Under no invalidation the first sequence is odd, and not the current one.
    let sequence = spaces[space].notifier.sequence - (open.isEmpty ? 1 : 0)
    let id = subscribers.insert {
      var made = Subscriber(id: $0, space: space, profile: profile, sequence: sequence)
      if profile.kind != .secondaryTLB { made.windows = windows }
      return made
    }
    if profile.kind.hasStartAndEnd {
      for operation in open { operations[operation.slot]!.awaitEnd.append(id) }
    }
    spaces[space].notifier.subscribers.append(id)
    return .subscriber(
      id, sequence: profile.kind.isInterval ? sequence : 0,
      openWindows: profile.kind.hasStartAndEnd ? UInt32(open.count) : 0)
  }

  /// It unsubscribed, or its presence was lost: nobody waits for it any more.
  mutating func unsubscribe(_ id: SubscriberID) throws(Refusal) {
    guard subscribers.contains(id) else { throw Refusal(.unknownSubscriber, .subscriber) }
    let space = subscribers[id].space
    if spaces.contains(space) { spaces[space].notifier.subscribers.removeAll { $0 == id } }
    let owed = subscribers[id].owed
    subscribers.remove(id)
    for waiting in owed { settle(waiting.event.operation) }
  }

  /// The subscriber has done what an event asks for; the operation goes on when all have.
  mutating func answer(_ id: SubscriberID, _ answer: NotifierAnswer, _ effects: inout Effects) throws(Refusal) {
    try require(id)
    guard let index = subscribers[id].owed.firstIndex(where: { $0.event.number == answer.number }) else {
      throw Refusal(.eventNotOwed, .event, figure: subscribers[id].lastEvent)
    }
    let owed = subscribers[id].owed[index]
    let event = owed.event
    if answer.refuses {
      // A plain subscriber whose start may fail must not have an end.
      guard !event.mayBlock, event.hook == .invalidate, subscribers[id].profile.kind.isInterval else {
        throw Refusal(.mayNotRefuse, .event)
      }
    }
    let youngest = event.hook == .young ? event.range.count : 0
    guard answer.youngPages <= youngest else { throw Refusal(.youngPagesOutOfRange, .youngPages, figure: youngest) }
    subscribers[id].owed.remove(at: index)
    effects.counters.notifierAnswers += 1
    if answer.refuses {
      operations[event.operation.slot]!.isRefused = true
    } else {
      take(event, opensWindow: owed.opensWindow, answer)
    }
    settle(event.operation)
  }

  /// What an answered event means for the oracle's account, and for the protocol's own state.
  private mutating func take(_ event: NotifierEvent, opensWindow: Bool, _ answer: NotifierAnswer) {
    let id = event.subscriber
    let profile = subscribers[id].profile
    // The owner of a migration keeps what it asked for, and its sequence.
    if event.owner != 0 && event.owner == profile.owner { return }
    if opensWindow {
      subscribers[id].windows.append(Subscriber.Window(operation: event.operation, range: event.range))
    }
    switch event.hook {
    case .start, .finish, .release:
      retire(event)
    case .invalidate:
      if profile.kind.isInterval { subscribers[id].sequence = event.sequence }
      if profile.takesTwoPasses {
        subscribers[id].pages.collide(event.range, before: reach(of: event))
      } else {
        retire(event)
      }
    case .young:
      operations[event.operation.slot]!.value += UInt64(answer.youngPages)
    case .end: break
    }
  }

  private mutating func retire(_ event: NotifierEvent) {
    let isRelease = event.reason == .release
    let stamp = OperationStamp(operation: event.operation, at: time)
    subscribers[event.subscriber].pages.retire(
      event.range, isRelease ? .release : .start, by: stamp, before: reach(of: event))
    if isRelease { subscribers[event.subscriber].isReleased = true }
  }

  /// A start comes before the entries change: whatever was handed out until its answer is gone. A flush comes after:
  /// what was handed out since it was sent is good, as a device's grants are that are younger than an invalidation.
  @inline(__always)
  private func reach(of event: NotifierEvent) -> UInt64 {
    let isFlush = event.hook == .invalidate && !subscribers[event.subscriber].profile.kind.isInterval
    return isFlush ? event.number : .max
  }

  /// A subscriber did not answer in time: it is fenced first, then the waits end, as with devices.
  mutating func lose(_ id: SubscriberID, _ effects: inout Effects) {
    subscribers[id].isLost = true
    effects.counters.lostSubscribers += 1
    effects.append(.subscriber(id, .lost))
    let owed = subscribers[id].owed
    subscribers[id].owed.removeAll()
    subscribers[id].windows.removeAll()
    subscribers[id].pages = MirrorPages()
    for waiting in owed { settle(waiting.event.operation) }
  }
}
