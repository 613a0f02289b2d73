// SPDX-License-Identifier: Apache-2.0
//
// Goal: every method does what the contract says, over real sockets, whichever loop a connection is on. Method: one walk
// through the lab, with one and with two event loops, connections and machine on any of them.
import Foundation
import IOMMUModel
import LabProtocol
import LabService
import RPCClient
import SwiftProtobuf
import Testing

@Suite struct WalkTests {
  @Test("a device faults a page in, writes it, and must complete before munmap returns", arguments: [1, 2])
  func walk(loops: Int) async throws {
    try await Lab.run(loops: loops) { lab in
      // Connections spread over the loops; the machine is on one of them.
      let (cpu, device) = (try lab.client(), try lab.client())
      let bench = try Bench(cpu)
      try bench.mmap()
      let id = try bench.register(rid: 0x100)
      try bench.bind(id)

      let absent = try bench.translate(id)
      #expect(absent.status == .success && !absent.read && !absent.write && absent.tag == 7)
      let pages = try bench.requestPage(id)
      #expect(pages.pageResponses.map(\.code) == [.success] && pages.pageResponses[0].memberCount == 1)
      let present = try bench.translate(id)
      #expect(present.read && present.write && present.order > absent.order && present.sizeLog2 == 12)
      let written = try bench.dma(id, present.physicalAddress, write: 0xfeed)
      #expect(written.status == .success && written.tag == 9 && written.write)
      #expect(try bench.load() == "0xfeed")
      #expect(try bench.dma(id, present.physicalAddress).value == "0xfeed")

      let stream = try device.watch(.watchDevice, bench.watchRequest(id))
      let opened: LabDeviceServiceWatchResponse = try device.next(stream)
      #expect(opened.epoch > 0 && opened.events.isEmpty && !opened.historyCut)
      let munmap = LabCodec.json(bench.munmap())
      let call = try munmap.withUnsafeBytes { try cpu.rpc.start(LabMethod.munmap.path, $0) }
      cpu.note(.munmap)
      cpu.rpc.flush()
      // The flush site and the end both invalidate; each completion lets the operation go on.
      let deviceBench = bench
      for _ in 0..<2 {
        let event = try device.events(stream, 1)[0]
        #expect(event.invalidation.pasid == 1 && event.invalidation.address == Hex.string(Bench.base))
        #expect(try deviceBench.statistics().runningOperations == 1)
        #expect(try deviceBench.complete(id, event.invalidation.itag).ignored.isEmpty)
      }
      let answer: LabMunmapResponse = try cpu.next(call)
      #expect(answer.operation.done && answer.operation.status == .success)
      let late = try bench.complete(id, 0)
      #expect(late.ignored.map(\.reason) == [.unexpectedCompletion])

      let statistics = try bench.statistics()
      #expect(statistics.counters.invalidations == 2 && statistics.counters.completions == 2)
      #expect(statistics.counters.neededFaults == 1 && statistics.counters.unexpectedCompletions == 1)
      #expect(statistics.invalidationCompletion.count == 2 && statistics.pageRequestService.count == 1)
      #expect(statistics.verdicts.isEmpty && statistics.devices == 1 && statistics.runningOperations == 0)
    }
  }

