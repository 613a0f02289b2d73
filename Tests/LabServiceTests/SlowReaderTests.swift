// SPDX-License-Identifier: Apache-2.0
//
// Goal: a client that does not read its stream is cut when a bounded number of bytes waits for it; its device is fenced
// and removed, what waited for that device goes on, and everybody else is served meanwhile. Method: clients whose streams
// have a small window and which never poll; the memory of the real process is looked at by Tests/hostile.
import LabProtocol
import RPCClient
import RPCServer
import Testing

@testable import LabService

@Suite struct SlowReaderTests {
  private var limits: RPCLimits {
    var limits = RPCLimits()
    limits.streamOutputBytes = 16 << 10
    return limits
  }

  /// Small responses, so that no reader that keeps up passes the limit.
  private var service: ServiceLimits {
    var limits = ServiceLimits()
    limits.eventsPerResponse = 20
    return limits
  }

  /// What the machine's trace says of a device until it is removed.
  private func changes(_ trace: RPCStreamID, _ client: LabClient, of device: String) throws -> [LabDeviceState] {
    var states: [LabDeviceState] = []
    while states.last != .removed {
      let response: LabTraceServiceWatchResponse = try client.next(trace)
      for event in response.events where event.device == device {
        if case .deviceChange(let change)? = event.kind { states.append(change.state) }
      }
    }
    return states
  }

  private func trace(_ client: LabClient, _ bench: Bench) throws -> RPCStreamID {
    let trace = try client.watch(.watchTrace, LabTraceServiceWatchRequest.with { $0.machine = bench.machine })
    _ = try client.next(trace, LabTraceServiceWatchResponse.self)
    return trace
  }

  @Test("a device that does not read its Attach is fenced, removed and cut; a munmap that waits for it returns",
    arguments: [1, 2])
  func attach(loops: Int) async throws {
    try await Lab.run(loops: loops, limits: service, rpc: limits) { lab in
      let cpu = try lab.client()
      let bench = try Bench(cpu)
      try bench.mmap()
      let trace = try trace(cpu, bench)
      let slow = try lab.client(streamWindow: 20_000)
      let device = try bench.register(rid: 1)
      try bench.bind(device)
      _ = try bench.requestPage(device)
      #expect(try bench.translate(device).read)
      let stream = try slow.open(.attach)
      slow.send(stream, bench.hello(device))
      _ = try slow.next(stream, LabAttachResponse.self)
      let body = LabCodec.json(bench.munmap())
      let munmap = try body.withUnsafeBytes { try cpu.rpc.start(LabMethod.munmap.path, $0) }
      cpu.rpc.flush()
      _ = try slow.events(stream, 1)
      // It never completes: from here on it sends, and does not read.
      let batch = LabAttachRequest.with {
        $0.messages = (0..<20).map { tag in
          .with {
            $0.translate = .with {
              $0.tag = UInt32(tag)
              $0.pasid = 1
              $0.address = "0x1000"
            }
          }
        }
      }
      for _ in 0..<60 { slow.send(stream, batch) }
      slow.rpc.flush()
      #expect(try changes(trace, cpu, of: device) == [.fencedRemoved, .removed])
      let answer: LabMunmapResponse = try cpu.next(munmap)
      #expect(answer.operation.status == .success)
      #expect(try cpu.failure(.translate, WalkTests.translate(bench, device)).reason == "UNKNOWN_DEVICE")
      let failure = try #require(try slow.end(stream))
      #expect(failure.code == "resource_exhausted", "\(failure)")
      // The same client, on the same connection, registers anew and is served.
      let anew = try Bench(slow).register(rid: 1)
      #expect(!anew.isEmpty)
    }
  }

  @Test("a device that does not read its Watch is fenced, removed and cut", arguments: [1, 2])
  func watch(loops: Int) async throws {
    try await Lab.run(loops: loops, rpc: limits) { lab in
      let cpu = try lab.client()
      let bench = try Bench(cpu)
      try bench.mmap()
      let trace = try trace(cpu, bench)
      let slow = try lab.client(streamWindow: 2000)
      let device = try bench.register(rid: 1)
      try bench.bind(device)
      let stream = try slow.watch(.watchDevice, bench.watchRequest(device))
      _ = try slow.next(stream, LabDeviceServiceWatchResponse.self)
      // Somebody else completes for it, so that the events go on.
      var rounds = 0
      while true {
        let munmap = bench.munmap(0x1000, startOnly: true)
        _ = try cpu.call(.munmap, munmap, LabMunmapResponse.self)
        let json = "{\"machine\":\"\(bench.machine)\",\"device\":\"\(device)\",\"complete\":{\"itagVector\":\"0x1\"}}"
        let reply = try cpu.rpc.call(LabMethod.completeInvalidations.path, json: json)
        rounds += 1
        if let failure = reply.failure {
          #expect(failure.reason == "UNKNOWN_DEVICE")
          break
        }
        try #require(rounds < 2000, "a slow reader was never cut")
      }
      // An event has some 120 bytes; 18 kB fit into the window and the limit.
      #expect(rounds > 50 && rounds < 500, "\(rounds) rounds")
      #expect(try changes(trace, cpu, of: device) == [.fencedRemoved, .removed])
      #expect(try slow.end(stream)?.code == "resource_exhausted")
    }
  }

  @Test("a trace stream that is not read is cut, and its place is free again", arguments: [1, 2])
  func trace(loops: Int) async throws {
    var service = service
    service.tracesPerMachine = 1
    try await Lab.run(loops: loops, limits: service, rpc: limits) { lab in
      let cpu = try lab.client()
      let bench = try Bench(cpu)
      let device = try bench.register(rid: 1)
      let slow = try lab.client(streamWindow: 2000)
      let stream = try slow.watch(.watchTrace, LabTraceServiceWatchRequest.with { $0.machine = bench.machine })
      _ = try slow.next(stream, LabTraceServiceWatchResponse.self)
      let full = try cpu.watch(.watchTrace, LabTraceServiceWatchRequest.with { $0.machine = bench.machine })
      #expect(try cpu.end(full)?.reason == "LIMIT_REACHED")
      for _ in 0..<300 { _ = try bench.translate(device, 0x1000) }
      #expect(try slow.end(stream)?.code == "resource_exhausted")
      _ = try self.trace(cpu, bench)
      // Nothing that the slow reader missed has held anybody back.
      #expect(try bench.statistics().counters.translations == 300)
    }
  }

  @Test("a trace that begins with a history above the output limit reaches a client that reads it", arguments: [1, 2])
  func longHistory(loops: Int) async throws {
    try await Lab.run(loops: loops, limits: service, rpc: limits) { lab in
      let client = try lab.client()
      let bench = try Bench(client)
      let device = try bench.register(rid: 1)
      _ = try trace(try lab.client(), bench)
      for _ in 0..<300 { _ = try bench.translate(device, 0x1000) }
      let whole = try client.watch(
        .watchTrace,
        LabTraceServiceWatchRequest.with {
          $0.machine = bench.machine
          $0.afterSeq = 0
        })
      var seqs: [UInt64] = []
      var events = 0
      while seqs.last != 300 {
        let response: LabTraceServiceWatchResponse = try client.next(whole)
        seqs.append(response.seq)
        events += response.events.count
        #expect(!response.historyCut)
      }
      #expect(events == 300 && seqs == Array(stride(from: 20, through: 300, by: 20)))
    }
  }
}
