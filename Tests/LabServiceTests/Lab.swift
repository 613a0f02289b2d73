// SPDX-License-Identifier: Apache-2.0
import Foundation
import LabProtocol
import LabService
import Logging
import RPCClient
import RPCServer
import SwiftProtobuf
import Testing

/// A service on a free port of loopback, and what a test needs to talk to it.
final class Lab {
  let server: LabServer
  let endpoint: RPCEndpoint
  let address: String

  init(loops: Int = 1, limits: ServiceLimits = ServiceLimits(), rpc: RPCLimits = RPCLimits()) async throws {
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    var configuration = RPCServer.Configuration(listeners: [.tcp(host: "127.0.0.1", port: 0)], loopCount: loops)
    configuration.limits = rpc
    server = LabServer(configuration: configuration, limits: limits, logger: logger)
    address = try await server.start()[0].description
    endpoint = try #require(RPCEndpoint(address))
  }

  func stop() async { await server.shutdown(grace: .zero) }

  func client() throws -> LabClient { LabClient(try RPCClient(endpoint)) }

  /// A client whose streams take this many bytes and no more, until it polls.
  func client(streamWindow: Int32) throws -> LabClient {
    var limits = RPCClient.defaultLimits
    limits.streamWindow = streamWindow
    return LabClient(try RPCClient(endpoint, limits: limits))
  }

  /// Runs `body` against a service, which is stopped whatever happens.
  static func run(
    loops: Int = 1, limits: ServiceLimits = ServiceLimits(), rpc: RPCLimits = RPCLimits(),
    _ body: (Lab) async throws -> Void
  ) async throws {
    let lab = try await Lab(loops: loops, limits: limits, rpc: rpc)
    do {
      try await body(lab)
    } catch {
      await lab.stop()
      throw error
    }
    await lab.stop()
  }

  /// Runs curl on a path of the service; answers its output, the HTTP status on a line of its own at the end.
  func curl(_ path: String, _ arguments: [String]) throws -> String {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/curl")
    process.arguments =
      ["-s", "--max-time", "20", "--http2-prior-knowledge", "-w", "\n%{http_code}"] + arguments + [
        "http://\(address)\(path)"
      ]
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    let output = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return String(decoding: output, as: UTF8.self)
  }
}

/// A connection that speaks the contract's messages.
final class LabClient {
  let rpc: RPCClient
  /// Every method that was called on any client of this process.
  nonisolated(unsafe) private static var methods: Set<LabMethod> = []
  private static let lock = NSLock()
  static var called: Set<LabMethod> { lock.withLock { methods } }

  init(_ rpc: RPCClient) { self.rpc = rpc }

  func note(_ method: LabMethod) { Self.lock.withLock { _ = Self.methods.insert(method) } }

  /// The answer of a unary call that must succeed.
  func call<Response: Message>(
    _ method: LabMethod, _ request: any Message, _: Response.Type = Response.self, deadline: Duration? = nil
  ) throws -> Response {
    note(method)
    let bytes = LabCodec.json(request)
    let reply = try bytes.withUnsafeBytes {
      try rpc.call(method.path, $0, .json, timeout: .seconds(20), deadline: deadline)
    }
    return try reply.get().withUnsafeBytes { try LabCodec.decode(Response.self, json: $0) }
  }

