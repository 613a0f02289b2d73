// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer

/// A notifier subscriber as the service sees it: its stream or its lease, and the events that wait for it. An operation
/// waits for each event's answer, so what a slow reader has not read is bounded by the machine's operations. Belongs to
/// its machine's loop.
final class SubscriberPort {
  enum Event {
    case call(NotifierEvent)
    case lost
  }
  struct Stream {
    var call: CallID
    var codec: RPCCodec
    var lastSentAt: UInt64
  }

  let id: SubscriberID
  /// The id's text.
  let text: String
  /// Its `Watch`.
  var stream: Stream?
  /// Events that have not left. They are numbered up to `seq`.
  var outbox: [Event] = []
  /// Number of the last event.
  private(set) var seq: UInt64 = 0

  let lease: UInt64
  /// When presence ends without a stream and without a call; service's clock.
  var leaseEnds: UInt64
  var isTouched = false

  init(_ id: SubscriberID, lease: UInt64, now: UInt64) {
    self.id = id
    text = id.text
    self.lease = lease
    leaseEnds = now &+ lease
  }

  /// Number of the event before those that wait.
  var base: UInt64 { seq - UInt64(outbox.count) }

  /// Adds an event. Without a stream only the newest `limit` are kept.
  func push(_ event: Event, limit: Int) {
    outbox.append(event)
    seq += 1
    if stream == nil, outbox.count >= 2 * limit { trim(limit) }
  }

  func trim(_ limit: Int) {
    if outbox.count > limit { outbox.removeFirst(outbox.count - limit) }
  }
}

extension SubscriberID {
  var text: String { ObjectID.text(.subscriber, UInt128(rawValue)) }
}
