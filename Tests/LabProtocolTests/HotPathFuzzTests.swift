// SPDX-License-Identifier: Apache-2.0
//
// Goal: the hand-written codec and the generated one never disagree on what is a message and what it says. Method: texts
// from a seed — right, with rare spellings, with mistakes, mutated, cut — go through both. The reference is the generated
// decoder followed by the conversions of `GeneratedForms`, which say what is narrower than proto3 JSON. The reader without
// its fall-back is compared too: what it accepts must be accepted with that value.
import Foundation
import SwiftProtobuf
import Testing

@testable import LabProtocol

@Suite struct HotPathFuzzTests {
  static let seed: UInt64 = ProcessInfo.processInfo.environment["SEED"].flatMap(UInt64.init) ?? 20_140_912
  static let rounds = ProcessInfo.processInfo.environment["FUZZ_ROUNDS"].flatMap(Int.init) ?? 6_000

  /// Texts of a message, three of four mutated or odd.
  static func texts(_ schema: TextSchema, salt: UInt64) -> [[UInt8]] {
    var maker = TextMaker(generator: TestGenerator(seed: seed &+ salt))
    return (0..<rounds).map { round in
      maker.oddity = [0, 2, 6, 1][round % 4]
      let text = Array(maker.message(schema).utf8)
      return round % 4 == 3 ? maker.mutated(text) : text
    }
  }

  struct Tally {
    var accepted = 0
    var rejected = 0
    var fellBack = 0
  }

