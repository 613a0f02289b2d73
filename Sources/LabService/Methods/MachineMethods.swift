// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// MachineService.
extension Shard {
  // MARK: - Creation

  func createMachine(_ caller: Caller, _ bytes: UnsafeRawBufferPointer) {
    var caller = caller
    do throws(CallError) {
      let request = try decode(LabCreateMachineRequest.self, caller.codec, bytes)
      let requestID = try checked(requestID: request.requestID)
      let settings = try Settings(request.settings)
      if !isForwarded {
        // A repeat must meet the loop of the first call.
        let index = requestID.isEmpty ? fleet.nextLoop() : Int(stableHash(requestID) % UInt64(peers.count))
        if index != loop.index {
          forward(to: index, .request, caller.call, caller.method, caller.codec, bytes)
          return
        }
      }
      caller.requestID = requestID
      if !requestID.isEmpty { caller.digest = LabCodec.binary(request).hashValue }
      if isRepeat(caller) { return }
      guard let (id, order) = fleet.add(loop: loop.index, tenant: caller.tenant, limit: limits.machines) else {
        throw .service(.limitReached, "the service holds \(limits.machines) machines, its limit; delete one")
      }
      let pacing: MachineHost.Pacing =
        switch request.pacing {
        case .manual: .manual
        default: .wall(origin: now)
        }
      let host = MachineHost(
        id: id, order: order, tenant: caller.tenant, settings: settings, pacing: pacing, records: request.record,
        shard: self)
      add(host)
      answer(caller, LabCreateMachineResponse.with { $0.machine = describe(host) })
    } catch {
      fail(caller, error)
    }
  }

  func deleteMachine(
    _ host: MachineHost, _ request: LabDeleteMachineRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    host.dispatch()
    let gone = CallError.service(.machineDeleted, "the machine was deleted", fields: ["machine"])
    for case let port? in host.ports {
      for waiting in port.abandonCalls() { fail(waiting, gone) }
      if let stream = port.stream { endStream(stream.call, gone) }
      port.stream = nil
    }
    for waiting in host.operations.abandon() { fail(waiting, gone) }
    for watcher in host.trace.watchers { endStream(watcher.call, gone) }
    host.trace.watchers = []
    for case let port? in host.subscribers {
      if let stream = port.stream { endStream(stream.call, gone) }
      port.stream = nil
    }
    host.ports = []
    host.touchedPorts = []
    host.subscribers = []
    host.touchedSubscribers = []
    remove(host)
    fleet.remove(host.id)
    return LabDeleteMachineResponse()
  }

  // MARK: - Reading

  func getMachine(
    _ host: MachineHost, _ request: LabGetMachineRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    LabGetMachineResponse.with { $0.machine = describe(host) }
  }

  func listMachines(_ caller: Caller, _ bytes: UnsafeRawBufferPointer) {
    do throws(CallError) {
      let request = try decode(LabListMachinesRequest.self, caller.codec, bytes)
      let count = try pageSize(request.pageSize)
      var after: UInt64 = 0
      if !request.pageToken.isEmpty {
        guard let token = UInt64(request.pageToken) else {
          throw .service(
            .badPageToken, "not a token of ListMachines; pass nextPageToken of the last answer", fields: ["pageToken"])
        }
        after = token
      }
      let (records, more) = fleet.list(after: after, limit: count, tenant: caller.tenant)
      MachineWalk(caller: caller, records: records, more: more, shards: peers).step(on: self)
    } catch {
      fail(caller, error)
    }
  }

  func pageSize(_ size: UInt32) throws(CallError) -> Int {
    guard size <= limits.pageSizeMaximum else {
      throw .outOfRange("pageSize", "0 (for \(limits.pageSizeDefault)) to \(limits.pageSizeMaximum)")
    }
    return Int(size == 0 ? limits.pageSizeDefault : size)
  }

