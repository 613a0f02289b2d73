// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import MirrorEndpoint
import RPCClient
import SwiftProtobuf

/// One mirror on a connection of its own: its stream of events, and its unary calls, which the connection keeps in posted
/// order.
final class MirrorClient {
  private let client: LabClient
  private let machine: String
  let subscriber: String
  private let stream: RPCStreamID
  private(set) var endpoint: MirrorEndpoint
  /// For poll(2); `turn` reads what it announces.
  var descriptor: Int32 { client.rpc.descriptor }
  /// Accesses that may have begun.
  var startLimit: UInt64 {
    get { endpoint.startLimit }
    set { endpoint.startLimit = newValue }
  }
  /// Nothing more comes of it: the mirror is lost, or the address space is gone and no access is under way.
  var isOver: Bool {
    let goesOn = endpoint.configuration.misbehaviour.contains(.usesAfterRelease)
    return endpoint.isFenced || endpoint.isReleased && (endpoint.isQuiet || goesOn)
  }

  /// What a unary call was for; the endpoint's own tag stands below it in the call's tag.
  private enum Purpose: UInt64 { case answer = 1, fault, install, access }

  /// Subscribes, and opens the stream.
  init(
    _ service: String, machine: String, addressSpace: String, _ configuration: MirrorEndpoint.Configuration
  ) throws(StormFailure) {
    client = try LabClient(service)
    self.machine = machine
    var request = LabSubscribeRequest()
    request.machine = machine
    request.addressSpace = addressSpace
    request.kind = LabSubscriberKind(configuration.kind)
    request.takesTwoPasses = configuration.kind.takesTwoPasses
    request.owner = configuration.owner
    if configuration.kind.isInterval {
      request.address = Hex.string(configuration.range.first << 12)
      request.byteCount = Hex.string(configuration.range.count << 12)
    }
    let response: LabSubscribeResponse = try client.call(.subscribe, request)
    subscriber = response.subscriber
    endpoint = MirrorEndpoint(configuration, sequence: response.sequence, openWindows: response.openWindows)
    var watch = LabNotifierServiceWatchRequest()
    watch.machine = machine
    watch.subscriber = subscriber
    do { stream = try client.rpc.openStream(LabMethod.watchSubscriber.path) } catch {
      throw .unreachable("\(error)")
    }
    let bytes = LabCodec.json(watch)
    _ = bytes.withUnsafeBytes { client.rpc.send(stream, $0) }
    client.rpc.halfClose(stream)
  }

  /// Says what can be said, and takes what comes until then.
  func turn(timeout: Duration) throws(StormFailure) {
    endpoint.pump()
    try send()
    for event in client.rpc.poll(timeout: timeout) {
      switch event.kind {
      case .opened: break
      case .message where event.stream == stream: try take(client.rpc.message(event))
      case .message: try take(answer: client.rpc.message(event), event.tag)
      case .failed where event.stream == stream: throw .broken("the mirror's stream: \(client.rpc.failure(event))")
      case .failed: try take(client.rpc.failure(event), event.tag)
      case .ended: throw .broken("the mirror's stream ended")
      }
    }
    if let reason = client.rpc.lossReason { throw .unreachable(reason) }
    endpoint.pump()
    try send()
    client.rpc.flush()
  }

  // MARK: Down

  private func take(_ bytes: UnsafeRawBufferPointer) throws(StormFailure) {
    for event in try decode(LabNotifierServiceWatchResponse.self, bytes).events {
      switch event.kind {
      case .call(let call): endpoint.receive(try MirrorEvent(call))
      case .lost: endpoint.fence()
      case .heartbeat, nil: break
      }
    }
  }

  private func take(answer bytes: UnsafeRawBufferPointer, _ tag: UInt64) throws(StormFailure) {
    let own = UInt32(truncatingIfNeeded: tag)
    switch Purpose(rawValue: tag >> 32)! {
    case .answer: break
    case .fault: endpoint.receive(try MirrorFaultAnswer(tag: own, try decode(LabRangeFaultResponse.self, bytes)))
    case .install: endpoint.receiveInstalled(tag: own)
    case .access:
      endpoint.receiveAccess(tag: own, fenced: try decode(LabAccessResponse.self, bytes).status == .fenced)
    }
  }