  @Test("devices of one machine on all loops hear of an invalidation and complete it by Attach", arguments: [1, 2])
  func attach(loops: Int) async throws {
    try await Lab.run(loops: loops) { lab in
      let cpu = try lab.client()
      let bench = try Bench(cpu)
      try bench.mmap(pages: 8)
      let devices = try (0..<4).map { index in
        let client = try lab.client()
        let id = try bench.register(rid: UInt32(0x100 + index))
        try bench.bind(id)
        let stream = try client.open(.attach)
        client.send(
          stream,
          LabAttachRequest.with {
            $0.hello = bench.hello(id).hello
            $0.messages = [
              .with {
                $0.translate = .with {
                  $0.tag = 1; $0.pasid = 1; $0.address = Hex.string(Bench.base)
                }
              },
              .with {
                $0.pageRequest = .with {
                  $0.pasid = 1
                  $0.address = Hex.string(Bench.base)
                  $0.read = true
                  $0.write = true
                  $0.last = true
                }
              },
              // A caller's error changes nothing, and the stream goes on.
              .with {
                $0.translate = .with {
                  $0.tag = 2; $0.pasid = 1; $0.address = "0x1001"
                }
              },
            ]
          })
        return (client, id, stream)
      }
      for (client, _, stream) in devices {
        let opened: LabAttachResponse = try client.next(stream)
        #expect(opened.events.isEmpty && opened.seq == 0)
        let events = try client.events(stream, 3)
        // The first one faults the page in for all.
        #expect(events[0].translation.tag == 1)
        #expect(
          events[1].refused.message == 3 && events[1].refused.reason == "MISALIGNED" && !events[1].refused.text.isEmpty)
        #expect(events[2].pageResponse.code == .success)
        client.send(
          stream,
          LabAttachRequest.with {
            $0.messages = [
              .with {
                $0.translate = .with {
                  $0.tag = 3; $0.pasid = 1; $0.address = Hex.string(Bench.base)
                }
              }
            ]
          })
        #expect(try client.events(stream, 1)[0].translation.write)
      }
      let munmap = LabCodec.json(bench.munmap(pages: 8))
      let call = try munmap.withUnsafeBytes { try cpu.rpc.start(LabMethod.munmap.path, $0) }
      cpu.rpc.flush()
      for _ in 0..<2 {
        for (client, _, stream) in devices {
          let invalidation = try client.events(stream, 1)[0].invalidation
          #expect(invalidation.sizeLog2 == 15)
          client.send(
            stream,
            LabAttachRequest.with {
              $0.messages = [.with { $0.complete.itagVector = Hex.string(1 << UInt64(invalidation.itag)) }]
            })
          client.rpc.flush()
        }
      }
      let answer: LabMunmapResponse = try cpu.next(call)
      #expect(answer.operation.status == .success)
      // Good-bye: what is owed is sent, the stream ends well, and the device is gone.
      let (client, id, stream) = devices[3]
      client.rpc.halfClose(stream)
      let last = try client.events(stream, 2)
      #expect(last.map(\.device.state) == [.fencedRemoved, .removed])
      #expect(try client.end(stream) == nil)
      #expect(try cpu.failure(.translate, Self.translate(bench, id)).reason == "UNKNOWN_DEVICE")
    }
  }

  static func translate(_ bench: Bench, _ device: String) -> String {
    "{\"machine\":\"\(bench.machine)\",\"device\":\"\(device)\",\"translate\":{\"address\":\"0x1000\"}}"
  }

  @Test("every other method answers as the contract says", arguments: [1, 2])
  func others(loops: Int) async throws {
    try await Lab.run(loops: loops) { lab in
      let client = try lab.client()
      let bench = try Bench(client)
      try bench.mmap()
      let (machine, space) = (bench.machine, bench.space)
      func words<R: Message>(_ method: LabMethod, _ json: String, _: R.Type) throws -> R {
        client.note(method)
        let body = json.replacingOccurrences(of: "\"M\"", with: "\"\(machine)\"")
          .replacingOccurrences(of: "\"S\"", with: "\"\(space)\"")
        let reply = try client.rpc.call(method.path, json: body)
        #expect(reply.isSuccess, "\(method): \(reply.text)")
        return try reply.body.withUnsafeBytes { try LabCodec.decode(R.self, json: $0) }
      }
      let at = "\"machine\":\"M\",\"addressSpace\":\"S\",\"address\":\"0x7f0000000000\""
      #expect(try words(.store, "{\(at),\"value\":\"0xAB\"}", LabStoreResponse.self).operation.status == .success)
      #expect(try words(.touch, "{\(at),\"byteCount\":\"0x4000\"}", LabTouchResponse.self).operation.kind == .cpuAccess)
      #expect(try words(.load, "{\(at),\"cpu\":1}", LabLoadResponse.self).operation.value == "0xab")
      let child = try words(.fork, "{\"machine\":\"M\",\"address_space\":\"S\"}", LabForkResponse.self).operation
      #expect(child.addressSpace.hasPrefix("as-") && child.addressSpace != space)
      #expect(
        try words(.mprotect, "{\(at),\"byteCount\":\"0x1000\",\"read\":true}", LabMprotectResponse.self).operation.done)
      #expect(
        try words(.store, "{\(at),\"value\":\"0x1\"}", LabStoreResponse.self).operation.status == .accessDenied)
      let dropped = try words(.madviseDontNeed, "{\(at),\"byteCount\":\"0x1000\"}", LabMadviseDontNeedResponse.self)
      #expect(dropped.operation.kind == .madviseDontNeed)
      #expect(try words(.load, "{\(at)}", LabLoadResponse.self).operation.value == "0x0")
      let seen = try words(
        .getOperation, "{\"machine\":\"M\",\"operation\":\"\(child.operation)\"}", LabGetOperationResponse.self)
      #expect(seen.operation == child)
      #expect(
        try words(.exit, "{\"machine\":\"M\",\"addressSpace\":\"\(child.addressSpace)\"}", LabExitResponse.self)
          .operation.done)

      let domain = try words(
        .createDomain, "{\"machine\":\"M\",\"kind\":\"DOMAIN_KIND_PAGING\"}", LabCreateDomainResponse.self
      )
      .domain
      let range = "\"machine\":\"M\",\"domain\":\"\(domain)\",\"address\":\"0x10000\",\"byteCount\":\"0x2000\""
      _ = try words(.map, "{\(range),\"read\":true,\"write\":true}", LabMapResponse.self)
      let device = try bench.register(rid: 7)
      _ = try words(
        .bindPasid, "{\"machine\":\"M\",\"device\":\"\(device)\",\"pasid\":5,\"domain\":\"\(domain)\"}",
        LabBindPasidResponse.self)
      let translation = try bench.translate(device, 0x10000, pasid: 5)
      #expect(translation.read && translation.write)
      let untranslated = try words(
        .dma,
        "{\"machine\":\"M\",\"device\":\"\(device)\",\"dma\":{\"pasid\":5,\"address\":\"0x10008\",\"write\":true,\"value\":\"0x5\"}}",
        LabDmaResponse.self)
      #expect(untranslated.dma.status == .success)
      // The device answers what the unmap pushes before it returns.
      let unmap = try words(.unmap, "{\(range),\"startOnly\":true}", LabUnmapResponse.self).operation
      #expect(!unmap.done)
      _ = try bench.complete(device, 0)
      #expect(
        try words(
          .getOperation, "{\"machine\":\"M\",\"operation\":\"\(unmap.operation)\"}", LabGetOperationResponse.self
        )
        .operation.status == .success)
      let unbind = try words(
        .unbindPasid, "{\"machine\":\"M\",\"device\":\"\(device)\",\"pasid\":5,\"startOnly\":true}",
        LabUnbindPasidResponse.self)
      for itag in 0..<32 { _ = try bench.complete(device, UInt32(itag)) }
      #expect(
        try words(
          .getOperation, "{\"machine\":\"M\",\"operation\":\"\(unbind.operation.operation)\"}",
          LabGetOperationResponse.self
        ).operation.done)
      _ = try words(.destroyDomain, "{\"machine\":\"M\",\"domain\":\"\(domain)\"}", LabDestroyDomainResponse.self)

      // A failure response switches PRI off; it can be enabled anew.
      let lonely = try bench.register(rid: 8)
      let refused = try bench.requestPage(lonely, pasid: 9)
      #expect(refused.pageResponses.map(\.code).allSatisfy { $0 != .success })
      if refused.pageResponses[0].code == .responseFailure {
        _ = try words(
          .enablePri, "{\"machine\":\"M\",\"device\":\"\(lonely)\",\"allocation\":4}", LabEnablePriResponse.self)
      } else {
        #expect(
          try client.failure(.enablePri, "{\"machine\":\"\(machine)\",\"device\":\"\(lonely)\",\"allocation\":4}")
            .reason
            == "PRI_ENABLED")
        client.note(.enablePri)
      }
      let eager = try bench.register(rid: 9)
      let early = try client.failure(
        .giveUp,
        "{\"machine\":\"\(machine)\",\"device\":\"\(eager)\",\"giveUp\":{\"address\":\"0x1000\",\"read\":true}}")
      #expect(early.reason == "RETRIES_LEFT")
      client.note(.giveUp)
      _ = try words(.removeDevice, "{\"machine\":\"M\",\"device\":\"\(eager)\"}", LabRemoveDeviceResponse.self)

      let second = try Bench(client)
      let list: LabListMachinesResponse = try client.call(
        .listMachines, LabListMachinesRequest.with { $0.pageSize = 1 })
      #expect(list.machines.map(\.machine) == [machine] && !list.nextPageToken.isEmpty)
      let rest: LabListMachinesResponse = try client.call(
        .listMachines, LabListMachinesRequest.with { $0.pageToken = list.nextPageToken })
      #expect(rest.machines.map(\.machine) == [second.machine] && rest.nextPageToken.isEmpty)
      let shown: LabGetMachineResponse = try client.call(
        .getMachine, LabGetMachineRequest.with { $0.machine = machine })
      #expect(shown.machine.settings.frameCount == 65_536 && shown.machine.pacing == .wall)
      #expect(shown.machine.settings.costs.faultService.buckets.map(\.highNanoseconds) == [0])
      let delete = LabDeleteMachineRequest.with {
        $0.machine = second.machine
        $0.requestID = "bye"
      }
      _ = try client.call(.deleteMachine, delete, LabDeleteMachineResponse.self)
      _ = try client.call(.deleteMachine, delete, LabDeleteMachineResponse.self)
      #expect(try client.failure(.getMachine, "{\"machine\":\"\(second.machine)\"}").reason == "UNKNOWN_MACHINE")
    }
  }

  @Test("a stale access of strategy none is a verdict with an explanation, and the recorded log gives the same state")
  func recorded() async throws {
    try await Lab.run(loops: 2) { lab in
      let client = try lab.client()
      let bench = try Bench(client, record: true, settings: .with { $0.seed = 5 })
      try bench.mmap()
      let device = try bench.register(rid: 1)
      try bench.bind(device, strategy: "none")
      _ = try bench.requestPage(device)
      let translation = try bench.translate(device)
      _ = try client.call(.munmap, bench.munmap(), LabMunmapResponse.self)
      #expect(try bench.dma(device, translation.physicalAddress, write: 1).status == .success)
      let verdicts: LabListVerdictsResponse = try client.call(
        .listVerdicts, LabListVerdictsRequest.with { $0.machine = bench.machine })
      let verdict = try #require(verdicts.verdicts.first)
      #expect(verdict.kind == .staleDma && verdict.via == .atc && verdict.device == device && verdict.write)
      #expect(verdict.explanation.contains(device) && !verdict.chain.isEmpty)
      #expect(try bench.statistics().verdicts.map(\.kind) == [.staleDma])

      let told: LabExplainVerdictResponse = try client.call(
        .explainVerdict,
        LabExplainVerdictRequest.with {
          $0.machine = bench.machine
          $0.seq = verdict.seq
          $0.format = .mermaid
        })
      #expect(told.explanation.kind == .staleDma && told.explanation.sentence.hasPrefix("device \(device)"))
      #expect(told.explanation.lanes.map(\.role) == [.operation, .iommu, .device])
      #expect(told.explanation.events.last?.kind == .verdict)
      #expect(told.explanation.events.last?.atNanoseconds == verdict.atNanoseconds)
      #expect(told.explanation.events.contains { $0.kind == .missing && $0.text.hasSuffix("no flush") })
      #expect(told.rendering.hasPrefix("sequenceDiagram\n"))

      // Whatever is due has run when the hash stands still.
      let hash = try bench.stateHash()
      let stream = try client.watch(.getLog, LabGetLogRequest.with { $0.machine = bench.machine })
      let log = try client.all(stream, LabGetLogResponse.self).flatMap { Array($0.chunk) }
      var reader = try LogReader(log)
      var machine = IOMMUModel.Machine(settings: reader.settings)
      var effects = Effects()
      var staleAccesses = 0
      while let entry = try reader.next() {
        switch entry.turn {
        case .command(let command, let reply):
          #expect(try machine.apply(command, at: entry.time, into: &effects) == reply)
        case .pending(let sequence): #expect(machine.apply(pending: sequence, at: entry.time, into: &effects))
        }
        staleAccesses += effects.verdicts.count { $0.kind == .staleDMA }
        effects.removeAll()
      }
      #expect(Hex.string(machine.stateHash()) == hash)
      #expect(staleAccesses == 1)
      let plain = try Bench(client)
      let refused = try client.watch(.getLog, LabGetLogRequest.with { $0.machine = plain.machine })
      #expect(try client.end(refused)?.reason == "NOT_RECORDING")
    }
  }

  @Test("a MANUAL machine moves by Advance alone, to exactly the due times")
  func manual() async throws {
    try await Lab.run { lab in
      let client = try lab.client()
      let bench = try Bench(client, pacing: .manual, settings: LabMachineSettings())
      func advance(_ change: (inout LabAdvanceRequest) -> Void) throws -> LabAdvanceResponse {
        var request = LabAdvanceRequest.with { $0.machine = bench.machine }
        change(&request)
        return try client.call(.advance, request)
      }
      let start: LabMmapResponse = try client.call(
        .mmap,
        LabMmapRequest.with {
          $0.machine = bench.machine
          $0.addressSpace = bench.space
          $0.address = "0x10000"
          $0.byteCount = "0x1000"
          $0.read = true
          $0.startOnly = true
        })
      let hash = try bench.stateHash()
      #expect(try bench.stateHash() == hash)
      let touch: LabTouchResponse = try client.call(
        .touch,
        LabTouchRequest.with {
          $0.machine = bench.machine
          $0.addressSpace = bench.space
          $0.address = "0x10000"
          $0.byteCount = "0x1000"
          $0.startOnly = true
        })
      #expect(!touch.operation.done && !start.operation.operation.isEmpty)
      let none = try advance { $0.maxTurns = 0 }
      #expect(none.turns == 0 && none.hasNextDueNanoseconds && none.timeNanoseconds == 0)
      let one = try advance { $0.maxTurns = 1 }
      #expect(one.turns == 1 && one.timeNanoseconds == none.nextDueNanoseconds)
      let all = try advance { $0.untilNanoseconds = 1_000_000 }
      #expect(all.timeNanoseconds == 1_000_000 && !all.hasNextDueNanoseconds)
      let done: LabGetOperationResponse = try client.call(
        .getOperation,
        LabGetOperationRequest.with {
          $0.machine = bench.machine
          $0.operation = touch.operation.operation
        })
      #expect(done.operation.status == .success)
      let back = try client.failure(.advance, "{\"machine\":\"\(bench.machine)\",\"untilNanoseconds\":\"999999\"}")
      #expect(back.reason == "TIME_IN_THE_PAST" && back.code == "invalid_argument")
    }
  }

  @Test("a trace stream shows the steps of an operation, is resumed, and says when history was cut")
  func trace() async throws {
    var limits = ServiceLimits()
    limits.traceHistory = 64
    try await Lab.run(loops: 2, limits: limits) { lab in
      let (client, watcher) = (try lab.client(), try lab.client())
      let bench = try Bench(client)
      let request = LabTraceServiceWatchRequest.with { $0.machine = bench.machine }
      let stream = try watcher.watch(.watchTrace, request)
      let opened: LabTraceServiceWatchResponse = try watcher.next(stream)
      #expect(opened.events.isEmpty && opened.seq == 0 && opened.epoch == 1)
      try bench.mmap()
      _ = try bench.load()
      _ = try client.call(.munmap, bench.munmap(), LabMunmapResponse.self)
      var events: [LabTraceEvent] = []
      var seq: UInt64 = 0
      while !events.contains(where: { $0.operation.kind == .munmap && $0.operation.done }) {
        let response: LabTraceServiceWatchResponse = try watcher.next(stream)
        events += response.events
        seq = response.seq
      }
      #expect(seq == UInt64(events.count))
      let letters = events.filter { $0.step.kind == .munmap }.map(\.step.letter)
      let start = try #require(letters.firstIndex(of: .start))
      let entries = try #require(letters.firstIndex(of: .entries))
      let freed = try #require(letters.firstIndex(of: .framesFreed))
      #expect(start < entries && entries < freed)
      // Resumed in the middle: the same events, numbered alike.
      let again = try watcher.watch(
        .watchTrace,
        LabTraceServiceWatchRequest.with {
          $0.machine = bench.machine
          $0.afterSeq = 3
        })
      let resumed: LabTraceServiceWatchResponse = try watcher.next(again)
      #expect(!resumed.historyCut && resumed.events == Array(events[3...]) && resumed.seq == seq)
      for _ in 0..<100 { _ = try bench.load() }
      let cut = try watcher.watch(
        .watchTrace,
        LabTraceServiceWatchRequest.with {
          $0.machine = bench.machine
          $0.afterSeq = 0
        })
      let late: LabTraceServiceWatchResponse = try watcher.next(cut)
      #expect(late.historyCut && late.events.count == 64 && late.seq > 64)
    }
  }
}
