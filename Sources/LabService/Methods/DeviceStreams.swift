// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// `Attach` and `Watch`: a device's stream, which is also its presence.
extension Shard {
  func watchDevice(
    _ host: MachineHost, _ r: LabDeviceServiceWatchRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try port(host, r.device)
    try open(host, port, caller.call, caller.codec, afterSeq: r.afterSeq, takesMessages: false)
    return nil
  }

  /// A message of an `Attach` stream: the first one says for which device, all carry batches.
  func attach(_ call: CallID, _ codec: RPCCodec, _ bytes: UnsafeRawBufferPointer) {
    let state = streams[call]
    do throws(CallError) {
      do throws(WireError) {
        if codec == .json { try attachBatch.read(json: bytes) } else { try attachBatch.read(binary: bytes) }
      } catch {
        throw .wire(error)
      }
      switch (state, attachBatch.hello) {
      case (.device(let host, let port)?, nil):
        touch(host)
        take(host, port)
      case (nil, let hello?):
        switch locate(hello.machine) {
        case .nowhere: throw .notFound(.machine)
        case .elsewhere(let index):
          routes[call] = index
          forward(to: index, .message, call, .attach, codec, bytes)
        case .here(let host):
          touch(host)
          let port = try port(host, hello.device)
          try open(host, port, call, codec, afterSeq: hello.afterSeq, takesMessages: true)
          take(host, port)
        }
      case (nil, nil):
        throw .service(
          .helloExpected, "the first message of a stream names machine and device in hello", fields: ["hello"])
      default:
        throw .service(.helloRepeated, "hello stands in the first message of a stream only", fields: ["hello"])
      }
    } catch {
      if case .device(let host, let port)? = state {
        touch(host)
        port.stream = nil
        remove(host, port)
      }
      endStream(call, error)
    }
  }

  /// Performs the batch that was read, in posted order.
  @inline(__always)
  private func take(_ host: MachineHost, _ port: DevicePort) {
    let first = port.messageCount
    port.messageCount += UInt64(attachBatch.messages.count)
    var index = 0
    var takesRuns = true
    while index < attachBatch.messages.count {
      if takesRuns {
        let performed = takeTranslations(host, port, from: index)
        index += performed
        // What the machine refuses of the device's first request, it refuses of all.
        takesRuns = performed > 0 || translations.isEmpty
        if index == attachBatch.messages.count { break }
      }
      do throws(CallError) {
        _ = try host.perform(try Command(attachBatch.messages[index], of: port.id), now)
      } catch {
        // What was answered before stays before the refusal.
        host.dispatch()
        port.refusals.append(error.text)
        host.push(port.id, .refused(message: first + UInt64(index) + 1, error.reason))
      }
      index += 1
      if host.effects.list.count >= 128 { host.dispatch() }
    }
    host.dispatch()
  }

  /// Performs the translation requests that stand together from `first` on, if there are two at least.
  /// - Returns: how many. What stands behind them is for itself, and may be refused.
  @inline(__always)
  private func takeTranslations(_ host: MachineHost, _ port: DevicePort, from first: Int) -> Int {
    translations.removeAll(keepingCapacity: true)
    var index = first
    while index < attachBatch.messages.count, translations.count < 64,
      case .translate(let message) = attachBatch.messages[index], let request = try? TranslationRequest(message),
      request.pasid <= Page.maximumPASID
    {
      translations.append(request)
      index += 1
    }
    if translations.count < 2 {
      translations.removeAll(keepingCapacity: true)
      return 0
    }
    let performed = host.translate(port.id, translations, now)
    if host.effects.list.count >= 128 { host.dispatch() }
    return performed
  }

  private func open(
    _ host: MachineHost, _ port: DevicePort, _ call: CallID, _ codec: RPCCodec, afterSeq: UInt64, takesMessages: Bool
  ) throws(CallError) {
    guard port.stream == nil else {
      throw .service(.streamTaken, "the device has a stream already; it can have one", fields: ["device"])
    }
    guard afterSeq <= port.seq else {
      throw .outOfRange("afterSeq", "at most \(port.seq), the number of the last event")
    }
    port.trim(limits.eventsBeforeStream)
    let base = port.seq - UInt64(port.outbox.count)
    if afterSeq > base {
      let known = Int(afterSeq - base)
      let texts = port.outbox[..<known].reduce(0) { if case .refused = $1 { $0 + 1 } else { $0 } }
      port.refusals.removeFirst(texts)
      port.outbox.removeFirst(known)
    }
    port.historyCut = afterSeq < base
    port.stream = DevicePort.Stream(call: call, codec: codec, takesMessages: takesMessages, lastSentAt: now)
    streams[call] = .device(host, port)
    sweep(at: now &+ limits.heartbeat)
    send(host, port, opening: true)
  }

  /// The client sends no more messages: the device says good-bye. What it is owed is sent, and the stream ends well.
  func leave(_ call: CallID) {
    guard case .device(let host, let port)? = streams[call] else {
      if streams[call] == nil {
        endStream(call, .service(.helloExpected, "the stream ended before its first message", fields: ["hello"]))
      }
      return
    }
    touch(host)
    remove(host, port)
  }

  /// A stream is over without the service's doing: presence is lost.
  func lost(_ call: CallID, _ end: RPCEnd) {
    switch streams.removeValue(forKey: call) {
    case .device(let host, let port)?:
      touch(host)
      port.stream = nil
      if end == .outputLimit || end == .writeStall { fleet.noteSlowReader(port.text, host.text, end) }
      remove(host, port)
    case .trace(let host)?: host.trace.watchers.removeAll { $0.call == call }
    case .subscriber(let host, let port)?:
      touch(host)
      if end == .outputLimit || end == .writeStall { fleet.noteSlowReader(port.text, host.text, end) }
      remove(host, port)
    case nil: break
    }
  }
}
