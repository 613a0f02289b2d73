// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// NotifierService, but for its stream.
extension Shard {
  func subscribe(
    _ host: MachineHost, _ r: LabSubscribeRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let kind: SubscriberKind
    switch r.kind {
    case .kvmLike: kind = .kvmLike
    case .interval: kind = .interval
    case .gntdevLike: kind = .gntdevLike
    case .gruLike: kind = .gruLike
    case .secondaryTlb: kind = .secondaryTLB
    case .unspecified: throw .wire(WireError(.missing, field: "kind"))
    case .UNRECOGNIZED: throw .wire(WireError(.unknownValue, field: "kind"))
    }
    if !kind.isInterval {
      let given = [
        ("address", !r.address.isEmpty), ("byteCount", !r.byteCount.isEmpty), ("takesTwoPasses", r.takesTwoPasses),
      ].filter(\.1).map(\.0)
      guard given.isEmpty else {
        throw .service(
          .badValue, "only an interval subscriber has a range or two passes; the others are told of everything, once",
          fields: given)
      }
    }
    let range = r.address.isEmpty && r.byteCount.isEmpty ? .all : try self.range(r.address, r.byteCount)
    let lease = try lease(r.hasLeaseMilliseconds ? r.leaseMilliseconds : nil)
    let profile = SubscriberProfile(kind: kind, range: range, takesTwoPasses: r.takesTwoPasses, owner: r.owner)
    let command = Command.subscribe(try space(r.addressSpace), profile)
    guard case .subscriber(let id, let sequence, let openWindows) = try host.perform(command, now) else { return nil }
    let port = SubscriberPort(id, lease: lease, now: now)
    host.add(port)
    sweep(at: port.leaseEnds)
    return LabSubscribeResponse.with {
      $0.subscriber = port.text
      $0.sequence = sequence
      $0.openWindows = openWindows
    }
  }

  func unsubscribe(
    _ host: MachineHost, _ r: LabUnsubscribeRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try subscriber(host, r.subscriber)
    if let stream = port.stream {
      port.stream = nil
      endStream(stream.call, nil)
    }
    remove(host, port)
    return LabUnsubscribeResponse()
  }

  func answerEvents(
    _ host: MachineHost, _ r: LabAnswerRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try subscriber(host, r.subscriber)
    guard !r.answers.isEmpty else { throw .wire(WireError(.missing, field: "answers")) }
    guard r.answers.count <= 4096 else {
      throw .service(.batchTooLarge, "a call holds at most 4096 answers", fields: ["answers"])
    }
    for (index, answer) in r.answers.enumerated() {
      let answer = NotifierAnswer(number: answer.number, refuses: answer.refuses, youngPages: answer.youngPages)
      do throws(CallError) {
        _ = try host.perform(.answer(port.id, answer), now)
      } catch {
        throw Self.refused(error, answer, at: index)
      }
    }
    return LabAnswerResponse()
  }

  /// Says which of the answers a refusal is about.
  private static func refused(_ error: CallError, _ answer: NotifierAnswer, at index: Int) -> CallError {
    guard case .refusal(let refusal) = error, !refusal.fields.contains(.subscriber) else { return error }
    return .service(
      refusal.errorReason, "event \(answer.number): \(refusal.text)",
      fields: refusal.fieldNames.map { "answers[\(index)].\($0)" })
  }

  func rangeFault(
    _ host: MachineHost, _ r: LabRangeFaultRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try subscriber(host, r.subscriber)
    let fault = RangeFault(range: try range(r.address, r.byteCount), rights: Rights(read: r.read, write: r.write))
    return try start(host, .rangeFault(port.id, fault), caller)
  }

  func takePages(
    _ host: MachineHost, _ r: LabTakePagesRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try subscriber(host, r.subscriber)
    let kind: OperationKind = r.exclusive ? .makeDeviceExclusive : .migrateToDevice
    return try start(host, .takePages(port.id, kind, try range(r.address, r.byteCount)), caller)
  }