  func describe(_ host: MachineHost) -> LabMachine {
    .with {
      $0.machine = host.text
      $0.settings = LabMachineSettings(host.machine.settings)
      switch host.pacing {
      case .wall: $0.pacing = .wall
      case .manual: $0.pacing = .manual
      }
      $0.record = host.log != nil
      $0.timeNanoseconds = host.time(now)
      $0.epoch = 1
    }
  }

  func getStatistics(
    _ host: MachineHost, _ request: LabGetStatisticsRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    host.dispatch()
    return LabGetStatisticsResponse.with {
      $0.statistics = .with {
        $0.timeNanoseconds = host.time(now)
        $0.counters = LabCounters(host.effects.counters)
        $0.verdicts = VerdictKind.allCases.compactMap { kind in
          let count = host.verdicts.count[Int(kind.rawValue)]
          guard count > 0 else { return nil }
          return .with {
            $0.kind = LabVerdictKind(kind)
            $0.count = count
            $0.mirrorCount = host.verdicts.mirrorCount[Int(kind.rawValue)]
          }
        }
        $0.pageRequestService = host.figures.pageRequestService.latency
        $0.invalidationCompletion = host.figures.invalidationCompletion.latency
        $0.turns = host.machine.turn
        $0.devices = UInt32(host.ports.count { $0 != nil })
        $0.runningOperations = UInt32(host.operations.runningCount)
      }
    }
  }

  func listVerdicts(
    _ host: MachineHost, _ request: LabListVerdictsRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let count = try pageSize(request.pageSize)
    var kinds = VerdictKind.allCases
    if !request.kinds.isEmpty {
      let names = Set(request.kinds)
      kinds = kinds.filter { names.contains(LabVerdictKind($0)) }
    }
    host.dispatch()
    let (entries, more) = host.verdicts.list(after: request.afterSeq, kinds: kinds, limit: count)
    return LabListVerdictsResponse.with {
      $0.verdicts = entries.map { LabVerdict($0.verdict, seq: $0.seq) }
      $0.more = more
    }
  }

  func getStateHash(
    _ host: MachineHost, _ request: LabGetStateHashRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    LabGetStateHashResponse.with {
      $0.stateHash = Hex.string(host.machine.stateHash())
      $0.timeNanoseconds = host.time(now)
    }
  }

  // MARK: - Time

  func advance(
    _ host: MachineHost, _ request: LabAdvanceRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    guard case .manual = host.pacing else {
      throw .service(
        .notManual, "the machine's clock follows the service's; create it with PACING_MANUAL", fields: ["machine"])
    }
    guard request.hasUntilNanoseconds || request.hasMaxTurns else {
      throw .wire(WireError(.missing, field: "untilNanoseconds"))
    }
    var end: Nanoseconds?
    if request.hasUntilNanoseconds {
      guard request.untilNanoseconds >= host.clock else {
        throw .service(
          .timeInThePast, "the machine's time is \(host.clock) ns already; time never goes back",
          fields: ["untilNanoseconds"])
      }
      guard request.untilNanoseconds <= greatestMachineTime else {
        throw .outOfRange("untilNanoseconds", "at most \(greatestMachineTime)")
      }
      end = request.untilNanoseconds
    }
    guard !request.hasMaxTurns || request.maxTurns <= limits.turnsPerAdvance else {
      throw .outOfRange("maxTurns", "at most \(limits.turnsPerAdvance)")
    }
    let turns = host.advance(until: end, limit: Int(request.hasMaxTurns ? request.maxTurns : limits.turnsPerAdvance))
    host.dispatch()
    return LabAdvanceResponse.with {
      $0.timeNanoseconds = host.clock
      $0.turns = UInt32(turns)
      if let due = host.machine.nextDue() { $0.nextDueNanoseconds = due }
    }
  }

  // MARK: - Log

