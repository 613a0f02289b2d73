// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCClient
import SwiftProtobuf

/// A machine whose clock only moves when the demo says so, one device on an `Attach` stream, and the machine's trace:
/// what happened is read from the service, never assumed.
final class DemoMachine {
  let client: LabClient
  let machine: String
  private(set) var device = ""
  private var attach: RPCStreamID!
  private var trace: RPCStreamID!
  private var heard: [LabDeviceEvent] = []
  /// Steps of operations since `forgetSteps`.
  private(set) var steps: [(time: UInt64, letter: LabStepLetter)] = []
  private var isTraceOpen = false

  init(_ client: LabClient) throws(StormFailure) {
    self.client = client
    var request = LabCreateMachineRequest()
    request.pacing = .manual
    request.settings.frameCount = 256
    let response: LabCreateMachineResponse = try client.call(.createMachine, request)
    machine = response.machine.machine
    var watch = LabTraceServiceWatchRequest()
    watch.machine = machine
    watch.afterSeq = 0
    trace = try open(.watchTrace)
    try send(watch, on: trace)
    client.rpc.halfClose(trace)
  }

  func addProcess() throws(StormFailure) -> String {
    var request = LabCreateAddressSpaceRequest()
    request.machine = machine
    let response: LabCreateAddressSpaceResponse = try client.call(.createAddressSpace, request)
    return response.addressSpace
  }

  /// Puts the device behind the IOMMU and binds it to the process under the strategy.
  func addDevice(sharing process: String, strategy: String) throws(StormFailure) {
    var request = LabRegisterDeviceRequest()
    request.machine = machine
    request.rid = 0x0100
    let response: LabRegisterDeviceResponse = try client.call(.registerDevice, request)
    device = response.device
    var bind = LabBindPasidRequest()
    bind.machine = machine
    bind.device = device
    bind.pasid = 1
    bind.sva.addressSpace = process
    bind.sva.strategy = strategy
    let _: LabBindPasidResponse = try client.call(.bindPasid, bind)
    attach = try open(.attach)
    var hello = LabAttachRequest()
    hello.hello.machine = machine
    hello.hello.device = device
    try send(hello, on: attach)
  }

  // MARK: - The device speaks and hears

  func say(_ fill: (inout LabDeviceMessage) -> Void) throws(StormFailure) {
    var request = LabAttachRequest()
    var message = LabDeviceMessage()
    fill(&message)
    request.messages = [message]
    try send(request, on: attach)
  }

  /// The next event that `pick` accepts. Lets time pass, turn by turn, while it has not come.
  func hear<Value>(_ what: String, _ pick: (LabDeviceEvent) -> Value?) throws(StormFailure) -> Value {
    for _ in 0..<10_000 {
      try listen()
      for (index, event) in heard.enumerated() {
        if let value = pick(event) {
          heard.remove(at: index)
          return value
        }
      }
      if try !advance() { try listen(waiting: true) }
    }
    throw .broken("the device waited in vain for \(what)")
  }

  // MARK: - Processes

  func mmap(_ process: String, _ address: UInt64) throws(StormFailure) {
    var request = LabMmapRequest()
    request.machine = machine
    request.startOnly = true
    request.addressSpace = process
    request.address = Hex.string(address)
    request.byteCount = Hex.string(4096)
    request.read = true
    request.write = true
    let response: LabMmapResponse = try client.call(.mmap, request)
    _ = try finish(response.operation)
  }

  func store(_ process: String, _ address: UInt64, _ value: UInt64) throws(StormFailure) {
    var request = LabStoreRequest()
    request.machine = machine
    request.startOnly = true
    request.addressSpace = process
    request.address = Hex.string(address)
    request.value = Hex.string(value)
    let response: LabStoreResponse = try client.call(.store, request)
    _ = try finish(response.operation)
  }

  func load(_ process: String, _ address: UInt64) throws(StormFailure) -> UInt64 {
    var request = LabLoadRequest()
    request.machine = machine
    request.startOnly = true
    request.addressSpace = process
    request.address = Hex.string(address)
    let response: LabLoadResponse = try client.call(.load, request)
    let operation = try finish(response.operation)
    do { return try Hex.parse(operation.value) } catch { throw .broken("a load answered '\(operation.value)'") }
  }