  /// Starts what answers with pages.
  private func start(_ host: MachineHost, _ command: Command, _ caller: Caller) throws(CallError) -> (any Message)? {
    // What was done before is told first: the operation may return in this very turn.
    host.dispatch()
    guard case .operation(let id) = try host.perform(command, now) else { return nil }
    if !caller.requestID.isEmpty { answers.note(operation: id.rawValue, caller.key) }
    host.operations.begin(id, isLoad: false, caller)
    return nil
  }

  /// What answers with pages has returned.
  func answer(_ caller: Caller, _ outcome: OperationOutcome, _ answer: RangeFaultAnswer?) {
    let operation = LabOperation(outcome, isLoad: false)
    let pages = answer?.pages.map { LabMirrorPage($0) } ?? []
    let message: any Message =
      caller.method == .takePages
      ? LabTakePagesResponse.with {
        $0.operation = operation
        $0.fault = answer?.number ?? 0
        $0.sequence = answer?.sequence ?? 0
        $0.pages = pages
      }
      : LabRangeFaultResponse.with {
        $0.operation = operation
        $0.fault = answer?.number ?? 0
        $0.sequence = answer?.sequence ?? 0
        $0.pages = pages
      }
    self.answer(caller, message)
  }

  func installPages(
    _ host: MachineHost, _ r: LabInstallRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try subscriber(host, r.subscriber)
    let install = MirrorInstall(fault: r.fault, range: try range(r.address, r.byteCount))
    _ = try host.perform(.mirrorInstall(port.id, install), now)
    return LabInstallResponse()
  }

  func mirrorAccess(
    _ host: MachineHost, _ r: LabAccessRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try subscriber(host, r.subscriber)
    let access = MirrorAccess(
      page: try page(r.address, "address", .address),
      physicalAddress: try required(r.physicalAddress, "physicalAddress"),
      write: r.write, value: r.write ? try required(r.value, "value") : 0)
    guard case .mirrorAccess(let status, let value) = try host.perform(.mirrorAccess(port.id, access), now) else {
      return nil
    }
    return LabAccessResponse.with {
      $0.status =
        switch status {
        case .success: .success
        case .fenced, .refused: .fenced
        case .blocked: .blocked
        case .unsupportedRequest: .unsupportedRequest
        }
      if !r.write && status == .success { $0.value = Hex.string(value) }
    }
  }

  /// The subscriber that a call is for; the call renews its lease.
  func subscriber(_ host: MachineHost, _ text: String) throws(CallError) -> SubscriberPort {
    let id = SubscriberID(rawValue: try id(.subscriber, text, "subscriber"))
    guard let port = host.subscriber(id) else { throw .notFound(.subscriber) }
    port.leaseEnds = now &+ port.lease
    return port
  }

  /// A lease in nanoseconds.
  func lease(_ milliseconds: UInt32?) throws(CallError) -> UInt64 {
    guard let milliseconds else { return limits.leaseDefault }
    let lease = UInt64(milliseconds) * 1_000_000
    guard lease > 0, lease <= limits.leaseMaximum else {
      throw .service(
        .leaseOutOfRange, "a lease is 1 to \(limits.leaseMaximum / 1_000_000) milliseconds",
        fields: ["leaseMilliseconds"])
    }
    return lease
  }
}

extension LabMirrorPage {
  init(_ page: MirrorPage) {
    self.init()
    if !page.rights.isEmpty { physicalAddress = Hex.string(page.physicalAddress) }
    read = page.rights.contains(.read)
    write = page.rights.contains(.write)
    sizeLog2 = UInt32(page.sizeLog2)
    deviceMemory = page.isDeviceMemory
  }
}

extension LabMethod {
  /// Whether its operation answers with pages of a mirror.
  var answersPages: Bool { self == .rangeFault || self == .takePages }
}
