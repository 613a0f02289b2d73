// SPDX-License-Identifier: Apache-2.0
//
// Goal: what happens when clients go, come again, or are slow; and that work which has started is never aborted. Method:
// connections are cut, deadlines pass, leases end; the machine is asked afterwards.
import Foundation
import LabProtocol
import RPCClient
import Testing

@testable import LabService

@Suite struct PresenceTests {
  /// A device that holds a translation of the first page, with its stream open.
  static func holder(_ lab: Lab, _ bench: Bench, rid: UInt32 = 1) throws -> (LabClient, String, RPCStreamID) {
    let client = try lab.client()
    let device = try bench.register(rid: rid)
    try bench.bind(device)
    _ = try bench.requestPage(device)
    #expect(try bench.translate(device).read)
    let stream = try client.watch(.watchDevice, bench.watchRequest(device))
    _ = try client.next(stream, LabDeviceServiceWatchResponse.self)
    return (client, device, stream)
  }

  @Test("a client that is killed while munmap waits for it is removed, and munmap returns", arguments: [1, 2])
  func killed(loops: Int) async throws {
    try await Lab.run(loops: loops) { lab in
      let cpu = try lab.client()
      let bench = try Bench(cpu)
      try bench.mmap()
      let (client, device, stream) = try Self.holder(lab, bench)
      let body = LabCodec.json(bench.munmap())
      let call = try body.withUnsafeBytes { try cpu.rpc.start(LabMethod.munmap.path, $0) }
      cpu.rpc.flush()
      _ = try client.events(stream, 1)
      client.rpc.close()
      let answer: LabMunmapResponse = try cpu.next(call)
      #expect(answer.operation.status == .success)
      #expect(try cpu.failure(.translate, WalkTests.translate(bench, device)).reason == "UNKNOWN_DEVICE")
      let statistics = try bench.statistics()
      #expect(statistics.devices == 0 && statistics.verdicts.isEmpty)
    }
  }

