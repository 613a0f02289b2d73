// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCServer
import SwiftProtobuf

// What leaves at the end of a pass.
extension Shard {
  /// - Returns: whether a trace stream has more to get in a later pass.
  func flush(_ host: MachineHost) -> Bool {
    for port in host.touchedPorts {
      port.isTouched = false
      if port.stream != nil { send(host, port) } else if port.isGone { forget(host, port) }
    }
    host.touchedPorts.removeAll(keepingCapacity: true)
    if !host.touchedSubscribers.isEmpty { flushSubscribers(host) }
    for index in host.trace.watchers.indices { sendTrace(host, index) }
    return host.trace.watchers.contains { $0.sent < host.trace.seq }
  }

  /// Sends what waits for a device on its stream, and ends the stream of a device that is gone.
  func send(_ host: MachineHost, _ port: DevicePort, opening: Bool = false) {
    guard let stream = port.stream else { return }
    var first = 0
    var refusal = 0
    let base = port.seq - UInt64(port.outbox.count)
    var mustSend = opening
    while first < port.outbox.count || mustSend {
      mustSend = false
      let end = min(port.outbox.count, first + limits.eventsPerResponse)
      writer.clear()
      writer.beginEvents()
      for index in first..<end {
        if case .refused(let message, let reason?) = port.outbox[index] {
          writer.appendRefused(message: message, reason, text: port.refusals[refusal])
          refusal += 1
        } else {
          writer.append(port.outbox[index])
        }
      }
      writer.endEvents(epoch: port.epoch, seq: base + UInt64(end), historyCut: port.historyCut && opening && first == 0)
      sendWritten(stream.call, stream.codec, LabAttachResponse.self)
      first = end
    }
    port.outbox.removeAll(keepingCapacity: port.outbox.capacity <= 64)
    if !port.refusals.isEmpty { port.refusals.removeAll() }
    port.stream!.lastSentAt = now
    if port.isGone {
      port.stream = nil
      endStream(stream.call, nil)
      forget(host, port)
    }
  }

  private func forget(_ host: MachineHost, _ port: DevicePort) {
    if host.ports[port.id.slot] === port { host.ports[port.id.slot] = nil }
  }

  func heartbeat(_ host: MachineHost, _ port: DevicePort) {
    guard let stream = port.stream else { return }
    writer.clear()
    writer.beginEvents()
    writer.append(.heartbeat(timeNanoseconds: host.time(now)))
    writer.endEvents(epoch: port.epoch, seq: port.seq - UInt64(port.outbox.count))
    sendWritten(stream.call, stream.codec, LabAttachResponse.self)
    port.stream!.lastSentAt = now
  }

  /// Sends the writer's text, in the caller's codec.
  @inline(__always)
  func sendWritten<M: Message>(_ call: CallID, _ codec: RPCCodec, _: M.Type) {
    if codec == .json { desk.send(call, writer.bytes) } else { desk.send(call, codec, written(M.self)) }
  }

  /// The writer's text as a generated message.
  func written<M: Message>(_: M.Type) -> M {
    // The text is the writer's own; the tests hold it to the contract.
    do { return try LabCodec.decode(M.self, json: writer.bytes) } catch {
      preconditionFailure("the writer writes messages: \(error)")
    }
  }
}
