// SPDX-License-Identifier: Apache-2.0
import DeviceEndpoint
import Foundation
import LabProtocol
import RPCClient

/// `iommulab device`: some devices on one connection, one `Attach` stream each. Everything it does goes through the
/// public API.
public enum DeviceProcess {
  /// Runs until the parent closes the input; never returns before.
  public static func run() -> Never {
    let parent = ParentLink()
    do throws(StormFailure) {
      let configuration = try LineJSON.decode(DeviceProcessConfiguration.self, parent.configuration())
      var pump = try DevicePump(configuration)
      try pump.open()
      parent.send("ready")
      parent.waitForStart()
      try pump.run(parent)
    } catch {
      parent.send("error " + LineJSON.encode("\(error)"))
      parent.waitForEnd()
    }
  }
}

/// The loop of a device process: one batch of events in, one batch of messages for each device that has something to
/// say, one write.
struct DevicePump: ~Copyable {
  /// One device and its stream.
  struct Attached {
    var endpoint: DeviceEndpoint
    var stream: RPCStreamID
    var out = EndpointOutput()
    var faults = MessageFaults()
    var isTouched = false
    /// Kernel pages that it asks for in turn, each as one of a PASID of its own; how often it has spoken.
    var kernelPages: [(pasid: UInt32, page: UInt64)] = []
    var turns = 0

    mutating func receive(_ events: [Wire.DeviceEvent], _ now: UInt64) {
      isTouched = true
      for event in events where !DevicePump.isOfKernel(event) {
        endpoint.receive(event, now: now, into: &out, faults: &faults)
      }
    }

    mutating func settle(_ now: UInt64) {
      isTouched = false
      endpoint.settle(now: now, into: &out)
    }
  }

  /// Of every fourth turn of a device, one translation request is for a page of the kernel. No device may use one, but the
  /// IOMMU walks through the kernel's tables to find that out. The endpoint knows nothing of it: no slot has such a tag.
  static let kernelTag: UInt32 = 0x7fff_ffff
  static let kernelInterval = 4

  static func isOfKernel(_ event: Wire.DeviceEvent) -> Bool {
    if case .translation(let answer) = event { answer.tag == kernelTag } else { false }
  }

  /// Accesses that end between two reports of progress.
  static let progressInterval: UInt64 = 64

  private let client: RPCClient
  private let configuration: DeviceProcessConfiguration
  private var devices: [Attached] = []
  private var result = DeviceProcessResult()
  private var batch = EventBatch()
  private var writer = WireWriter(capacity: 64 << 10)
  private var reported: UInt64 = 0

  init(_ configuration: DeviceProcessConfiguration) throws(StormFailure) {
    self.configuration = configuration
    guard let endpoint = RPCEndpoint(configuration.service) else {
      throw .usage("no address: \(configuration.service)")
    }
    do { client = try RPCClient(endpoint) } catch { throw .unreachable("\(error)") }
  }

  /// Opens every stream and waits for its first answer.
  mutating func open() throws(StormFailure) {
    for (index, spec) in configuration.devices.enumerated() {
      let stream: RPCStreamID
      do { stream = try client.openStream(LabMethod.attach.path, tag: UInt64(index)) } catch {
        throw .unreachable("\(error)")
      }
      writer.clear()
      writer.beginAttachRequest(machine: configuration.machine, device: spec.device)
      writer.endAttachRequest()
      client.send(stream, writer.bytes)
      var device = Attached(endpoint: DeviceEndpoint(spec.configuration), stream: stream)
      if spec.asksForKernelPages {
        device.kernelPages = spec.targets.map { ($0.pasid, StormPlan.kernelFirstPage(ofPASID: $0.pasid)) }
      }
      devices.append(device)
    }
    var answered = 0
    while answered < devices.count {
      let events = client.poll(timeout: .seconds(30))
      if events.isEmpty { throw .unreachable("Attach: \(client.lossReason ?? "no answer in time")") }
      for event in events {
        if event.kind == .failed { throw .broken("Attach: \(client.failure(event))") }
        if event.kind == .message { answered += 1 }
      }
    }
  }

  /// Lets devices begin as many accesses as the parent allows; those that were held back go on.
  private mutating func follow(_ parent: ParentLink, _ now: UInt64) {
    parent.forgetWake()
    let thousandths = parent.limit
    for index in devices.indices {
      let count = configuration.devices[index].accessCount
      let wasHeldBack = devices[index].endpoint.isHeldBack
      devices[index].endpoint.startLimit = thousandths >= 1000 ? .max : count * thousandths / 1000 + 1
      if wasHeldBack { settle(index, now) }
    }
  }

