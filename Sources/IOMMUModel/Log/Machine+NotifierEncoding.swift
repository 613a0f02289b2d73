// SPDX-License-Identifier: Apache-2.0

/// The part of the canonical byte form that is about subscribers.
extension Machine {
  func encode(_ notifier: NotifierSubscriptions, _ encoder: inout ByteEncoder) {
    encoder.put(notifier.subscribers.count)
    for subscriber in notifier.subscribers { encoder.put(subscriber.rawValue) }
    encoder.put(notifier.sequence)
    encoder.put(notifier.openWindows)
    for reader in notifier.readers { encoder.put(reader.rawValue) }
  }

  func encodeSubscribers(_ encoder: inout ByteEncoder) {
    encoder.put(subscribers.count)
    for id in subscribers.ids {
      let subscriber = subscribers[id]
      encoder.put(id.rawValue)
      encoder.put(subscriber.space.rawValue)
      subscriber.profile.encode(to: &encoder)
      encoder.put((subscriber.isLost ? 1 : 0) | (subscriber.isReleased ? 2 : 0))
      encoder.put(subscriber.lastEvent)
      encoder.put(subscriber.lastFault)
      encoder.put(subscriber.sequence)
      encoder.put(subscriber.owed.count)
      for owed in subscriber.owed {
        encoder.put(owed.event.number)
        encoder.put(owed.event.hook.rawValue)
        encoder.put(owed.event.reason.rawValue)
        owed.event.range.encode(to: &encoder)
        encoder.put(owed.event.operation.rawValue)
        encoder.put(owed.event.sequence)
        encoder.put((owed.event.mayBlock ? 1 : 0) | (owed.opensWindow ? 2 : 0))
        encoder.put(owed.event.owner)
        encoder.put(owed.timeoutTurn)
      }
      encoder.put(subscriber.windows.count)
      for window in subscriber.windows {
        encoder.put(window.operation.rawValue)
        window.range.encode(to: &encoder)
      }
      let pages = subscriber.pages.sorted
      encoder.put(pages.count)
      for (key, page) in pages {
        encoder.put(key.page)
        for grant in [page.handed, page.installed] { encode(grant, &encoder) }
      }
    }
  }

  private func encode(_ grant: MirrorGrant?, _ encoder: inout ByteEncoder) {
    encoder.put(grant != nil)
    guard let grant else { return }
    encoder.put(grant.fault)
    encoder.put(grant.frame)
    encoder.put(grant.generation)
    encoder.put(grant.level)
    encoder.put(grant.rights.rawValue)
    encoder.put(grant.at)
    encoder.put(grant.afterEvent)
    encoder.put((grant.collided ? 1 : 0) | grant.end.rawValue << 1)
    encode(grant.endedBy, &encoder)
  }
}