  /// Compares reader, reader without fall-back, and reference over all texts. `nil` stands for a refusal.
  static func compare<Value: Equatable>(
    _: Value.Type, _ texts: [[UInt8]], reader: (UnsafeRawBufferPointer) -> Value?,
    fast: (UnsafeRawBufferPointer) -> Result<Value, WireError>, reference: ([UInt8]) -> Value?
  ) -> Tally {
    var tally = Tally()
    for (index, text) in texts.enumerated() {
      let expected = reference(text)
      let (read, quick) = text.withUnsafeBytes { (reader($0), fast($0)) }
      let shown = "seed \(seed), text \(index): \(String(decoding: text, as: UTF8.self))"
      #expect(read == expected, "\(shown)")
      if index % 4 == 0 { #expect(expected != nil, "a right text, \(shown)") }
      switch quick {
      case .success(let value): #expect(value == expected, "accepted without fall-back, \(shown)")
      case .failure(let error):
        if expected != nil { tally.fellBack += 1 }
        // Only these may turn out to be a message after all: rare spellings, and values that a later field replaces.
        switch error.problem {
        case .unusual, .hex, .outOfRange, .missing, .badRequestID: break
        default: #expect(expected == nil, "\(error), \(shown)")
        }
        if index % 4 == 0 {
          #expect(error.problem != .unusual || expected == nil, "a plain text needs no fall-back, \(shown)")
        }
      }
      if expected == nil { tally.rejected += 1 } else { tally.accepted += 1 }
    }
    return tally
  }

  struct Attach: Equatable {
    var hello: AttachBatch.Hello?
    var messages: [Wire.DeviceMessage]
  }

  @Test("AttachRequest: both codecs agree on every text")
  func attachRequests() throws {
    let tally = Self.compare(
      Attach.self, Self.texts(.attachRequest, salt: 1),
      reader: { bytes in
        var batch = AttachBatch()
        do { try batch.read(json: bytes) } catch { return nil }
        return Attach(hello: batch.hello, messages: batch.messages)
      },
      fast: { bytes in
        var batch = AttachBatch()
        do throws(WireError) {
          var cursor = JSONCursor(bytes.bindMemory(to: UInt8.self))
          try batch.read(&cursor)
        } catch { return .failure(error) }
        return .success(Attach(hello: batch.hello, messages: batch.messages))
      },
      reference: { text in
        guard let request = try? LabAttachRequest(jsonUTF8Bytes: text) else { return nil }
        let hello = request.hasHello ? try? AttachBatch.Hello(request.hello) : nil
        if request.hasHello, hello == nil { return nil }
        guard let messages = try? request.messages.map({ try Wire.DeviceMessage($0) }) else { return nil }
        return Attach(hello: hello, messages: messages)
      })
    #expect(tally.accepted > Self.rounds / 3 && tally.rejected > Self.rounds / 8 && tally.fellBack > 0, "\(tally)")
  }

  struct Events: Equatable {
    var epoch: UInt32
    var seq: UInt64
    var historyCut: Bool
    var events: [Wire.DeviceEvent]
    init(_ batch: EventBatch) {
      (epoch, seq, historyCut, events) = (batch.epoch, batch.seq, batch.historyCut, batch.events)
    }
    init?(_ response: LabAttachResponse) {
      guard let events = try? response.events.map({ try Wire.DeviceEvent($0) }) else { return nil }
      (epoch, seq, historyCut, self.events) = (response.epoch, response.seq, response.historyCut, events)
    }
  }

  @Test("AttachResponse: both codecs agree on every text")
  func attachResponses() throws {
    let tally = Self.compare(
      Events.self, Self.texts(.attachResponse, salt: 2),
      reader: { bytes in
        var batch = EventBatch()
        do { try batch.read(json: bytes) } catch { return nil }
        return Events(batch)
      },
      fast: { bytes in
        var batch = EventBatch()
        do throws(WireError) {
          var cursor = JSONCursor(bytes.bindMemory(to: UInt8.self))
          try batch.read(&cursor)
        } catch { return .failure(error) }
        return .success(Events(batch))
      },
      reference: { text in (try? LabAttachResponse(jsonUTF8Bytes: text)).flatMap { Events($0) } })
    #expect(tally.accepted > Self.rounds / 8 && tally.rejected > Self.rounds / 8 && tally.fellBack > 0, "\(tally)")
  }

  struct Call: Equatable {
    var requestID: String
    var machine: UInt128
    var device: UInt32
    var messages: [Wire.DeviceMessage]
    init(_ call: DeviceCall, _ payload: DeviceCall.Payload) {
      (requestID, machine, device) = (call.requestID, call.machine, call.device)
      messages = payload == .pageRequests ? call.pageRequests.map { .pageRequest($0) } : [call.message]
    }
    init?(_ id: String, _ machine: String, _ device: String, _ messages: () throws -> [Wire.DeviceMessage]) {
      guard DeviceCall.isValid(requestID: id.utf8), !machine.isEmpty, !device.isEmpty, let messages = try? messages(),
        !messages.isEmpty
      else { return nil }
      requestID = id
      self.machine = ObjectID.value(.machine, machine)
      self.device = UInt32(ObjectID.value(.device, device))
      self.messages = messages
    }
  }

  @Test("the hot unary requests: both codecs agree on every text", arguments: DeviceCall.Payload.allCases)
  func deviceCalls(payload: DeviceCall.Payload) throws {
    let schema: TextSchema =
      switch payload {
      case .translate: .call("translate", .message(.translationRequest))
      case .pageRequests: .call("page_requests", .list(.pageRequest))
      case .dma: .call("dma", .message(.dmaAccess))
      case .complete: .call("complete", .message(.completion))
      case .giveUp: .call("give_up", .message(.abandonment))
      }
    let tally = Self.compare(
      Call.self, Self.texts(schema, salt: 3 + UInt64(payload.rawValue)),
      reader: { bytes in
        var call = DeviceCall()
        do { try call.read(payload, json: bytes) } catch { return nil }
        return Call(call, payload)
      },
      fast: { bytes in
        var call = DeviceCall()
        do throws(WireError) {
          var cursor = JSONCursor(bytes.bindMemory(to: UInt8.self))
          try call.read(payload, &cursor)
        } catch { return .failure(error) }
        return .success(Call(call, payload))
      },
      reference: { text in
        switch payload {
        case .translate:
          guard let r = try? LabTranslateRequest(jsonUTF8Bytes: text), r.hasTranslate else { return nil }
          return Call(r.requestID, r.machine, r.device) { [.translate(try .init(r.translate))] }
        case .pageRequests:
          guard let r = try? LabRequestPagesRequest(jsonUTF8Bytes: text) else { return nil }
          return Call(r.requestID, r.machine, r.device) { try r.pageRequests.map { .pageRequest(try .init($0)) } }
        case .dma:
          guard let r = try? LabDmaRequest(jsonUTF8Bytes: text), r.hasDma else { return nil }
          return Call(r.requestID, r.machine, r.device) { [.dma(try .init(r.dma))] }
        case .complete:
          guard let r = try? LabCompleteInvalidationsRequest(jsonUTF8Bytes: text), r.hasComplete else { return nil }
          return Call(r.requestID, r.machine, r.device) {
            [.complete(itagVector: try WireForm.itagVector(r.complete))]
          }
        case .giveUp:
          guard let r = try? LabGiveUpRequest(jsonUTF8Bytes: text), r.hasGiveUp else { return nil }
          return Call(r.requestID, r.machine, r.device) { [.giveUp(try .init(r.giveUp))] }
        }
      })
    #expect(tally.accepted > Self.rounds / 20 && tally.rejected > Self.rounds / 8, "\(tally)")
  }

  @Test("every prefix of a right text is refused, and so is a text with a byte after its end")
  func prefixes() throws {
    var maker = TextMaker(generator: TestGenerator(seed: Self.seed))
    maker.oddity = 0
    for _ in 0..<50 {
      let text = Array(maker.message(.attachRequest).utf8)
      for length in 0..<text.count {
        text[..<length].withUnsafeBytes { bytes in
          var batch = AttachBatch()
          #expect(throws: WireError.self) { try batch.read(json: bytes) }
          #expect(batch.messages.isEmpty && batch.hello == nil)
        }
      }
      (text + [0x7d]).withUnsafeBytes { bytes in
        var batch = AttachBatch()
        #expect(throws: WireError(.trailingBytes)) { try batch.read(json: bytes) }
      }
    }
  }
}