  @Test("a deadline does not abort munmap: the same request_id and GetOperation give its outcome", arguments: [1, 2])
  func deadline(loops: Int) async throws {
    try await Lab.run(loops: loops) { lab in
      let cpu = try lab.client()
      let bench = try Bench(cpu)
      try bench.mmap()
      let (client, device, stream) = try Self.holder(lab, bench)
      let request = bench.munmap(requestID: "unmap-1")
      let failure = #expect(throws: RPCFailure.self) {
        _ = try cpu.call(.munmap, request, LabMunmapResponse.self, deadline: .milliseconds(50))
      }
      #expect(failure?.code == "deadline_exceeded")
      let key = LabGetOperationRequest.with {
        $0.machine = bench.machine
        $0.requestID = "unmap-1"
      }
      let running: LabGetOperationResponse = try cpu.call(.getOperation, key)
      #expect(!running.operation.done && !running.operation.operation.isEmpty)
      let wrong = try cpu.failure(
        .exit, "{\"machine\":\"\(bench.machine)\",\"addressSpace\":\"\(bench.space)\",\"requestId\":\"unmap-1\"}")
      #expect(wrong.reason == "REQUEST_ID_IN_USE")
      // The repeat waits for the operation that the first call started.
      let body = LabCodec.json(request)
      let again = try body.withUnsafeBytes { try cpu.rpc.start(LabMethod.munmap.path, $0) }
      cpu.rpc.flush()
      for _ in 0..<2 { _ = try bench.complete(device, try client.events(stream, 1)[0].invalidation.itag) }
      let answer: LabMunmapResponse = try cpu.next(again)
      #expect(answer.operation.operation == running.operation.operation && answer.operation.status == .success)
      let repeated: LabMunmapResponse = try cpu.call(.munmap, request)
      #expect(repeated == answer)
      let done: LabGetOperationResponse = try cpu.call(.getOperation, key)
      #expect(done.operation == answer.operation)
    }
  }

  @Test("a repeat of CreateMachine and of Translate gets the first answer")
  func repeats() async throws {
    try await Lab.run(loops: 2) { lab in
      let clients = [try lab.client(), try lab.client()]
      let create = LabCreateMachineRequest.with { $0.requestID = "one" }
      let machines = try clients.map {
        try $0.call(.createMachine, create, LabCreateMachineResponse.self).machine.machine
      }
      #expect(machines[0] == machines[1])
      let bench = try Bench(clients[0])
      let device = try bench.register(rid: 1)
      let translate = LabTranslateRequest.with {
        $0.machine = bench.machine
        $0.device = device
        $0.requestID = "t"
        $0.translate.address = "0x1000"
      }
      let answers = try clients.map { try $0.call(.translate, translate, LabTranslateResponse.self) }
      #expect(answers[0] == answers[1])
      #expect(try bench.statistics().counters.translations == 1)
      // The same id with another request is not a repeat: silence would hide that it never ran.
      var other = translate
      other.translate.address = "0x2000"
      let reply = try LabCodec.json(other).withUnsafeBytes { try clients[0].rpc.call(LabMethod.translate.path, $0) }
      #expect(reply.failure?.reason == "REQUEST_ID_IN_USE" && reply.failure?.fields == ["requestId"])
      let fork = LabForkRequest.with {
        $0.machine = bench.machine
        $0.addressSpace = bench.space
        $0.requestID = "f"
      }
      let first: LabForkResponse = try clients[0].call(.fork, fork)
      #expect(try clients[1].call(.fork, fork, LabForkResponse.self) == first)
      var another = fork
      another.startOnly = true
      let second = try LabCodec.json(another).withUnsafeBytes { try clients[1].rpc.call(LabMethod.fork.path, $0) }
      #expect(second.failure?.reason == "REQUEST_ID_IN_USE")
      let manual = LabCreateMachineRequest.with {
        $0.requestID = "one"
        $0.pacing = .manual
      }
      let third = try LabCodec.json(manual).withUnsafeBytes {
        try clients[1].rpc.call(LabMethod.createMachine.path, $0)
      }
      #expect(third.failure?.reason == "REQUEST_ID_IN_USE")
    }
  }

  @Test("when every place for an answer waits, a call with a request_id is refused, and served once one is free")
  func answersAllWait() async throws {
    var limits = ServiceLimits()
    limits.answersPerLoop = 3
    try await Lab.run(limits: limits) { lab in
      let cpu = try lab.client()
      let bench = try Bench(cpu)
      try bench.mmap()
      let (client, device, stream) = try Self.holder(lab, bench)
      let waiting = try (0..<3).map { index in
        try LabCodec.json(bench.munmap(requestID: "r\(index)")).withUnsafeBytes {
          try cpu.rpc.start(LabMethod.munmap.path, $0)
        }
      }
      cpu.rpc.flush()
      let itag = try client.events(stream, 1)[0].invalidation.itag
      let request = LabCreateAddressSpaceRequest.with {
        $0.machine = bench.machine
        $0.requestID = "more"
      }
      let reply = try LabCodec.json(request).withUnsafeBytes {
        try client.rpc.call(LabMethod.createAddressSpace.path, $0)
      }
      #expect(reply.failure?.reason == "TOO_MANY_WAITING_CALLS")
      // The others get their turn one after the other; each is told of twice at most.
      _ = try bench.complete(device, itag)
      var answered: [LabMunmapResponse] = []
      client.rpc.close()  // presence is lost, and nothing is owed any more
      for call in waiting { answered.append(try cpu.next(call)) }
      #expect(answered.allSatisfy { $0.operation.done })
      _ = try cpu.call(.createAddressSpace, request, LabCreateAddressSpaceResponse.self)
    }
  }

  @Test("a group index that overflow answers twice within one RequestPages gets both answers")
  func overflowTwice() async throws {
    let settings = LabMachineSettings.with {
      $0.costs.preset = .zero
      $0.pageRequestQueueCapacity = 4
    }
    try await Lab.run { lab in
      let client = try lab.client()
      let bench = try Bench(client, pacing: .manual, settings: settings)
      func device(_ rid: UInt32) throws -> String {
        try client.call(
          .registerDevice,
          LabRegisterDeviceRequest.with {
            $0.machine = bench.machine
            $0.rid = rid
            $0.priAllocation = 4
          }, LabRegisterDeviceResponse.self
        ).device
      }
      func request(_ device: String, _ indices: [UInt32], last: Bool) -> LabRequestPagesRequest {
        .with {
          $0.machine = bench.machine
          $0.device = device
          $0.pageRequests = indices.map { index in
            .with {
              $0.pasid = 1
              $0.address = "0x1000"
              $0.read = true
              $0.groupIndex = index
              $0.last = last
            }
          }
        }
      }
      // Four members fill the queue, and nothing drains it before an Advance.
      _ = try client.call(
        .requestPages, request(try device(1), [0, 1, 2, 3], last: false), LabRequestPagesResponse.self)
      let twice: LabRequestPagesResponse = try client.call(
        .requestPages, request(try device(2), [7, 7], last: true))
      #expect(twice.pageResponses.map(\.groupIndex) == [7, 7] && twice.pageResponses.allSatisfy { $0.code == .success })
      let mixed: LabRequestPagesResponse = try client.call(
        .requestPages, request(try device(3), [5, 6, 5], last: true))
      #expect(mixed.pageResponses.map(\.groupIndex) == [5, 6, 5])
    }
  }

  @Test("a trace misses nothing, and nothing traps, when calls are answered with what they caused", arguments: [1, 2])
  func tracedAnswers(loops: Int) async throws {
    try await Lab.run(loops: loops) { lab in
      let client = try lab.client()
      let bench = try Bench(client, pacing: .manual)
      let trace = try client.watch(.watchTrace, LabTraceServiceWatchRequest.with { $0.machine = bench.machine })
      _ = try client.next(trace, LabTraceServiceWatchResponse.self)
      let device = try bench.register(rid: 1)
      // The first is counted and dropped, because the group is closed; the others have no effect at once.
      func request(_ groups: [UInt32]) throws -> RPCStreamID {
        let message = LabRequestPagesRequest.with {
          $0.machine = bench.machine
          $0.device = device
          $0.pageRequests = groups.map { index in
            .with {
              $0.pasid = 1
              $0.address = "0x1000"
              $0.read = true
              $0.groupIndex = index
              $0.last = true
            }
          }
        }
        return try LabCodec.json(message).withUnsafeBytes { try client.rpc.start(LabMethod.requestPages.path, $0) }
      }
      let first = try request([3])
      let second = try request([3, 4, 3, 5, 6])
      let third = try request([3, 4])
      client.rpc.flush()
      let dropped: LabRequestPagesResponse = try client.next(third)
      #expect(dropped.ignored.map(\.reason) == [.groupIndexInUse, .groupIndexInUse])
      // A translation's answer, and in the same pass a call without any effect.
      let translate = Array(WalkTests.translate(bench, device).utf8)
      let nothing = Array(
        "{\"machine\":\"\(bench.machine)\",\"device\":\"\(device)\",\"complete\":{\"itagVector\":\"0x0\"}}".utf8)
      for _ in 0..<3 {
        _ = try translate.withUnsafeBytes { try client.rpc.start(LabMethod.translate.path, $0) }
        _ = try nothing.withUnsafeBytes { try client.rpc.start(LabMethod.completeInvalidations.path, $0) }
      }
      client.rpc.flush()
      _ = try client.call(
        .advance,
        LabAdvanceRequest.with {
          $0.machine = bench.machine
          $0.maxTurns = 100
        }, LabAdvanceResponse.self)
      let served: LabRequestPagesResponse = try client.next(second)
      #expect(served.pageResponses.count == 3 && served.ignored.count == 2)
      let alone: LabRequestPagesResponse = try client.next(first)
      #expect(alone.pageResponses.count == 1)
      var ignored = 0
      var translations = 0
      var responses = 0
      while ignored < 4 || translations < 3 || responses < 4 {
        let message: LabTraceServiceWatchResponse = try client.next(trace)
        for event in message.events {
          switch event.kind {
          case .ignored?: ignored += 1
          case .translation?: translations += 1
          case .pageResponse?: responses += 1
          default: break
          }
        }
      }
      #expect(ignored == 4 && translations == 3 && responses == 4)
    }
  }

  @Test("a device without a stream goes when its lease ends; calls renew it")
  func lease() async throws {
    try await Lab.run { lab in
      let client = try lab.client()
      let bench = try Bench(client)
      let trace = try client.watch(.watchTrace, LabTraceServiceWatchRequest.with { $0.machine = bench.machine })
      _ = try client.next(trace, LabTraceServiceWatchResponse.self)
      let device = try bench.register(rid: 1, lease: 300)
      let start = monotonicNow()
      for _ in 0..<20 { _ = try bench.translate(device, 0x1000) }
      var removed = false
      while !removed {
        let response: LabTraceServiceWatchResponse = try client.next(trace)
        removed = response.events.contains { $0.deviceChange.state == .removed && $0.device == device }
      }
      #expect(monotonicNow() - start >= 300_000_000)
      #expect(try bench.statistics().devices == 0)
    }
  }

  @Test("a stream without news gets heartbeats, which take no seq")
  func heartbeat() async throws {
    var limits = ServiceLimits()
    limits.heartbeat = 20_000_000
    try await Lab.run(loops: 2, limits: limits) { lab in
      let client = try lab.client()
      let bench = try Bench(client)
      let device = try bench.register(rid: 1)
      let stream = try client.watch(.watchDevice, bench.watchRequest(device))
      let trace = try client.watch(.watchTrace, LabTraceServiceWatchRequest.with { $0.machine = bench.machine })
      let opened: LabDeviceServiceWatchResponse = try client.next(stream)
      for _ in 0..<2 {
        let beat: LabDeviceServiceWatchResponse = try client.next(stream)
        guard case .heartbeat? = beat.events.first?.kind else {
          Issue.record("not a heartbeat: \(beat)")
          return
        }
        #expect(beat.seq == opened.seq && beat.events.count == 1)
      }
      _ = try client.next(trace, LabTraceServiceWatchResponse.self)
      let beat: LabTraceServiceWatchResponse = try client.next(trace)
      #expect(beat.events.count == 1 && beat.seq == 0)
    }
  }

  @Test("events before the first stream wait for it, the newest of them; a resumed stream starts after its seq")
  func backlog() async throws {
    var limits = ServiceLimits()
    limits.eventsBeforeStream = 4
    try await Lab.run(limits: limits) { lab in
      let client = try lab.client()
      let bench = try Bench(client)
      try bench.mmap()
      /// A device without a stream that was told of this many invalidations and completed each.
      func device(_ rid: UInt32, invalidations: Int) throws -> String {
        let device = try bench.register(rid: rid)
        try bench.bind(device)
        for _ in 0..<invalidations {
          _ = try client.call(.munmap, bench.munmap(0x1000, startOnly: true), LabMunmapResponse.self)
          #expect(try bench.complete(device, 0).ignored.isEmpty)
        }
        return device
      }
      /// The orders of the invalidations in a stream's first response, and the response.
      func open(_ device: String, after seq: UInt64) throws -> ([UInt64], LabDeviceServiceWatchResponse) {
        let stream = try client.watch(
          .watchDevice,
          LabDeviceServiceWatchRequest.with {
            $0.machine = bench.machine
            $0.device = device
            $0.afterSeq = seq
          })
        let first: LabDeviceServiceWatchResponse = try client.next(stream)
        client.rpc.cancel(stream)
        return (first.events.map(\.invalidation.order), first)
      }
      func remove(_ device: String) throws {
        // The cancelled stream takes the device along, sooner or later than this call.
        let json = "{\"machine\":\"\(bench.machine)\",\"device\":\"\(device)\"}"
        _ = try client.rpc.call(LabMethod.removeDevice.path, json: json)
      }

      // As many as are kept: all of them are there.
      let few = try device(1, invalidations: 4)
      let (all, whole) = try open(few, after: 0)
      #expect(all == [1, 2, 3, 4] && whole.seq == 4 && !whole.historyCut)
      try remove(few)
      // More: the newest are there, and the stream says that others were lost.
      let many = try device(2, invalidations: 11)
      let (newest, cut) = try open(many, after: 0)
      #expect(newest == [8, 9, 10, 11] && cut.seq == 11 && cut.historyCut)
      try remove(many)
      // A client that had some of them already gets the rest; the first is not lost then, but known.
      let resumed = try device(3, invalidations: 11)
      let (rest, known) = try open(resumed, after: 9)
      #expect(rest == [10, 11] && known.seq == 11 && !known.historyCut)
      try remove(resumed)
      let lost = try device(4, invalidations: 11)
      let (kept, gap) = try open(lost, after: 3)
      #expect(kept == [8, 9, 10, 11] && gap.historyCut, "4 to 7 were lost")
      try remove(lost)
      let caught = try device(5, invalidations: 3)
      let (none, last) = try open(caught, after: 3)
      #expect(none == [] && last.seq == 3 && !last.historyCut)
      try remove(caught)

      let ahead = try client.watch(
        .watchDevice,
        LabDeviceServiceWatchRequest.with {
          $0.machine = bench.machine
          $0.device = try! bench.register(rid: 6)
          $0.afterSeq = 5
        })
      #expect(try client.end(ahead)?.reason == "VALUE_OUT_OF_RANGE")
    }
  }

  @Test("a machine that is deleted ends its streams and the calls that wait")
  func deleted() async throws {
    try await Lab.run(loops: 2) { lab in
      let cpu = try lab.client()
      let bench = try Bench(cpu)
      try bench.mmap()
      let (client, _, stream) = try Self.holder(lab, bench)
      let trace = try client.watch(.watchTrace, LabTraceServiceWatchRequest.with { $0.machine = bench.machine })
      _ = try client.next(trace, LabTraceServiceWatchResponse.self)
      let body = LabCodec.json(bench.munmap())
      let call = try body.withUnsafeBytes { try cpu.rpc.start(LabMethod.munmap.path, $0) }
      cpu.rpc.flush()
      _ = try client.events(stream, 1)
      _ = try client.call(
        .deleteMachine, LabDeleteMachineRequest.with { $0.machine = bench.machine }, LabDeleteMachineResponse.self)
      #expect(try client.end(stream)?.reason == "MACHINE_DELETED")
      #expect(try client.end(trace)?.reason == "MACHINE_DELETED")
      #expect(try cpu.end(call)?.reason == "MACHINE_DELETED")
    }
  }
}
