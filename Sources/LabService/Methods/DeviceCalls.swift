// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// The unary traffic of `DeviceService`, for curl and the like; `Translate` is the hot one.
extension Shard {
  func deviceCall(
    _ payload: DeviceCall.Payload, _ call: CallID, _ method: LabMethod, _ codec: RPCCodec,
    _ bytes: UnsafeRawBufferPointer
  ) {
    do throws(WireError) {
      if codec == .json {
        try deviceCall.read(payload, json: bytes)
      } else {
        try deviceCall.read(payload, binary: bytes)
      }
    } catch {
      return fail(Caller(call: call, method: method, codec: codec), .wire(error))
    }
    let host: MachineHost
    switch locate(deviceCall.machine) {
    case .here(let found): host = found
    case .elsewhere(let index): return forward(to: index, .request, call, method, codec, bytes)
    case .nowhere:
      let caller = caller(call, method, codec)
      if !isRepeat(caller) { fail(caller, .notFound(.machine)) }
      return
    }
    let isPlain = deviceCall.requestID.isEmpty
    if !isPlain, isRepeat(caller(call, method, codec)) { return }
    do throws(CallError) {
      touch(host)
      let port = try port(host, deviceCall.device)
      switch payload {
      case .translate:
        try translate(host, port)
        if isPlain, codec == .json {
          desk.send(call, writer.bytes)
        } else {
          answer(caller(call, method, codec), written(LabTranslateResponse.self))
        }
      case .pageRequests: try requestPages(host, port, caller(call, method, codec))
      case .dma: try access(host, port, caller(call, method, codec))
      case .complete:
        _ = try host.perform(try Command(deviceCall.message, of: port.id), now)
        let ignored = takeIgnored(host, port)
        answer(caller(call, method, codec), LabCompleteInvalidationsResponse.self, [], ignored)
      case .giveUp:
        _ = try host.perform(try Command(deviceCall.message, of: port.id), now)
        host.dispatch()
        answer(caller(call, method, codec), LabGiveUpResponse())
      }
    } catch {
      fail(caller(call, method, codec), error)
    }
  }

  /// Who made the call that was read last.
  @inline(never)
  private func caller(_ call: CallID, _ method: LabMethod, _ codec: RPCCodec) -> Caller {
    Caller(
      call: call, method: method, codec: codec, requestID: deviceCall.requestID,
      digest: deviceCall.requestID.isEmpty ? 0 : deviceCall.contentHash, machine: deviceCall.machine)
  }

  /// Performs the translation that was read and writes its answer.
  @inline(__always)
  private func translate(_ host: MachineHost, _ port: DevicePort) throws(CallError) {
    host.dispatch()
    _ = try host.perform(try Command(deviceCall.message, of: port.id), now)
    // The answer is of this very turn; it stands last.
    let translation = host.effects.list.withUnsafeBufferPointer { effects in
      guard case .translation(_, let translation)? = effects.last else {
        preconditionFailure("a translation request is answered in its turn")
      }
      return translation
    }
    host.effects.list.removeLast()
    host.dispatch()
    writer.clear()
    writer.response(.init(translation))
  }

  private func access(_ host: MachineHost, _ port: DevicePort, _ caller: Caller) throws(CallError) {
    guard case .dma(var access) = deviceCall.message else { return }
    try checkWaiting(port)
    let tag = access.tag
    access.tag = 0
    var request = try DMARequest(access)
    guard tag <= greatestDeviceTag else { _ = try Command(deviceCall.message, of: port.id); return }
    // The service's own tags lie above the device's.
    repeat { port.lastTag = max(port.lastTag &+ 1, greatestDeviceTag + 1) } while port.dmaCalls[port.lastTag] != nil
    request.tag = port.lastTag
    _ = try host.perform(.dma(port.id, request), now)
    port.dmaCalls[request.tag] = (caller, tag)
    host.dispatch()
  }

  /// A unary DMA has landed.
  func answer(_ caller: Caller, _ result: Wire.DMAResult) {
    writer.clear()
    writer.response(result)
    answerWritten(caller, LabDmaResponse.self)
  }

  private func requestPages(_ host: MachineHost, _ port: DevicePort, _ caller: Caller) throws(CallError) {
    try checkWaiting(port)
    host.dispatch()
    // All members are checked before the first one changes anything.
    var requests: [PageRequest] = []
    for member in deviceCall.pageRequests {
      let request = try PageRequest(member)
      guard request.pasid <= Page.maximumPASID else {
        throw .refusal(Refusal(.pasidOutOfRange, .pasid, figure: UInt64(Page.maximumPASID)))
      }
      requests.append(request)
    }
    let call = PagesCall(caller)
    // The call itself counts as waiting until its last member is sent: overflow answers a group at once, and the same
    // group index may then begin anew within one call.
    call.waitingFor = 1
    for request in requests {
      let count = call.ignored.count
      _ = try host.perform(.pageRequest(port.id, request), now)
      call.ignored += takeIgnored(host, port)
      if request.last, !request.rights.isEmpty, call.ignored.count == count {
        call.waitingFor += 1
        port.pagesCalls[request.groupIndex] = call
      }
      if !host.effects.list.isEmpty { host.dispatch() }
    }
    release(call)
  }

  /// A group of a unary call was answered.
  func answer(_ call: PagesCall, _ response: Wire.PageResponse) {
    call.responses.append(response)
    release(call)
  }

  private func release(_ call: PagesCall) {
    call.waitingFor -= 1
    if call.waitingFor == 0 { answer(call.caller, LabRequestPagesResponse.self, call.responses, call.ignored) }
  }

  private func checkWaiting(_ port: DevicePort) throws(CallError) {
    guard port.dmaCalls.count + port.pagesCalls.count < limits.waitingCallsPerDevice else {
      throw .service(
        .tooManyWaitingCalls, "\(limits.waitingCallsPerDevice) unary calls of the device wait already; use Attach",
        fields: ["device"])
    }
  }

  /// Takes what the machine ignored of a device just now out of the effects: the caller hears of it, not the stream.
  private func takeIgnored(_ host: MachineHost, _ port: DevicePort) -> [Wire.IgnoredReason] {
    host.takeIgnored(port.id).map { .init($0) }
  }

  private func answer<M: Message>(
    _ caller: Caller, _: M.Type, _ responses: [Wire.PageResponse], _ ignored: [Wire.IgnoredReason]
  ) {
    writer.clear()
    writer.response(responses, ignored: ignored)
    answerWritten(caller, M.self)
  }

  /// Answers with the writer's text.
  @inline(__always)
  private func answerWritten<M: Message>(_ caller: Caller, _: M.Type) {
    if caller.codec == .json, caller.requestID.isEmpty {
      desk.send(caller.call, writer.bytes)
    } else {
      answer(caller, written(M.self))
    }
  }
}
