// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// TraceService.
extension Shard {
  func watchTrace(
    _ host: MachineHost, _ r: LabTraceServiceWatchRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    guard host.trace.watchers.count < limits.tracesPerMachine else {
      throw .service(.limitReached, "the machine has \(limits.tracesPerMachine) trace streams, the limit; end one")
    }
    host.dispatch()
    host.trace.keep()
    let after = r.hasAfterSeq ? r.afterSeq : host.trace.seq
    guard after <= host.trace.seq else {
      throw .outOfRange("afterSeq", "at most \(host.trace.seq), the number of the last event")
    }
    let isCut = after < host.trace.floor
    host.trace.watchers.append(
      TraceBook.Watcher(
        call: caller.call, codec: caller.codec, sent: max(after, host.trace.floor), lastSentAt: now))
    streams[caller.call] = .trace(host)
    sweep(at: now &+ limits.heartbeat)
    sendTrace(host, host.trace.watchers.count - 1, opening: true, isCut: isCut)
    return nil
  }

  /// Sends a trace stream the next of what it has not got yet: one response a pass, because all of a long history at once
  /// would look like a client that does not read.
  func sendTrace(_ host: MachineHost, _ index: Int, opening: Bool = false, isCut: Bool = false) {
    let watcher = host.trace.watchers[index]
    guard opening || watcher.sent < host.trace.seq else { return }
    let from = max(watcher.sent, host.trace.floor)
    let entries = host.trace.entries(after: from, limit: limits.eventsPerResponse)
    let response = LabTraceServiceWatchResponse.with {
      $0.epoch = 1
      $0.seq = from + UInt64(entries.count)
      $0.events = entries.map { LabTraceEvent($0) }
      $0.historyCut = isCut || from > watcher.sent
    }
    desk.send(watcher.call, watcher.codec, response)
    host.trace.watchers[index].sent = response.seq
    host.trace.watchers[index].lastSentAt = now
  }

  func traceHeartbeat(_ host: MachineHost, _ index: Int) {
    let watcher = host.trace.watchers[index]
    let response = LabTraceServiceWatchResponse.with {
      $0.epoch = 1
      $0.seq = watcher.sent
      $0.events = [
        .with {
          $0.timeNanoseconds = host.time(now)
          $0.heartbeat = .with { $0.timeNanoseconds = host.time(now) }
        }
      ]
    }
    desk.send(watcher.call, watcher.codec, response)
    host.trace.watchers[index].lastSentAt = now
  }
}

extension LabTraceEvent {
  init(_ entry: TraceBook.Entry) {
    self.init()
    timeNanoseconds = entry.time
    switch entry.effect {
    case .translation(let device, let answer):
      self.device = device.text
      translation = LabTranslation(Wire.Translation(answer))
    case .pageResponse(let device, let response):
      self.device = device.text
      pageResponse = LabPageResponse(Wire.PageResponse(response))
    case .invalidation(let device, let invalidation):
      self.device = device.text
      self.invalidation = LabInvalidation(Wire.Invalidation(invalidation))
    case .dma(let device, let answer):
      self.device = device.text
      dma = LabDmaResult(Wire.DMAResult(answer, tag: answer.tag))
    case .invalidationEnded(let device, let end):
      self.device = device.text
      invalidationEnd = .with {
        $0.itag = UInt32(end.itag)
        $0.kind =
          switch end.kind {
          case .completed: .completed
          case .timedOut: .timedOut
          case .fenced: .fenced
          case .removed: .removed
          }
        $0.nanoseconds = end.nanoseconds
      }
    case .device(let device, let change):
      self.device = device.text
      switch Wire.DeviceEvent(change) {
      case .device(let state, let allocation):
        deviceChange = .with {
          $0.state = LabDeviceState(rawValue: Int(state.rawValue))!
          $0.allocation = allocation
        }
      case .ignored(let reason): ignored = .with { $0.reason = LabIgnoredReason(rawValue: Int(reason.rawValue))! }
      default: preconditionFailure("a device change is one of two events")
      }
    case .step(let step):
      self.step = .with {
        $0.operation = step.operation.text
        $0.kind = LabOperationKind(step.kind)
        $0.letter = LabStepLetter(step.letter)
        $0.address = Hex.string(step.range.first << 12)
        $0.byteCount = Hex.string(step.range.count << 12)
      }
    case .operation(let outcome): operation = LabOperation(outcome, isLoad: false)
    case .verdict, .notifierEvent, .rangeFault: fill(entry.detail)
    case .subscriber(let subscriber, .lost):
      self.subscriber = subscriber.text
      subscriberLost = LabSubscriberLost()
    }
  }

  private mutating func fill(_ detail: TraceBook.Detail) {
    switch detail {
    case .none: break
    case .verdict(let verdict): self.verdict = LabVerdict(verdict, seq: 0)
    case .notifierEvent(let event):
      subscriber = event.subscriber.text
      notifierCall = LabNotifierCall(event)
    case .rangeFault(let answer):
      subscriber = answer.subscriber.text
      mirrorFault = .with {
        $0.fault = answer.number
        $0.operation = answer.operation.text
        $0.address = Hex.string(answer.first << 12)
        $0.sequence = answer.sequence
        $0.pages = answer.pages.map { LabMirrorPage($0) }
      }
    }
  }
}

extension DeviceID {
  var text: String { ObjectID.text(.device, UInt128(rawValue)) }
}

extension LabStepLetter {
  init(_ letter: OperationStep.Letter) {
    self =
      switch letter {
      case .start: .start
      case .hold: .hold
      case .entries: .entries
      case .cpuFlush: .cpuFlush
      case .flushSite: .flushSite
      case .flushed: .flushed
      case .framesFreed: .framesFreed
      case .tablesUnlinked: .tablesUnlinked
      case .tablesFreed: .tablesFreed
      case .end: .end
      case .changePTE: .changePte
      case .release: .release
      case .drain: .drain
      case .lockWait: .lockWait
      case .invalidatePage: .invalidatePage
      case .young: .young
      case .flushQueued: .flushQueued
      case .upgrade: .upgrade
      }
  }
}
