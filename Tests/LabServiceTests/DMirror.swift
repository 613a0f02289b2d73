// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCClient
import SwiftProtobuf
import Testing

/// The device of Linux's `test_hmm.c`: it reads and writes memory through a table of its own, under an interval notifier.
/// Its process is this one too.
final class DMirror {
  enum Outcome: Equatable {
    case done
    /// EFAULT, EPERM.
    case fault, notPermitted
  }

  /// A connection of one or more devices: while a call of one waits, the events of all are answered.
  final class Connection {
    let client: LabClient
    fileprivate var devices: [DMirror] = []
    fileprivate var lastTag: UInt64 = 0
    init(_ client: LabClient) { self.client = client }
  }

  let connection: Connection
  var client: LabClient { connection.client }
  let machine: String
  let space: String
  private let owner: UInt32
  private(set) var subscriber = ""
  private var stream: RPCStreamID?
  private var sequence: UInt64 = 0
  private var table: [UInt64: (address: UInt64, isWritable: Bool)] = [:]
  /// Sizes of the blocks that the last migration or exclusive access took pages of.
  private(set) var blockSizes: Set<UInt32> = []
  /// Faults that were sent, without those that were busy.
  private(set) var faults = 0
  private(set) var events: [LabNotifierCall] = []

  init(_ connection: Connection, machine: String, space: String, owner: UInt32 = 1) throws {
    self.connection = connection
    self.owner = owner
    self.machine = machine
    self.space = space
    let response: LabSubscribeResponse = try call(
      .subscribe,
      LabSubscribeRequest.with {
        $0.machine = machine
        $0.addressSpace = space
        $0.kind = .interval
        $0.owner = owner
      })
    subscriber = response.subscriber
    sequence = response.sequence
    stream = try client.watch(
      .watchSubscriber,
      LabNotifierServiceWatchRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
      })
    connection.devices.append(self)
  }

  /// Another device of the same process.
  func beside(owner: UInt32) throws -> DMirror {
    try DMirror(connection, machine: machine, space: space, owner: owner)
  }

  func close() throws {
    stream = nil
    connection.devices.removeAll { $0 === self }
    let _: LabUnsubscribeResponse = try call(
      .unsubscribe,
      LabUnsubscribeRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
      })
  }

  // MARK: Reads and writes

  /// The words at the start of so many pages.
  func read(_ address: UInt64, pages: UInt64) throws -> (outcome: Outcome, words: [UInt64]) {
    var words: [UInt64] = []
    for page in 0..<pages {
      let outcome = try reach(address + page << 12, pages: pages - page, write: false) { entry, page in
        words.append(try Hex.parse(access(page, entry, write: nil).value))
      }
      if outcome != .done { return (outcome, words) }
    }
    return (.done, words)
  }

  func write(_ address: UInt64, _ words: [UInt64]) throws -> Outcome {
    for (page, word) in words.enumerated() {
      let outcome = try reach(address + UInt64(page) << 12, pages: UInt64(words.count - page), write: true) {
        _ = try access($1, $0, write: word)
      }
      if outcome != .done { return outcome }
    }
    return .done
  }

  /// What a snapshot finds, without a fault.
  func snapshot(_ address: UInt64, pages: UInt64) throws -> [LabMirrorPage] {
    try fault(address, pages, read: false, write: false).pages
  }

  /// Gives the page's entry to `body`, and faults it in before where it is not in the table.
  private func reach(
    _ address: UInt64, pages: UInt64, write: Bool, _ body: (UInt64, UInt64) throws -> Void
  ) throws -> Outcome {
    while true {
      if let entry = table[address], entry.isWritable || !write {
        try body(entry.address, address)
        return .done
      }
      faults += 1
      let answer = try fault(address, pages, read: true, write: write)
      switch answer.operation.status {
      case .success: break
      case .busy:
        faults -= 1
        continue
      case .accessDenied: return .fault
      case .notPermitted: return .notPermitted
      default: Issue.record("a fault ended as \(answer.operation.status)")
      }
      // mmu_interval_read_retry
      if answer.sequence != sequence { continue }
      try install(answer.fault, address, answer.pages[...])
    }
  }

  /// Pages that lie side by side, the first one at `address`.
  private func install(_ fault: UInt64, _ address: UInt64, _ pages: ArraySlice<LabMirrorPage>) throws {
    for (index, page) in pages.enumerated() {
      table[address + UInt64(index) << 12] = (try Hex.parse(page.physicalAddress), page.write)
    }
    let _: LabInstallResponse = try call(
      .installPages,
      LabInstallRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
        $0.fault = fault
        $0.address = Hex.string(address)
        $0.byteCount = Hex.string(UInt64(pages.count) << 12)
      })
  }

  // MARK: Pages for the device alone

  /// How many pages of the range moved into the device's memory.
  func migrate(_ address: UInt64, pages: UInt64) throws -> Int { try take(address, pages, exclusive: false) }

  /// How many pages of the range are the device's alone.
  func makeExclusive(_ address: UInt64, pages: UInt64) throws -> Int { try take(address, pages, exclusive: true) }

  private func take(_ address: UInt64, _ pages: UInt64, exclusive: Bool) throws -> Int {
    let response: LabTakePagesResponse = try call(
      .takePages,
      LabTakePagesRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
        $0.address = Hex.string(address)
        $0.byteCount = Hex.string(pages << 12)
        $0.exclusive = exclusive
      })
    blockSizes = Set(response.pages.filter { !$0.physicalAddress.isEmpty }.map(\.sizeLog2))
    return try take(response.fault, response.sequence, address, response.pages)
  }

  private func take(_ fault: UInt64, _ read: UInt64, _ address: UInt64, _ pages: [LabMirrorPage]) throws -> Int {
    guard read == sequence else { return 0 }
    var count = 0
    for run in pages.indices.split(whereSeparator: { pages[$0].physicalAddress.isEmpty }) {
      try install(fault, address + UInt64(run.startIndex) << 12, pages[run.startIndex..<run.endIndex])
      count += run.count
    }
    return count
  }

  private func fault(_ address: UInt64, _ pages: UInt64, read: Bool, write: Bool) throws -> LabRangeFaultResponse {
    try call(
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

  private func access(_ page: UInt64, _ physicalAddress: UInt64, write: UInt64?) throws -> LabAccessResponse {
    let response: LabAccessResponse = try call(
      .mirrorAccess,
      LabAccessRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
        $0.address = Hex.string(page)
        $0.physicalAddress = Hex.string(physicalAddress)
        if let write {
          $0.write = true
          $0.value = Hex.string(write)
        }
      })
    #expect(response.status == .success)
    return response
  }

  // MARK: Calls and events

  /// A unary call; events that come before its answer are answered.
  func call<Response: Message>(_ method: LabMethod, _ request: any Message) throws -> Response {
    let tag = try start(method, request)
    while true {
      let batch = client.rpc.poll(timeout: .seconds(20))
      try #require(!batch.isEmpty, "nothing came in 20 s")
      var reply: Response?
      for event in batch {
        if event.kind == .message, let device = connection.devices.first(where: { $0.stream == event.stream }) {
          for event in try LabCodec.decode(LabNotifierServiceWatchResponse.self, json: client.rpc.message(event)).events
          {
            try device.take(event.call)
          }
        } else if event.kind == .message, event.tag == tag {
          reply = try LabCodec.decode(Response.self, json: client.rpc.message(event))
        } else if event.kind == .failed {
          throw client.rpc.failure(event)
        }
      }
      if let reply { return reply }
    }
  }

  private func start(_ method: LabMethod, _ request: any Message) throws -> UInt64 {
    client.note(method)
    connection.lastTag += 1
    let tag = connection.lastTag
    let bytes = LabCodec.json(request)
    _ = try bytes.withUnsafeBytes { try client.rpc.start(method.path, $0, tag: tag) }
    return tag
  }

  /// dmirror_interval_invalidate
  private func take(_ event: LabNotifierCall) throws {
    events.append(event)
    if event.owner != owner {
      sequence = event.sequence
      let first = try Hex.parse(event.address)
      let end = first + (try Hex.parse(event.byteCount))
      table = table.filter { $0.key < first || $0.key >= end }
    }
    _ = try start(
      .answerEvents,
      LabAnswerRequest.with {
        $0.machine = machine
        $0.subscriber = subscriber
        $0.answers = [.with { $0.number = event.number }]
      })
  }
}