  /// A call was refused. A fault finds no address space after an exit; who is lost is told so by its stream.
  private func take(_ failure: RPCFailure, _ tag: UInt64) throws(StormFailure) {
    let own = UInt32(truncatingIfNeeded: tag)
    switch Purpose(rawValue: tag >> 32)! {
    case .fault where ["UNKNOWN_ADDRESS_SPACE", "ADDRESS_SPACE_EXITING", "SUBSCRIBER_LOST"].contains(failure.reason):
      endpoint.receive(MirrorFaultAnswer(tag: own, status: .gone))
    case .install where failure.reason == "SUBSCRIBER_LOST": endpoint.receiveInstalled(tag: own)
    case .answer where failure.reason == "SUBSCRIBER_LOST": break
    default: throw .broken("a call of the mirror: \(failure)")
    }
  }

  private func decode<M: Message>(_: M.Type, _ bytes: UnsafeRawBufferPointer) throws(StormFailure) -> M {
    do { return try LabCodec.decode(M.self, json: bytes) } catch { throw .broken("\(error)") }
  }

  // MARK: Up

  private func send() throws(StormFailure) {
    let messages = endpoint.messages
    endpoint.messages.removeAll(keepingCapacity: true)
    for message in messages { try send(message) }
  }

  private func send(_ message: MirrorMessage) throws(StormFailure) {
    switch message {
    case .answer(let number, let refuses, let youngPages):
      var request = LabAnswerRequest()
      request.machine = machine
      request.subscriber = subscriber
      request.answers = [
        .with {
          $0.number = number
          $0.refuses = refuses
          $0.youngPages = youngPages
        }
      ]
      try start(.answerEvents, request, .answer, 0)
    case .fault(let tag, let range, let write):
      var request = LabRangeFaultRequest()
      request.machine = machine
      request.subscriber = subscriber
      request.address = Hex.string(range.first << 12)
      request.byteCount = Hex.string(range.count << 12)
      request.read = true
      request.write = write
      try start(.rangeFault, request, .fault, tag)
    case .install(let tag, let fault, let range):
      var request = LabInstallRequest()
      request.machine = machine
      request.subscriber = subscriber
      request.fault = fault
      request.address = Hex.string(range.first << 12)
      request.byteCount = Hex.string(range.count << 12)
      try start(.installPages, request, .install, tag)
    case .access(let tag, let page, let physicalAddress, let write, let value):
      var request = LabAccessRequest()
      request.machine = machine
      request.subscriber = subscriber
      request.address = Hex.string(page << 12)
      request.physicalAddress = Hex.string(physicalAddress)
      request.write = write
      if write { request.value = Hex.string(value) }
      try start(.mirrorAccess, request, .access, tag)
    }
  }

  private func start(
    _ method: LabMethod, _ request: any Message, _ purpose: Purpose, _ tag: UInt32
  ) throws(StormFailure) {
    let bytes = LabCodec.json(request)
    do {
      _ = try bytes.withUnsafeBytes { bytes in
        Result { () throws(RPCClientError) in
          try client.rpc.start(method.path, bytes, tag: purpose.rawValue << 32 | UInt64(tag))
        }
      }.get()
    } catch {
      throw .unreachable("\(method.descriptor.name): \(error)")
    }
  }
}

extension LabSubscriberKind {
  init(_ kind: MirrorKind) {
    switch kind {
    case .kvm: self = .kvmLike
    case .hmm, .interval: self = .interval
    case .gntdev: self = .gntdevLike
    case .gru: self = .gruLike
    case .secondaryTLB: self = .secondaryTlb
    }
  }
}

extension MirrorEvent {
  init(_ call: LabNotifierCall) throws(StormFailure) {
    let hook: Hook
    switch call.hook {
    case .start: hook = .start
    case .invalidate: hook = .invalidate
    case .finish: hook = .finish
    case .end: hook = .end
    case .release: hook = .release
    case .young: hook = .young
    case .unspecified, .UNRECOGNIZED: throw .broken("an unknown hook: \(call.hook)")
    }
    guard let address = try? Hex.parse(call.address), let count = try? Hex.parse(call.byteCount) else {
      throw .broken("an event without a range")
    }
    self.init(
      number: call.number, hook: hook, isRelease: call.reason == .release,
      range: MirrorRange(first: address >> 12, count: count >> 12), sequence: call.sequence, mayBlock: call.mayBlock,
      owner: call.owner)
  }
}

extension MirrorFaultAnswer {
  init(tag: UInt32, _ response: LabRangeFaultResponse) throws(StormFailure) {
    let status: Status =
      switch response.operation.status {
      case .success: .success
      case .busy: .busy
      case .objectGone: .gone
      default: .denied
      }
    var pages: [Page] = []
    for page in response.pages {
      guard let address = try? Hex.parse(page.physicalAddress) else { throw .broken("a fault without an address") }
      pages.append(Page(physicalAddress: address, isWritable: page.write))
    }
    self.init(tag: tag, status: status, fault: response.fault, sequence: response.sequence, pages: pages)
  }
}
