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
      func device(_ rid: UInt32, late: Int) throws -> String {
        let device = try bench.register(rid: rid)
        // A completion of an idle tag behind a DMA is judged when that has landed, and goes to the stream.
        for _ in 0..<late {
          let body = LabCodec.json(
            LabDmaRequest.with {
              $0.machine = bench.machine
              $0.device = device
              $0.dma.address = "0x1000"
            })
          _ = try body.withUnsafeBytes { try client.rpc.call(LabMethod.dma.path, $0) }
        }
        return device
      }
      let quiet = try device(1, late: 3)
      let stream = try client.watch(
        .watchDevice,
        LabDeviceServiceWatchRequest.with {
          $0.machine = bench.machine
          $0.device = quiet
        })
      let opened: LabDeviceServiceWatchResponse = try client.next(stream)
      #expect(opened.events.isEmpty && !opened.historyCut)
      let second = try bench.register(rid: 2)
      let ahead = try client.watch(
        .watchDevice,
        LabDeviceServiceWatchRequest.with {
          $0.machine = bench.machine
          $0.device = second
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