  /// madvise(MADV_DONTNEED) of one page, started only.
  func startDontNeed(_ process: String, _ address: UInt64) throws(StormFailure) -> LabOperation {
    var request = LabMadviseDontNeedRequest()
    request.machine = machine
    request.startOnly = true
    request.addressSpace = process
    request.address = Hex.string(address)
    request.byteCount = Hex.string(4096)
    let response: LabMadviseDontNeedResponse = try client.call(.madviseDontNeed, request)
    return response.operation
  }

  // MARK: - Time

  private(set) var now: UInt64 = 0

  /// Performs one turn, unless nothing is due but a time-out. False: nothing was done.
  @discardableResult
  func advance() throws(StormFailure) -> Bool {
    var request = LabAdvanceRequest()
    request.machine = machine
    request.untilNanoseconds = now
    let seen: LabAdvanceResponse = try client.call(.advance, request)
    now = seen.timeNanoseconds
    if seen.turns > 0 { return true }
    guard seen.hasNextDueNanoseconds, seen.nextDueNanoseconds < now + 10_000_000 else { return false }
    request.untilNanoseconds = seen.nextDueNanoseconds
    request.maxTurns = 1
    let response: LabAdvanceResponse = try client.call(.advance, request)
    now = response.timeNanoseconds
    return true
  }

  func state(_ operation: LabOperation) throws(StormFailure) -> LabOperation {
    var request = LabGetOperationRequest()
    request.machine = machine
    request.operation = operation.operation
    let response: LabGetOperationResponse = try client.call(.getOperation, request)
    return response.operation
  }
  func isDone(_ operation: LabOperation) throws(StormFailure) -> Bool { try state(operation).done }

  /// Lets an operation that needs nobody else run to its end.
  func finish(_ operation: LabOperation) throws(StormFailure) -> LabOperation {
    while true {
      let seen = try state(operation)
      if seen.done { return seen }
      if try !advance() { throw .broken("an operation waits for something that does not come") }
    }
  }

  /// Takes in what the trace has to say of the time so far.
  func catchUp() throws(StormFailure) { try listen() }

  func forgetSteps() throws(StormFailure) {
    try listen()
    steps = []
  }

  /// Ends the streams, and the machine.
  func delete() throws(StormFailure) {
    client.rpc.cancel(attach)
    client.rpc.cancel(trace)
    var request = LabDeleteMachineRequest()
    request.machine = machine
    let _: LabDeleteMachineResponse = try client.call(.deleteMachine, request)
  }

  // MARK: - Streams

  private func open(_ method: LabMethod) throws(StormFailure) -> RPCStreamID {
    do { return try client.rpc.openStream(method.path) } catch { throw .unreachable("\(error)") }
  }

  private func send(_ message: some Message, on stream: RPCStreamID) throws(StormFailure) {
    let bytes: [UInt8]
    do { bytes = try message.jsonUTF8Bytes() } catch { throw .broken("\(error)") }
    _ = bytes.withUnsafeBytes { client.rpc.send(stream, $0) }
  }

  /// Takes in what the streams have brought.
  private func listen(waiting: Bool = false) throws(StormFailure) {
    let wait: Duration = waiting ? .milliseconds(200) : .milliseconds(1)
    while true {
      let events = client.rpc.poll(timeout: wait)
      if let reason = client.rpc.lossReason { throw .unreachable(reason) }
      if events.isEmpty { return }
      for event in events { try take(event) }
    }
  }

  private func take(_ event: RPCClientEvent) throws(StormFailure) {
    switch event.kind {
    case .opened: break
    case .ended: throw .broken("a stream of the demo was ended by the service")
    case .failed: throw .broken("\(client.rpc.failure(event))")
    case .message:
      let bytes = Array(client.rpc.message(event))
      do {
        if event.stream == attach {
          heard += try LabAttachResponse(jsonUTF8Bytes: bytes).events
        } else {
          for event in try LabTraceServiceWatchResponse(jsonUTF8Bytes: bytes).events {
            if case .step(let step)? = event.kind { steps.append((event.timeNanoseconds, step.letter)) }
          }
        }
      } catch {
        throw .broken("\(error)")
      }
    }
  }
}
