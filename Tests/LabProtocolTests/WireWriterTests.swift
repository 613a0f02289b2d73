// SPDX-License-Identifier: Apache-2.0
//
// Goal: what the writer writes is what both readers read. Method: random values from a seed, and every value of every enum.
import Foundation
import SwiftProtobuf
import Testing

@testable import LabProtocol

@Suite struct WireWriterTests {
  static func message(_ g: inout TestGenerator) -> Wire.DeviceMessage {
    let pasid = UInt32(truncatingIfNeeded: g.word())
    switch g.below(5) {
    case 0:
      return .translate(
        .init(tag: UInt32(truncatingIfNeeded: g.word()), pasid: pasid, address: g.word(), noWrite: g.bool()))
    case 1:
      return .pageRequest(
        .init(
          pasid: pasid, address: g.word(), read: g.bool(), write: g.bool(),
          groupIndex: UInt32(truncatingIfNeeded: g.word()), last: g.bool()))
    case 2:
      return .dma(
        .init(
          tag: UInt32(truncatingIfNeeded: g.word()), write: g.bool(), translated: g.bool(), pasid: pasid,
          address: g.word(), iova: g.word(), value: g.word()))
    case 3: return .complete(itagVector: UInt32(truncatingIfNeeded: g.word()))
    default: return .giveUp(.init(pasid: pasid, address: g.word(), read: g.bool(), write: g.bool()))
    }
  }

  static func event(_ g: inout TestGenerator) -> Wire.DeviceEvent {
    let pasid = UInt32(truncatingIfNeeded: g.word())
    switch g.below(8) {
    case 0:
      return .translation(
        .init(
          tag: UInt32(truncatingIfNeeded: g.word()), status: g.pick(Wire.TranslationStatus.allCases), pasid: pasid,
          address: g.word(), physicalAddress: g.word(), sizeLog2: UInt8(g.below(64)), read: g.bool(), write: g.bool(),
          order: g.word()))
    case 1:
      return .pageResponse(
        .init(
          pasid: pasid, groupIndex: UInt32(g.below(512)), code: g.pick(Wire.PageResponseCode.allCases),
          serviceNanoseconds: g.word(), memberCount: UInt32(truncatingIfNeeded: g.word())))
    case 2:
      return .invalidation(
        .init(itag: UInt8(g.below(32)), pasid: pasid, address: g.word(), sizeLog2: UInt8(g.below(64)), order: g.word()))
    case 3:
      return .dma(
        .init(
          tag: UInt32(truncatingIfNeeded: g.word()), status: g.pick(Wire.DMAStatus.allCases), write: g.bool(),
          value: g.word()))
    case 4: return .device(g.pick(Wire.DeviceState.allCases), allocation: UInt32(truncatingIfNeeded: g.word()))
    case 5: return .ignored(g.pick(Wire.IgnoredReason.allCases))
    case 6: return .refused(message: g.word(), g.pick(ErrorReason.allCases))
    default: return .heartbeat(timeNanoseconds: g.word())
    }
  }

  @Test("batches of messages come back from both readers, without the fall-back")
  func messages() throws {
    var g = TestGenerator(seed: HotPathFuzzTests.seed)
    var writer = WireWriter(capacity: 512)
    for round in 0..<2000 {
      let messages = (0..<g.below(20)).map { _ in Self.message(&g) }
      let machine = UInt128(g.next()) << 64 | UInt128(g.next())
      let device = UInt32(truncatingIfNeeded: g.next())
      let after = g.word()
      writer.clear()
      if round % 2 == 0 {
        writer.beginAttachRequest(
          machine: ObjectID.text(.machine, machine), device: ObjectID.text(.device, UInt128(device)), afterSeq: after)
      } else {
        writer.beginAttachRequest()
      }
      for message in messages { writer.append(message) }
      writer.endAttachRequest()

      var batch = AttachBatch()
      var cursor = JSONCursor(writer.bytes.bindMemory(to: UInt8.self))
      try batch.read(&cursor)
      #expect(batch.messages == messages, "seed \(HotPathFuzzTests.seed)")
      #expect(batch.hello == (round % 2 == 0 ? .init(machine: machine, device: device, afterSeq: after) : nil))
      let generated = try LabAttachRequest(jsonUTF8Bytes: Array(writer.bytes))
      #expect(try generated.messages.map { try Wire.DeviceMessage($0) } == messages)
    }
  }