  /// Runs the lists, reports, and goes on answering invalidations: other devices may still be at work.
  mutating func run(_ parent: ParentLink) throws(StormFailure) -> Never {
    let start = monotonicNow()
    let waitBefore = SchedulerWait()
    for index in devices.indices {
      devices[index].endpoint = DeviceEndpoint(configuration.devices[index].configuration, startTime: start)
    }
    follow(parent, start)
    for index in devices.indices { settle(index, start) }
    var isFinished = false
    var hasReported = false
    while true {
      let waitsForParent = isFinished || devices.contains { $0.endpoint.isHeldBack }
      if waitsForParent { waitForEither(parent) }
      let now = try turn(waitsForParent ? 0 : nextArrival)
      if waitsForParent { follow(parent, now) }
      let ended = devices.reduce(0) { $0 + $1.endpoint.endedAccesses }
      let isIdle = devices.allSatisfy { $0.endpoint.isIdle }
      // Who is held back waits for mutators, and they for its progress: the last few accesses count, too.
      let isWaiting = isIdle || devices.contains { $0.endpoint.isHeldBack }
      if ended - reported >= Self.progressInterval || (isWaiting && ended != reported) {
        parent.send("progress \(ended)")
        reported = ended
      }
      if isIdle && !isFinished {
        isFinished = true
        result.wait = CPUWait(waited: SchedulerWait().longest(since: waitBefore), elapsed: now - start)
        parent.send("finished")
      }
      if isFinished && !hasReported && parent.reportIsDue {
        hasReported = true
        for device in devices {
          result.add(device.endpoint.counters)
          result.add(device.faults)
        }
        parent.send("result " + LineJSON.encode(result))
      }
    }
  }

  /// Sends what is due and waits for the service or for the parent.
  private mutating func waitForEither(_ parent: ParentLink) {
    client.flush()
    var entries = [
      pollfd(fd: client.descriptor, events: Int16(POLLIN), revents: 0),
      pollfd(fd: parent.wakeDescriptor, events: Int16(POLLIN), revents: 0),
    ]
    // The time-out covers what only `client.poll` sees: output that the socket did not take.
    poll(&entries, 2, 20)
  }

  private var nextArrival: UInt64 { devices.reduce(UInt64.max) { min($0, $1.endpoint.nextArrival ?? .max) } }

  /// One batch; answers its time.
  private mutating func turn(_ deadline: UInt64) throws(StormFailure) -> UInt64 {
    let events = client.poll(until: deadline)
    let now = monotonicNow()
    if events.isEmpty, let reason = client.lossReason { throw .unreachable("the connection is lost: \(reason)") }
    for event in events {
      let index = Int(event.tag)
      switch event.kind {
      case .opened: break
      case .message: try receive(client.message(event), index, now)
      case .ended: throw .broken("Attach of device \(index) was ended by the service")
      case .failed: throw .broken("Attach of device \(index): \(client.failure(event))")
      }
    }
    for index in devices.indices where devices[index].isTouched || isDue(index, now) { settle(index, now) }
    return now
  }

  private func isDue(_ index: Int, _ now: UInt64) -> Bool {
    devices[index].endpoint.nextArrival.map { $0 <= now } ?? false
  }

  private mutating func receive(_ bytes: UnsafeRawBufferPointer, _ index: Int, _ now: UInt64) throws(StormFailure) {
    do throws(WireError) { try batch.read(json: bytes) } catch {
      throw .broken("Attach of device \(index): the service sent what is no AttachResponse: \(error)")
    }
    devices[index].receive(batch.events, now)
  }

  private mutating func askForKernelPage(_ index: Int) {
    guard !devices[index].kernelPages.isEmpty, !devices[index].endpoint.isIdle else { return }
    devices[index].turns += 1
    guard devices[index].turns % Self.kernelInterval == 0 else { return }
    let place = devices[index].turns / Self.kernelInterval % devices[index].kernelPages.count
    let (pasid, page) = devices[index].kernelPages[place]
    devices[index].out.messages.append(
      .translate(ATSRequest(tag: Self.kernelTag, pasid: pasid, page: page, noWrite: true)))
  }

  /// Lets a device speak, and sends what it says.
  private mutating func settle(_ index: Int, _ now: UInt64) {
    // The clock is read anew, because the batch has taken time, which invalidations have waited.
    devices[index].settle(max(now, monotonicNow()))
    askForKernelPage(index)
    let messages = devices[index].out.messages
    var first = 0
    while first < messages.count {
      let end = min(first + AttachBatch.limit, messages.count)
      writer.clear()
      writer.beginAttachRequest()
      for message in messages[first..<end] { writer.append(Wire.DeviceMessage(message)) }
      writer.endAttachRequest()
      client.send(devices[index].stream, writer.bytes)
      first = end
    }
    result.take(&devices[index].out)
  }
}
