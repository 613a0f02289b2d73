// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCClient
import Testing

/// Short words for subscribers over a socket.
extension Bench {
  static var kernelOfNow: LabMachineSettings {
    .with {
      $0.costs.preset = .zero
      $0.kernel = .now
    }
  }

  func subscribe(_ kind: LabSubscriberKind = .kvmLike, lease: UInt32? = nil) throws -> LabSubscribeResponse {
    try client.call(
      .subscribe,
      LabSubscribeRequest.with {
        $0.machine = machine
        $0.addressSpace = space
        $0.kind = kind
        if let lease { $0.leaseMilliseconds = lease }
      })
  }

  func watch(subscriber: String, after: UInt64 = 0) throws -> RPCStreamID {
    try client.watch(
      .watchSubscriber,
      LabNotifierServiceWatchRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
        $0.afterSeq = after
      })
  }

  /// The next event of a subscriber's stream.
  func event(_ stream: RPCStreamID) throws -> LabNotifierEvent {
    while true {
      let response = try client.next(stream, LabNotifierServiceWatchResponse.self)
      #expect(response.events.count <= 1, "events of a test come one by one")
      if let event = response.events.first { return event }
    }
  }

  func answer(_ subscriber: String, _ number: UInt64) throws {
    _ = try client.call(
      .answerEvents,
      LabAnswerRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
        $0.answers = [.with { $0.number = number }]
      }, LabAnswerResponse.self)
  }

  func fault(
    _ subscriber: String, _ address: UInt64 = base, pages: UInt64 = 1, read: Bool = true, write: Bool = true
  ) throws -> LabRangeFaultResponse {
    try client.call(
      .rangeFault,
      LabRangeFaultRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
        $0.address = Hex.string(address)
        $0.byteCount = Hex.string(pages << 12)
        $0.read = read
        $0.write = write
      })
  }

  func install(_ subscriber: String, _ fault: UInt64, _ address: UInt64 = base, pages: UInt64 = 1) throws {
    _ = try client.call(
      .installPages,
      LabInstallRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
        $0.fault = fault
        $0.address = Hex.string(address)
        $0.byteCount = Hex.string(pages << 12)
      }, LabInstallResponse.self)
  }

  func access(
    _ subscriber: String, _ physicalAddress: String, write: UInt64? = nil, at address: UInt64 = base
  ) throws -> LabAccessResponse {
    try client.call(
      .mirrorAccess,
      LabAccessRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
        $0.address = Hex.string(address)
        $0.physicalAddress = physicalAddress
        if let write {
          $0.write = true
          $0.value = Hex.string(write)
        }
      })
  }

  /// Starts an munmap of one page; answers its id at once.
  func startMunmap() throws -> String {
    try client.call(.munmap, munmap(startOnly: true), LabMunmapResponse.self).operation.operation
  }

  func operation(_ id: String) throws -> LabOperation {
    try client.call(
      .getOperation,
      LabGetOperationRequest.with {
        $0.machine = machine
        $0.operation = id
      }, LabGetOperationResponse.self
    ).operation
  }

  func verdicts() throws -> [LabVerdict] {
    try client.call(
      .listVerdicts, LabListVerdictsRequest.with { $0.machine = machine }, LabListVerdictsResponse.self
    ).verdicts
  }
}
