// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// `NotifierService/Watch`: a subscriber's stream, which is also its presence.
extension Shard {
  func watchSubscriber(
    _ host: MachineHost, _ r: LabNotifierServiceWatchRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try subscriber(host, r.subscriber)
    guard port.stream == nil else {
      throw .service(.streamTaken, "the subscriber has a stream already; it can have one", fields: ["subscriber"])
    }
    guard r.afterSeq <= port.seq else {
      throw .outOfRange("afterSeq", "at most \(port.seq), the number of the last event")
    }
    host.dispatch()
    port.trim(limits.eventsBeforeStream)
    let isCut = r.afterSeq < port.base
    if r.afterSeq > port.base { port.outbox.removeFirst(Int(r.afterSeq - port.base)) }
    port.stream = SubscriberPort.Stream(call: caller.call, codec: caller.codec, lastSentAt: now)
    streams[caller.call] = .subscriber(host, port)
    sweep(at: now &+ limits.heartbeat)
    send(port, opening: true, isCut: isCut)
    return nil
  }

  func flushSubscribers(_ host: MachineHost) {
    for port in host.touchedSubscribers {
      port.isTouched = false
      send(port)
    }
    host.touchedSubscribers.removeAll(keepingCapacity: true)
  }

  /// Sends what waits for a subscriber on its stream.
  private func send(_ port: SubscriberPort, opening: Bool = false, isCut: Bool = false) {
    guard let stream = port.stream, opening || !port.outbox.isEmpty else { return }
    var first = 0
    let base = port.base
    repeat {
      let end = min(port.outbox.count, first + limits.eventsPerResponse)
      let response = LabNotifierServiceWatchResponse.with {
        $0.seq = base + UInt64(end)
        $0.events = port.outbox[first..<end].map { LabNotifierEvent($0) }
        $0.historyCut = isCut && first == 0
      }
      desk.send(stream.call, stream.codec, response)
      first = end
    } while first < port.outbox.count
    port.outbox.removeAll(keepingCapacity: port.outbox.capacity <= 64)
    port.stream!.lastSentAt = now
  }

  /// Ends the presence of subscribers without a sign of life, and sends heartbeats.
  func sweepSubscribers(_ host: MachineHost) {
    for case let port? in host.subscribers {
      if let stream = port.stream {
        if stream.lastSentAt &+ limits.heartbeat <= now { heartbeat(host, port, stream) }
        sweep(at: (port.stream?.lastSentAt ?? now) &+ limits.heartbeat)
      } else if port.leaseEnds <= now {
        touch(host)
        remove(host, port)
      } else {
        sweep(at: port.leaseEnds)
      }
    }
  }

  private func heartbeat(_ host: MachineHost, _ port: SubscriberPort, _ stream: SubscriberPort.Stream) {
    let response = LabNotifierServiceWatchResponse.with {
      $0.seq = port.base
      $0.events = [.with { $0.heartbeat = .with { $0.timeNanoseconds = host.time(now) } }]
    }
    desk.send(stream.call, stream.codec, response)
    port.stream!.lastSentAt = now
  }

  /// Presence was lost, or the subscriber went: nobody waits for it any more.
  func remove(_ host: MachineHost, _ port: SubscriberPort) {
    // A subscriber that is gone already cannot be unsubscribed again, and nothing is to be done about it.
    _ = try? host.perform(.unsubscribe(port.id), now)
    if host.subscribers[port.id.slot] === port { host.subscribers[port.id.slot] = nil }
    host.dispatch()
  }
}

extension LabNotifierEvent {
  init(_ event: SubscriberPort.Event) {
    self.init()
    switch event {
    case .call(let event): call = LabNotifierCall(event)
    case .lost: lost = LabSubscriberLost()
    }
  }
}

extension LabNotifierCall {
  init(_ event: NotifierEvent) {
    self.init()
    number = event.number
    hook =
      switch event.hook {
      case .start: .start
      case .invalidate: .invalidate
      case .finish: .finish
      case .end: .end
      case .release: .release
      case .young: .young
      }
    reason =
      switch event.reason {
      case .unmap: .unmap
      case .clear: .clear
      case .protectionVMA: .protectionVma
      case .protectionPage: .protectionPage
      case .softDirty: .softDirty
      case .release: .release
      case .migrate: .migrate
      case .exclusive: .exclusive
      }
    address = Hex.string(event.range.first << 12)
    byteCount = Hex.string(event.range.count << 12)
    operation = event.operation.text
    sequence = event.sequence
    mayBlock = event.mayBlock
    owner = event.owner
  }
}
