// SPDX-License-Identifier: Apache-2.0

/// A seeded generator (SplitMix64), so that a failing run can be repeated.
struct TestGenerator: RandomNumberGenerator {
  var state: UInt64
  init(seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
  mutating func below(_ bound: Int) -> Int { Int(truncatingIfNeeded: next() % UInt64(bound)) }
  mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
  mutating func pick<T>(_ list: [T]) -> T { list[below(list.count)] }
  mutating func bool() -> Bool { next() & 1 == 1 }
  /// Numbers of every length, and the edges.
  mutating func word() -> UInt64 {
    switch below(8) {
    case 0: 0
    case 1: .max
    case 2: 1 << UInt64(below(64))
    default: next() >> UInt64(below(64))
    }
  }
}

/// What a field may hold, for texts that are made without either codec.
indirect enum TextType {
  case uint32, small, uint64, bool, hex, mask, text, id(String), value(String, [String]), message(TextSchema), list(
    TextSchema)
}

/// A message's fields by their snake_case names.
struct TextSchema {
  var fields: [(name: String, type: TextType)]
  var isOneOf = false

  static let translationRequest = TextSchema(fields: [
    ("tag", .uint32), ("pasid", .uint32), ("address", .hex), ("no_write", .bool),
  ])
  static let pageRequest = TextSchema(fields: [
    ("pasid", .uint32), ("address", .hex), ("read", .bool), ("write", .bool), ("group_index", .uint32), ("last", .bool),
  ])
  static let dmaAccess = TextSchema(fields: [
    ("tag", .uint32), ("write", .bool), ("translated", .bool), ("pasid", .uint32), ("address", .hex), ("iova", .hex),
    ("value", .hex),
  ])
  static let completion = TextSchema(fields: [("itag_vector", .mask)])
  static let abandonment = TextSchema(fields: [
    ("pasid", .uint32), ("address", .hex), ("read", .bool), ("write", .bool),
  ])
  static let deviceMessage = TextSchema(
    fields: [
      ("translate", .message(translationRequest)), ("page_request", .message(pageRequest)),
      ("dma", .message(dmaAccess)),
      ("complete", .message(completion)), ("give_up", .message(abandonment)),
    ], isOneOf: true)
  static let hello = TextSchema(fields: [("machine", .id("m-")), ("device", .id("d-")), ("after_seq", .uint64)])
  static let attachRequest = TextSchema(fields: [("hello", .message(hello)), ("messages", .list(deviceMessage))])

  static func call(_ name: String, _ type: TextType) -> TextSchema {
    TextSchema(fields: [("request_id", .text), ("machine", .id("m-")), ("device", .id("d-")), (name, type)])
  }

  static let translation = TextSchema(fields: [
    ("tag", .uint32), ("status", .value("TRANSLATION_STATUS_", ["SUCCESS", "UNSUPPORTED_REQUEST", "COMPLETER_ABORT"])),
    ("pasid", .uint32), ("address", .hex), ("physical_address", .hex), ("size_log2", .small), ("read", .bool),
    ("write", .bool), ("order", .uint64),
  ])
  static let pageResponse = TextSchema(fields: [
    ("pasid", .uint32), ("group_index", .uint32),
    ("code", .value("PAGE_RESPONSE_CODE_", ["SUCCESS", "INVALID_REQUEST", "RESPONSE_FAILURE"])),
    ("service_nanoseconds", .uint64), ("member_count", .uint32),
  ])
  static let invalidation = TextSchema(fields: [
    ("itag", .small), ("pasid", .uint32), ("address", .hex), ("size_log2", .small), ("order", .uint64),
  ])
  static let dmaResult = TextSchema(fields: [
    ("tag", .uint32), ("status", .value("DMA_STATUS_", ["SUCCESS", "FENCED", "REFUSED", "BLOCKED"])), ("write", .bool),
    ("value", .hex),
  ])
  static let deviceEvent = TextSchema(
    fields: [
      ("translation", .message(translation)), ("page_response", .message(pageResponse)),
      ("invalidation", .message(invalidation)), ("dma", .message(dmaResult)),
      (
        "device",
        .message(
          .init(fields: [("state", .value("DEVICE_STATE_", ["REMOVED", "PRI_ENABLED"])), ("allocation", .uint32)]))
      ),
      ("ignored", .message(.init(fields: [("reason", .value("IGNORED_REASON_", ["EXCESS_PAGE_REQUEST"]))]))),
      ("refused", .message(.init(fields: [("message", .uint64), ("reason", .text), ("text", .text)]))),
      ("heartbeat", .message(.init(fields: [("time_nanoseconds", .uint64)]))),
    ], isOneOf: true)
  static let attachResponse = TextSchema(fields: [
    ("epoch", .uint32), ("seq", .uint64), ("events", .list(deviceEvent)), ("history_cut", .bool),
  ])
}

/// Writes texts that are mostly right. `oddity`: percent of places at which something rare or wrong stands.
struct TextMaker {
  var generator: TestGenerator
  var oddity = 2

  mutating func space() -> String {
    generator.chance(oddity) ? generator.pick([" ", "\n", "\t", "\r ", "  ", "\u{b}"]) : ""
  }