  func getLog(
    _ host: MachineHost, _ request: LabGetLogRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    guard host.log != nil else {
      throw .service(.notRecording, "the machine keeps no log; create it with record", fields: ["machine"])
    }
    let pieces = host.log!.snapshot()
    let pump = LogPump(caller: caller, pieces: pieces, isCut: host.log!.isFull)
    // From here on the stream belongs to its connection's loop.
    dropRoute(caller.call)
    let index = caller.call.loopIndex
    if index == loop.index { pumps.append(pump) } else { loop(index).post(PumpStart(target: peers[index], pump: pump)) }
    return nil
  }

  private func loop(_ index: Int) -> RPCLoop { peers[index].loop }
}

/// Machine time ends here, so that sums of durations stay within 64 bits.
let greatestMachineTime: UInt64 = 1 << 61

/// FNV-1a, for choices that must be the same on every loop.
func stableHash(_ text: String) -> UInt64 {
  text.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
}

/// Visits the loops in turn and collects their machines' descriptions, then answers. One hop at a time, so one shard has
/// it; `@unchecked Sendable` rests on that.
final class MachineWalk: RPCWork, @unchecked Sendable {
  private let caller: Caller
  private let records: [Fleet.Record]
  private let more: Bool
  private let shards: [Shard]
  private var found: [(order: UInt64, machine: LabMachine)] = []
  private var visited = 0

  init(caller: Caller, records: [Fleet.Record], more: Bool, shards: [Shard]) {
    self.caller = caller
    self.records = records
    self.more = more
    self.shards = shards
  }

  func step(on shard: Shard) {
    for record in records where record.loop == shard.loop.index {
      if let host = shard.machines[record.id] { found.append((host.order, shard.describe(host))) }
    }
    visited += 1
    if visited < shards.count {
      shards[(shard.loop.index + 1) % shards.count].loop.post(self)
      return
    }
    found.sort { $0.order < $1.order }
    let response = LabListMachinesResponse.with {
      $0.machines = found.map(\.machine)
      if more, let last = records.last { $0.nextPageToken = String(last.order) }
    }
    shard.answer(caller, response)
  }

  func run(on loop: RPCLoop, now: UInt64) {
    let shard = shards[loop.index]
    shard.begin(now)
    step(on: shard)
    shard.endPass()
  }
}

/// A log on its way to a caller, on the loop of the caller's connection.
struct LogPump: Sendable {
  var caller: Caller
  var pieces: [[UInt8]]
  /// The log stopped at its limit.
  var isCut: Bool
  var piece = 0
  var offset = 0
}

final class PumpStart: RPCWork, @unchecked Sendable {
  private let target: Shard
  private let pump: LogPump
  init(target: Shard, pump: LogPump) {
    self.target = target
    self.pump = pump
  }
  func run(on loop: RPCLoop, now: UInt64) {
    target.begin(now)
    target.routes[pump.caller.call] = nil
    target.pumps.append(pump)
    target.endPass()
  }
}

extension Shard {
  /// Sends the next pieces of logs to callers that have taken the last ones.
  func pump() {
    var waiting: [LogPump] = []
    for var pump in pumps where pumpMore(&pump) { waiting.append(pump) }
    pumps = waiting
  }

  private func pumpMore(_ pump: inout LogPump) -> Bool {
    let call = pump.caller.call
    guard loop.isLive(call) else { return false }
    while loop.pendingOutput(call) < limits.logPiece {
      guard pump.piece < pump.pieces.count else {
        if pump.isCut {
          loop.fail(
            call, CallError.service(.logFull, "the log stopped at \(limits.logBytes) bytes; all before holds").rpc)
        } else {
          loop.finish(call)
        }
        return false
      }
      let bytes = pump.pieces[pump.piece]
      let end = min(bytes.count, pump.offset + limits.logPiece)
      desk.send(call, pump.caller.codec, LabGetLogResponse.with { $0.chunk = .init(bytes[pump.offset..<end]) })
      pump.offset = end
      if end == bytes.count {
        pump.piece += 1
        pump.offset = 0
      }
    }
    return true
  }
}