  @Test("batches of events come back from both readers, without the fall-back")
  func events() throws {
    var g = TestGenerator(seed: HotPathFuzzTests.seed &+ 1)
    var writer = WireWriter(capacity: 512)
    for _ in 0..<2000 {
      let events = (0..<g.below(20)).map { _ in Self.event(&g) }
      let (epoch, seq, cut) = (UInt32(truncatingIfNeeded: g.word()), g.word(), g.bool())
      writer.clear()
      writer.beginEvents()
      for event in events { writer.append(event) }
      writer.endEvents(epoch: epoch, seq: seq, historyCut: cut)

      var batch = EventBatch()
      var cursor = JSONCursor(writer.bytes.bindMemory(to: UInt8.self))
      try batch.read(&cursor)
      #expect(batch.events == events && batch.epoch == epoch && batch.seq == seq && batch.historyCut == cut)
      let generated = try LabAttachResponse(jsonUTF8Bytes: Array(writer.bytes))
      #expect(try generated.events.map { try Wire.DeviceEvent($0) } == events)
      #expect(generated.epoch == epoch && generated.seq == seq && generated.historyCut == cut)
      // The Watch response is the same text.
      #expect(try LabDeviceServiceWatchResponse(jsonUTF8Bytes: Array(writer.bytes)).events == generated.events)
    }
  }

  @Test("answers of unary calls are the messages of the contract")
  func answers() throws {
    var g = TestGenerator(seed: HotPathFuzzTests.seed &+ 2)
    var writer = WireWriter()
    for _ in 0..<2000 {
      writer.clear()
      switch Self.event(&g) {
      case .translation(let translation):
        writer.response(translation)
        #expect(
          try Wire.Translation(LabTranslateResponse(jsonUTF8Bytes: Array(writer.bytes)).translation) == translation)
      case .dma(let result):
        writer.response(result)
        #expect(try Wire.DMAResult(LabDmaResponse(jsonUTF8Bytes: Array(writer.bytes)).dma) == result)
      case .pageResponse(let response):
        let count = g.below(4)
        let ignored = (0..<g.below(3)).map { _ in g.pick(Wire.IgnoredReason.allCases) }
        writer.response(Array(repeating: response, count: count), ignored: ignored)
        let generated = try LabRequestPagesResponse(jsonUTF8Bytes: Array(writer.bytes))
        #expect(
          try generated.pageResponses.map { try Wire.PageResponse($0) } == Array(repeating: response, count: count))
        #expect(generated.ignored.map { $0.reason.rawValue } == ignored.map { Int($0.rawValue) })
      default:
        writer.emptyResponse()
        #expect(Array(writer.bytes) == Array("{}".utf8))
      }
    }
  }

  @Test("the text of a refusal survives quotes, control characters and any language")
  func refusalText() throws {
    var writer = WireWriter()
    let text = "a \"quoted\" \\ line\n\u{1}\u{7f} – ü 漢字 🧪" + String(repeating: "x", count: 9000)
    writer.beginEvents()
    writer.append(.heartbeat(timeNanoseconds: 7))
    writer.appendRefused(message: 9, .misaligned, text: text)
    writer.append(.heartbeat(timeNanoseconds: 8))
    writer.endEvents(epoch: 1, seq: 2)
    let generated = try LabAttachResponse(jsonUTF8Bytes: Array(writer.bytes))
    #expect(generated.events.count == 3)
    #expect(generated.events[1].refused.text == text)
    #expect(generated.events[1].refused.reason == "MISALIGNED")
  }

  @Test("the counts of enum values, the field names and the reasons equal the contract's")
  func names() throws {
    // The names themselves are read back by the generated codec in the tests above.
    #expect(Wire.TranslationStatus.allCases.count == LabTranslationStatus.allCases.count - 1)
    #expect(Wire.PageResponseCode.allCases.count == LabPageResponseCode.allCases.count - 1)
    #expect(Wire.DMAStatus.allCases.count == LabDmaStatus.allCases.count - 1)
    #expect(Wire.DeviceState.allCases.count == LabDeviceState.allCases.count - 1)
    #expect(Wire.IgnoredReason.allCases.count == LabIgnoredReason.allCases.count - 1)
    for reason in ErrorReason.allCases { #expect(ErrorReason(name: "\(reason.name)") == reason) }
    for field in JSONField.allCases where field != .unknown {
      let snake = field.name.map { $0.isUppercase ? "_\($0.lowercased())" : String($0) }.joined()
      for name in [field.name, snake] {
        var head: UInt64 = 0
        for (index, byte) in name.utf8.prefix(8).enumerated() { head |= UInt64(byte) << UInt64(index * 8) }
        for (suffix, expected) in [("", field), ("x", JSONField.unknown)] {
          let longHead =
            name.utf8.count < 8 && !suffix.isEmpty
            ? head | UInt64(0x78) << UInt64(name.utf8.count * 8) : head
          let found = Array((name + suffix).utf8).withUnsafeBufferPointer { JSONField(head: longHead, bytes: $0) }
          // `message` + `s` and the like are other names; `x` makes none.
          #expect(found == expected, "\(name + suffix)")
        }
      }
    }
  }
}
