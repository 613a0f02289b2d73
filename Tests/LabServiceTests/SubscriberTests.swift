// SPDX-License-Identifier: Apache-2.0
//
// Goal: a client on the network gates memory operations by its answers, mirrors pages, and is judged. Method: one service
// on loopback, a subscriber's stream and its unary calls on one connection, step by step.
import LabProtocol
import LabService
import RPCClient
import Testing

@Suite struct SubscriberTests {
  @Test(arguments: [1, 2])
  func `munmap waits for the answers to its start and its end, wherever the machine lives`(_ loops: Int) async throws {
    try await Lab.run(loops: loops) { lab in
      for _ in 0..<loops {
        let bench = try Bench(lab.client(), settings: Bench.kernelOfNow)
        try bench.mmap()
        _ = try bench.load()
        let subscriber = try bench.subscribe().subscriber
        #expect(subscriber.hasPrefix("sub-"))
        let stream = try bench.watch(subscriber: subscriber)
        let operation = try bench.startMunmap()
        let start = try bench.event(stream).call
        #expect(start.number == 1)
        #expect(start.hook == .start)
        #expect(start.reason == .unmap)
        #expect(start.address == Hex.string(Bench.base))
        #expect(start.byteCount == "0x1000")
        #expect(start.operation == operation)
        #expect(start.mayBlock)
        #expect(try !bench.operation(operation).done)
        try bench.answer(subscriber, start.number)
        let end = try bench.event(stream).call
        #expect(end.hook == .end)
        #expect(try !bench.operation(operation).done)
        try bench.answer(subscriber, end.number)
        #expect(try bench.operation(operation).status == .success)
        let counters = try bench.statistics().counters
        #expect(counters.notifierEvents == 2)
        #expect(counters.notifierAnswers == 2)
      }
    }
  }

  @Test func `a mirror reads and writes through its own table, and is caught when it goes on after its answer`()
    async throws
  {
    try await Lab.run { lab in
      let bench = try Bench(lab.client(), settings: Bench.kernelOfNow)
      try bench.mmap()
      let subscriber = try bench.subscribe(.interval)
      #expect(subscriber.sequence == 1)
      let id = subscriber.subscriber
      let stream = try bench.watch(subscriber: id)
      let fault = try bench.fault(id, pages: 2)
      #expect(fault.operation.status == .success)
      #expect(fault.operation.kind == .rangeFault)
      #expect(fault.sequence == 1)
      #expect(fault.pages.count == 2)
      #expect(fault.pages[0].read && fault.pages[0].write && fault.pages[0].sizeLog2 == 12)
      try bench.install(id, fault.fault, pages: 2)
      let address = fault.pages[0].physicalAddress
      #expect(try bench.access(id, address, write: 0xabc).status == .success)
      #expect(try bench.load() == "0xabc")
      #expect(try bench.access(id, address).value == "0xabc")
      #expect(try bench.verdicts().isEmpty)

      let operation = try bench.startMunmap()
      let event = try bench.event(stream).call
      #expect(event.hook == .invalidate)
      #expect(event.sequence == 3)
      try bench.answer(id, event.number)
      #expect(try bench.operation(operation).status == .success)
      _ = try bench.access(id, address)
      let verdict = try #require(try bench.verdicts().first)
      #expect(verdict.kind == .mirrorAfterStart)
      #expect(verdict.via == .mirror)
      #expect(verdict.subscriber == id)
      #expect(verdict.device.isEmpty)
      #expect(verdict.explanation.contains("mirror \(id) read page"), "\(verdict.explanation)")
    }
  }

  @Test func `a fault answers EFAULT and EPERM as a status, and a snapshot with holes`() async throws {
    try await Lab.run { lab in
      let bench = try Bench(lab.client(), settings: Bench.kernelOfNow)
      try bench.mmap()
      _ = try bench.load()
      let id = try bench.subscribe(.secondaryTlb).subscriber
      #expect(try bench.fault(id, Bench.base + 0x10_0000).operation.status == .accessDenied)
      let snapshot = try bench.fault(id, pages: 3, read: false, write: false)
      #expect(snapshot.pages.map(\.physicalAddress.isEmpty) == [false, true, true])
      _ = try bench.client.call(
        .mprotect,
        LabMprotectRequest.with {
          $0.machine = bench.machine
          $0.addressSpace = bench.space
          $0.address = Hex.string(Bench.base + 0x2000)
          $0.byteCount = "0x1000"
          $0.read = true
        }, LabMprotectResponse.self)
      #expect(try bench.fault(id, Bench.base + 0x2000).operation.status == .notPermitted)
      #expect(try bench.fault(id, Bench.base + 0x2000, write: false).operation.status == .success)
    }
  }