  mutating func message(_ schema: TextSchema) -> String {
    var parts: [String] = []
    let chosen = generator.below(schema.fields.count)
    for (index, field) in schema.fields.enumerated() {
      if schema.isOneOf ? index != chosen && !generator.chance(oddity / 2) : oddity > 0 && generator.chance(15) {
        continue
      }
      let count = generator.chance(oddity) ? 2 : 1
      for _ in 0..<count { parts.append(name(field.name) + space() + ":" + space() + value(field.type)) }
    }
    if generator.chance(oddity) { parts.append("\"\(generator.pick(["tagg", "x", "", "adress", "pages"]))\":1") }
    if generator.chance(oddity) { parts.shuffle(using: &generator) }
    return space() + "{" + parts.map { space() + $0 + space() }.joined(separator: ",") + "}" + space()
  }

  mutating func name(_ name: String) -> String {
    var parts = name.split(separator: "_").map(String.init)
    if generator.chance(oddity * 5) { return "\"\(name)\"" }
    for index in 1..<max(parts.count, 1) {
      parts[index] = parts[index].prefix(1).uppercased() + parts[index].dropFirst()
    }
    let camel = parts.joined()
    return generator.chance(oddity) ? "\"" + escaped(camel) + "\"" : "\"\(camel)\""
  }

  mutating func escaped(_ text: String) -> String {
    text.unicodeScalars.map { scalar in
      generator.chance(20) ? "\\u00" + String(scalar.value + 0x100, radix: 16).dropFirst() : String(scalar)
    }.joined()
  }

  mutating func value(_ type: TextType) -> String {
    if generator.chance(oddity) {
      return generator.pick([
        "null", "true", "false", "0", "1", "-1", "01", "1.0", "1e2", "1E400", "\"\"", "\"null\"", "{}", "[]", "nul",
        "tru",
        "\"0x1\"", "\"é\"", "\"\\u0030x5\"", "18446744073709551616", "\"\\ud800\"", "1.5", "\"1\\u0030\"", "0x10",
        "\"4096\"",
        "truex", "nullx", "true1", "0.0", "\"0x\"", "\"1", "[null]", "[{}]", "-0", "4294967296", "\"7\"", "2",
      ])
    }
    switch type {
    case .uint32: return quotedNow(String(generator.chance(oddity) ? generator.word() : generator.word() >> 32))
    case .small: return quotedNow(String(generator.chance(oddity) ? generator.below(100) : generator.below(32)))
    case .uint64: return quotedNow(String(generator.word()))
    case .bool: return generator.bool() ? "true" : "false"
    case .hex:
      var digits = String(generator.chance(70) ? generator.word() & ~0xfff : generator.word(), radix: 16)
      if generator.chance(oddity) { digits = digits.uppercased() }
      if generator.chance(oddity) { digits = String(repeating: "0", count: generator.below(17)) + digits }
      return generator.chance(oddity) ? "\"\(escaped("0x" + digits))\"" : "\"0x\(digits)\""
    case .mask: return generator.chance(oddity) ? value(.hex) : "\"0x\(String(generator.word() >> 32, radix: 16))\""
    case .text:
      return !generator.chance(oddity * 5)
        ? "\"r\(generator.below(1000))\"" : "\"\(generator.pick(["a b", "ü", "", "\\\"", "MISALIGNED"]))\""
    case .id(let prefix):
      let count = prefix == "m-" ? 32 : 8
      let digits = (0..<count).map { _ in String(generator.below(16), radix: 16) }.joined()
      return "\"\(prefix)\(generator.chance(oddity) ? String(digits.dropLast()) : digits)\""
    case .value(let prefix, let names):
      if generator.chance(oddity) { return String(generator.below(8)) }
      return "\"\(prefix)\(generator.chance(oddity) ? "UNSPECIFIED" : generator.pick(names))\""
    case .message(let schema): return message(schema)
    case .list(let schema):
      let elements = (0..<(oddity == 0 ? 1 + generator.below(3) : generator.below(4))).map { _ in message(schema) }
      return "[" + elements.joined(separator: ",") + "]"
    }
  }

  mutating func quotedNow(_ number: String) -> String { generator.chance(30) ? "\"\(number)\"" : number }

  /// A text with a few bytes changed, or cut short.
  mutating func mutated(_ text: [UInt8]) -> [UInt8] {
    var text = text
    for _ in 0..<(1 + generator.below(3)) where !text.isEmpty {
      let at = generator.below(text.count)
      switch generator.below(6) {
      case 0: text.removeSubrange(at...)
      case 1: text[at] = UInt8(truncatingIfNeeded: generator.next())
      case 2: text.remove(at: at)
      case 3: text.insert(generator.pick(Array("{}[]\",:\\0179.exE+- \n\u{1}ntf".utf8)), at: at)
      case 4: text[at] ^= 1 << UInt8(generator.below(8))
      default:
        let to = min(text.count, at + generator.below(24))
        text.insert(contentsOf: text[at..<to], at: generator.below(text.count))
      }
    }
    return text
  }
}