  /// The failure of a call with this text that must fail.
  func failure(_ method: LabMethod, _ json: String, at location: SourceLocation = #_sourceLocation) throws -> RPCFailure
  {
    let reply = try rpc.call(method.path, json: json)
    return try #require(reply.failure, "\(method) \(json) answered \(reply.text)", sourceLocation: location)
  }

  func open(_ method: LabMethod) throws -> RPCStreamID {
    note(method)
    return try rpc.openStream(method.path)
  }

  func send(_ stream: RPCStreamID, _ message: any Message) {
    LabCodec.json(message).withUnsafeBytes { _ = rpc.send(stream, $0) }
  }

  /// Opens a server stream.
  func watch(_ method: LabMethod, _ request: any Message) throws -> RPCStreamID {
    let stream = try open(method)
    send(stream, request)
    rpc.halfClose(stream)
    return stream
  }

  /// The next message of a stream.
  func next<Response: Message>(
    _ stream: RPCStreamID, _: Response.Type = Response.self, at location: SourceLocation = #_sourceLocation
  ) throws -> Response {
    while true {
      if let index = waiting.firstIndex(where: { $0.stream == stream }) {
        let item = waiting.remove(at: index)
        let bytes = try #require(item.bytes, "the stream ended: \(item.text)", sourceLocation: location)
        return try bytes.withUnsafeBytes { try LabCodec.decode(Response.self, json: $0) }
      }
      try poll(location)
    }
  }

  /// Every message of a stream that ends well.
  func all<Response: Message>(
    _ stream: RPCStreamID, _: Response.Type, at location: SourceLocation = #_sourceLocation
  ) throws -> [Response] {
    var messages: [Response] = []
    while true {
      if let index = waiting.firstIndex(where: { $0.stream == stream }) {
        let item = waiting.remove(at: index)
        guard let bytes = item.bytes else {
          #expect(item.failure == nil, sourceLocation: location)
          return messages
        }
        messages.append(try bytes.withUnsafeBytes { try LabCodec.decode(Response.self, json: $0) })
      } else {
        try poll(location)
      }
    }
  }

  /// How a stream ended: the failure, or nil when it ended well.
  func end(_ stream: RPCStreamID, at location: SourceLocation = #_sourceLocation) throws -> RPCFailure? {
    while true {
      if let index = waiting.firstIndex(where: { $0.stream == stream && $0.bytes == nil }) {
        return waiting.remove(at: index).failure
      }
      try poll(location)
    }
  }

  private struct Item {
    var stream: RPCStreamID
    var bytes: [UInt8]?
    var failure: RPCFailure?
    var text: String { failure.map { "\($0)" } ?? "well" }
  }
  private var waiting: [Item] = []

  private func poll(_ location: SourceLocation) throws {
    let events = rpc.poll(timeout: .seconds(20))
    try #require(!events.isEmpty, "nothing came in 20 s", sourceLocation: location)
    for event in events {
      switch event.kind {
      case .opened: break
      case .message: waiting.append(Item(stream: event.stream, bytes: Array(rpc.message(event)), failure: nil))
      case .ended: waiting.append(Item(stream: event.stream, bytes: nil, failure: nil))
      case .failed: waiting.append(Item(stream: event.stream, bytes: nil, failure: rpc.failure(event)))
      }
    }
  }

  /// The next `count` events of a device's stream.
  func events(_ stream: RPCStreamID, _ count: Int, at location: SourceLocation = #_sourceLocation) throws
    -> [LabDeviceEvent]
  {
    var events: [LabDeviceEvent] = []
    while events.count < count { events += try next(stream, LabAttachResponse.self, at: location).events }
    return events
  }
}

/// A machine with one address space, as most tests want it.
struct Bench {
  let client: LabClient
  let machine: String
  let space: String

  /// `settings` default to zero durations, so that nothing waits but for clients.
  init(
    _ client: LabClient, pacing: LabPacing = .wall, record: Bool = false,
    settings: LabMachineSettings = .with { $0.costs.preset = .zero }
  ) throws {
    self.client = client
    let created: LabCreateMachineResponse = try client.call(
      .createMachine,
      LabCreateMachineRequest.with {
        $0.pacing = pacing
        $0.record = record
        $0.settings = settings
      })
    let machine = created.machine.machine
    self.machine = machine
    let space: LabCreateAddressSpaceResponse = try client.call(
      .createAddressSpace, LabCreateAddressSpaceRequest.with { $0.machine = machine })
    self.space = space.addressSpace
  }

  static let base: UInt64 = 0x7f00_0000_0000

  func mmap(_ address: UInt64 = base, pages: UInt64 = 4) throws {
    let response: LabMmapResponse = try client.call(
      .mmap,
      LabMmapRequest.with {
        $0.machine = machine
        $0.addressSpace = space
        $0.address = Hex.string(address)
        $0.byteCount = Hex.string(pages << 12)
        $0.read = true
        $0.write = true
      })
    #expect(response.operation.status == .success)
  }

  func register(rid: UInt32, lease: UInt32? = nil) throws -> String {
    let response: LabRegisterDeviceResponse = try client.call(
      .registerDevice,
      LabRegisterDeviceRequest.with {
        $0.machine = machine
        $0.rid = rid
        if let lease { $0.leaseMilliseconds = lease }
      })
    return response.device
  }

  func bind(_ device: String, pasid: UInt32 = 1, strategy: String = "invalidate-range") throws {
    _ = try client.call(
      .bindPasid,
      LabBindPasidRequest.with {
        $0.machine = machine
        $0.device = device
        $0.pasid = pasid
        $0.sva = .with {
          $0.addressSpace = space
          $0.strategy = strategy
        }
      }, LabBindPasidResponse.self)
  }

  func translate(_ device: String, _ address: UInt64 = base, pasid: UInt32 = 1) throws -> LabTranslation {
    try client.call(
      .translate,
      LabTranslateRequest.with {
        $0.machine = machine
        $0.device = device
        $0.translate = .with {
          $0.tag = 7
          $0.pasid = pasid
          $0.address = Hex.string(address)
        }
      }, LabTranslateResponse.self
    ).translation
  }

  func requestPage(_ device: String, _ address: UInt64 = base, pasid: UInt32 = 1) throws -> LabRequestPagesResponse {
    try client.call(
      .requestPages,
      LabRequestPagesRequest.with {
        $0.machine = machine
        $0.device = device
        $0.pageRequests = [
          .with {
            $0.pasid = pasid
            $0.address = Hex.string(address)
            $0.read = true
            $0.write = true
            $0.groupIndex = 3
            $0.last = true
          }
        ]
      })
  }

  func dma(
    _ device: String, _ physicalAddress: String, write: UInt64? = nil, iova: UInt64 = base
  ) throws -> LabDmaResult {
    try client.call(
      .dma,
      LabDmaRequest.with {
        $0.machine = machine
        $0.device = device
        $0.dma = .with {
          $0.tag = 9
          $0.translated = true
          $0.pasid = 1
          $0.address = physicalAddress
          $0.iova = Hex.string(iova)
          if let write {
            $0.write = true
            $0.value = Hex.string(write)
          }
        }
      }, LabDmaResponse.self
    ).dma
  }

  func munmap(_ address: UInt64 = base, pages: UInt64 = 1, requestID: String = "", startOnly: Bool = false)
    -> LabMunmapRequest
  {
    .with {
      $0.machine = machine
      $0.addressSpace = space
      $0.address = Hex.string(address)
      $0.byteCount = Hex.string(pages << 12)
      $0.requestID = requestID
      $0.startOnly = startOnly
    }
  }

  func load(_ address: UInt64 = base) throws -> String {
    try client.call(
      .load,
      LabLoadRequest.with {
        $0.machine = machine
        $0.addressSpace = space
        $0.address = Hex.string(address)
      }, LabLoadResponse.self
    ).operation.value
  }

  func stateHash() throws -> String {
    try client.call(
      .getStateHash, LabGetStateHashRequest.with { $0.machine = machine }, LabGetStateHashResponse.self
    ).stateHash
  }

  func statistics() throws -> LabStatistics {
    try client.call(
      .getStatistics, LabGetStatisticsRequest.with { $0.machine = machine }, LabGetStatisticsResponse.self
    ).statistics
  }

  func complete(_ device: String, _ itag: UInt32) throws -> LabCompleteInvalidationsResponse {
    try client.call(
      .completeInvalidations,
      LabCompleteInvalidationsRequest.with {
        $0.machine = machine
        $0.device = device
        $0.complete.itagVector = Hex.string(1 << UInt64(itag))
      })
  }

  func hello(_ device: String) -> LabAttachRequest {
    .with {
      $0.hello.machine = machine
      $0.hello.device = device
    }
  }

  func watchRequest(_ device: String) -> LabDeviceServiceWatchRequest {
    .with {
      $0.machine = machine
      $0.device = device
    }
  }
}