  @Test func `a subscriber that does not answer is told that it is lost, and the operation goes on`() async throws {
    var settings = Bench.kernelOfNow
    settings.notifierTimeoutNanoseconds = 50_000_000
    try await Lab.run { lab in
      let bench = try Bench(lab.client(), settings: settings)
      try bench.mmap()
      let id = try bench.subscribe(.gruLike).subscriber
      let stream = try bench.watch(subscriber: id)
      let fault = try bench.fault(id)
      try bench.install(id, fault.fault)
      let response: LabMunmapResponse = try bench.client.call(.munmap, bench.munmap())
      #expect(response.operation.status == .success)
      #expect(try bench.event(stream).call.hook == .start)
      #expect(try bench.event(stream).kind == .lost(LabSubscriberLost()))
      #expect(try bench.access(id, fault.pages[0].physicalAddress).status == .fenced)
      #expect(try bench.verdicts().isEmpty)
      let failure = try bench.client.failure(
        .answerEvents, #"{"machine":"\#(bench.machine)","subscriber":"\#(id)","answers":[{"number":"1"}]}"#)
      #expect(failure.reason == "SUBSCRIBER_LOST")
      #expect(try bench.statistics().counters.lostSubscribers == 1)
    }
  }

  @Test func `the end of the stream ends the subscription, and nobody waits for it any more`() async throws {
    try await Lab.run { lab in
      let bench = try Bench(lab.client(), settings: Bench.kernelOfNow)
      try bench.mmap()
      let other = try lab.client()
      let id = try bench.subscribe().subscriber
      let stream = try other.watch(
        .watchSubscriber,
        LabNotifierServiceWatchRequest.with {
          $0.machine = bench.machine
          $0.subscriber = id
        })
      #expect(try other.next(stream, LabNotifierServiceWatchResponse.self).events.isEmpty)
      let operation = try bench.startMunmap()
      #expect(try other.next(stream, LabNotifierServiceWatchResponse.self).events.count == 1)
      #expect(try !bench.operation(operation).done)
      other.rpc.close()
      while try !bench.operation(operation).done {}
      let failure = try bench.client.failure(
        .unsubscribe, #"{"machine":"\#(bench.machine)","subscriber":"\#(id)"}"#)
      #expect(failure.reason == "UNKNOWN_SUBSCRIBER")
      #expect(failure.code == "not_found")
    }
  }

  @Test func `without a stream a lease is the presence`() async throws {
    try await Lab.run { lab in
      let bench = try Bench(lab.client(), settings: Bench.kernelOfNow)
      try bench.mmap()
      _ = try bench.subscribe(lease: 30)
      let response: LabMunmapResponse = try bench.client.call(.munmap, bench.munmap())
      #expect(response.operation.status == .success, "it never answered, and its lease ran out")
      #expect(try bench.statistics().counters.lostSubscribers == 0)
    }
  }

  @Test func `events wait for the stream, which can be resumed, and there is one at a time`() async throws {
    try await Lab.run { lab in
      let bench = try Bench(lab.client(), settings: Bench.kernelOfNow)
      try bench.mmap()
      let id = try bench.subscribe().subscriber
      let operation = try bench.startMunmap()
      let stream = try bench.watch(subscriber: id)
      #expect(try bench.event(stream).call.number == 1)
      let second = try bench.watch(subscriber: id)
      #expect(try bench.client.end(second)?.reason == "STREAM_TAKEN")
      _ = try bench.client.call(
        .unsubscribe,
        LabUnsubscribeRequest.with {
          $0.machine = bench.machine
          $0.subscriber = id
        }, LabUnsubscribeResponse.self)
      #expect(try bench.client.end(stream) == nil, "the stream of who unsubscribes ends well")
      #expect(try bench.operation(operation).status == .success)
      let next = try bench.subscribe().subscriber
      let late = try bench.watch(subscriber: next, after: 1)
      #expect(try bench.client.end(late)?.reason == "VALUE_OUT_OF_RANGE")
    }
  }

  /// What a trace says of subscribers, until one is lost.
  private static func eventsUntilLost(_ client: LabClient, _ trace: RPCStreamID) throws -> [LabTraceEvent] {
    var events: [LabTraceEvent] = []
    while true {
      for event in try client.next(trace, LabTraceServiceWatchResponse.self).events where !event.subscriber.isEmpty {
        events.append(event)
        if case .subscriberLost? = event.kind { return events }
      }
    }
  }

  @Test func `a trace shows calls, faults and losses of subscribers`() async throws {
    var settings = Bench.kernelOfNow
    settings.notifierTimeoutNanoseconds = 1_000_000
    try await Lab.run { lab in
      let bench = try Bench(lab.client(), settings: settings)
      try bench.mmap()
      let trace = try bench.client.watch(
        .watchTrace, LabTraceServiceWatchRequest.with { $0.machine = bench.machine })
      let id = try bench.subscribe().subscriber
      _ = try bench.fault(id)
      _ = try bench.client.call(.munmap, bench.munmap(), LabMunmapResponse.self)
      let events = try Self.eventsUntilLost(bench.client, trace)
      #expect(events.allSatisfy { $0.subscriber == id })
      #expect(events.contains { $0.mirrorFault.pages.count == 1 && $0.mirrorFault.address == Hex.string(Bench.base) })
      #expect(events.contains { $0.notifierCall.hook == .start })
    }
  }

  @Test(arguments: [
    (LabMethod.subscribe, #""addressSpace":"AS""#, "MISSING_FIELD"),
    (.subscribe, #""addressSpace":"as-00000000","kind":"SUBSCRIBER_KIND_INTERVAL""#, "UNKNOWN_ADDRESS_SPACE"),
    (
      .subscribe, #""addressSpace":"AS","kind":"SUBSCRIBER_KIND_INTERVAL","address":"0x1","byteCount":"0x1000""#,
      "MISALIGNED"
    ),
    (.subscribe, #""addressSpace":"AS","kind":"SUBSCRIBER_KIND_GRU_LIKE","leaseMilliseconds":0"#, "LEASE_OUT_OF_RANGE"),
    (.answerEvents, #""subscriber":"SUB""#, "MISSING_FIELD"),
    (.answerEvents, #""subscriber":"SUB","answers":[{"number":"1"}]"#, "EVENT_NOT_OWED"),
    (.answerEvents, #""subscriber":"d-00010000","answers":[{"number":"1"}]"#, "UNKNOWN_SUBSCRIBER"),
    (.rangeFault, #""subscriber":"SUB","address":"0x7f0000000000","byteCount":"0x201000""#, "LIMIT_REACHED"),
    (.rangeFault, #""subscriber":"SUB","address":"0x7f0000000000""#, "MISSING_FIELD"),
    (
      .installPages, #""subscriber":"SUB","fault":"1","address":"0x7f0000000000","byteCount":"0x1000""#,
      "FAULT_NOT_ANSWERED"
    ),
    (.mirrorAccess, #""subscriber":"SUB","address":"0x7f0000000000","physicalAddress":"0x1001""#, "MISALIGNED"),
    (
      .mirrorAccess, #""subscriber":"SUB","address":"0x7f0000000000","physicalAddress":"0x1000","write":true"#,
      "MISSING_FIELD"
    ),
    (.unsubscribe, #""subscriber":"sub-ffffffff""#, "UNKNOWN_SUBSCRIBER"),
  ])
  func `a call that makes no sense is refused by its reason`(_ method: LabMethod, _ json: String, _ reason: String)
    async throws
  {
    try await Lab.run { lab in
      let bench = try Bench(lab.client(), settings: Bench.kernelOfNow)
      let id = try bench.subscribe(.interval).subscriber
      let text = json.replacing("AS\"", with: "\(bench.space)\"").replacing("SUB\"", with: "\(id)\"")
      let failure = try bench.client.failure(method, #"{"machine":"\#(bench.machine)",\#(text)}"#)
      #expect(failure.reason == reason, "\(failure)")
    }
  }

  @Test(
    arguments: [
      (.mirrorAccess, #""subscriber":"SUB","address":"0x1000","physicalAddress":"0x5001""#, ["physicalAddress"]),
      (.subscribe, #""addressSpace":"AS","kind":"SUBSCRIBER_KIND_KVM_LIKE","takesTwoPasses":true"#, ["takesTwoPasses"]),
      (
        .subscribe, #""addressSpace":"AS","kind":"SUBSCRIBER_KIND_GRU_LIKE","address":"0x1000","byteCount":"0x1000""#,
        ["address", "byteCount"]
      ),
      (.answerEvents, #""subscriber":"SUB","answers":[{"number":"1"},{"number":"7"}]"#, ["answers[1].number"]),
      (
        .answerEvents, #""subscriber":"SUB","answers":[{"number":"1","youngPages":4294967295}]"#,
        ["answers[0].youngPages"]
      ),
    ] as [(LabMethod, String, [String])])
  func `a refusal names the very field`(_ method: LabMethod, _ json: String, _ fields: [String]) async throws {
    try await Lab.run { lab in
      let bench = try Bench(lab.client(), settings: Bench.kernelOfNow)
      try bench.mmap()
      let id = try bench.subscribe(.interval).subscriber
      _ = try bench.startMunmap()
      let text = json.replacing("AS\"", with: "\(bench.space)\"").replacing("SUB\"", with: "\(id)\"")
      let failure = try bench.client.failure(method, #"{"machine":"\#(bench.machine)",\#(text)}"#)
      #expect(failure.fields == fields, "\(failure)")
    }
  }
}
