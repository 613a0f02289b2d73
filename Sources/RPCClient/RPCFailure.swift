// SPDX-License-Identifier: Apache-2.0

/// The error of a call, read from Connect JSON.
public struct RPCFailure: Error, Equatable, Sendable, CustomStringConvertible {
  /// The code's name on the wire, for example `invalid_argument`.
  public var code: String
  public var reason = ""
  public var message = ""
  public var fields: [String] = []

  public var description: String {
    let place = fields.isEmpty ? "" : " (\(fields.joined(separator: ", ")))"
    return "\(code) \(reason)\(place): \(message)"
  }

  public init(code: String, reason: String, message: String, fields: [String] = []) {
    self.code = code
    self.reason = reason
    self.message = message
    self.fields = fields
  }

  /// Reads `{"code":…,"reason":…,"message":…,"fields":[…]}`, or that object under the key `error`. Nil when there is no code.
  public init?(json: UnsafeRawBufferPointer) {
    code = ""
    var cursor = JSONCursor(json)
    read(&cursor)
    if cursor.failed || code.isEmpty { return nil }
  }

  private mutating func read(_ cursor: inout JSONCursor) {
    cursor.object { key, cursor in
      switch key {
      case "code": code = cursor.string()
      case "reason": reason = cursor.string()
      case "message": message = cursor.string()
      case "fields": cursor.array { fields.append($0.string()) }
      case "error": read(&cursor)
      default: cursor.skip()
      }
    }
  }
}

/// A reader of JSON text for errors only; nothing on a hot path uses it.
struct JSONCursor {
  private let bytes: UnsafeRawBufferPointer
  private var index = 0
  private var depth = 0
  private(set) var failed = false

  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  private mutating func next() -> UInt8? {
    while index < bytes.count, bytes[index] <= 0x20 { index += 1 }
    return index < bytes.count ? bytes[index] : nil
  }

  private mutating func take(_ byte: UInt8) -> Bool {
    guard next() == byte else { return false }
    index += 1
    return true
  }

  private mutating func enter() -> Bool {
    depth += 1
    if depth > 32 { failed = true }
    return !failed
  }

  mutating func object(_ member: (String, inout JSONCursor) -> Void) {
    guard take(UInt8(ascii: "{")), enter() else { return failed = true }
    if !take(UInt8(ascii: "}")) {
      repeat {
        let key = string()
        guard take(UInt8(ascii: ":")) else { return failed = true }
        member(key, &self)
      } while !failed && take(UInt8(ascii: ","))
      if !take(UInt8(ascii: "}")) { failed = true }
    }
    depth -= 1
  }

  mutating func array(_ element: (inout JSONCursor) -> Void) {
    guard take(UInt8(ascii: "[")), enter() else { return failed = true }
    if !take(UInt8(ascii: "]")) {
      repeat { element(&self) } while !failed && take(UInt8(ascii: ","))
      if !take(UInt8(ascii: "]")) { failed = true }
    }
    depth -= 1
  }

  mutating func string() -> String {
    var text: [UInt8] = []
    guard take(UInt8(ascii: "\"")) else {
      failed = true
      return ""
    }
    while index < bytes.count {
      let byte = bytes[index]
      index += 1
      if byte == UInt8(ascii: "\"") { return String(decoding: text, as: UTF8.self) }
      if byte == UInt8(ascii: "\\") { escape(&text) } else { text.append(byte) }
    }
    failed = true
    return ""
  }

  private mutating func escape(_ text: inout [UInt8]) {
    guard index < bytes.count else { return failed = true }
    let byte = bytes[index]
    index += 1
    switch byte {
    case UInt8(ascii: "n"): text.append(0x0A)
    case UInt8(ascii: "r"): text.append(0x0D)
    case UInt8(ascii: "t"): text.append(0x09)
    case UInt8(ascii: "b"): text.append(0x08)
    case UInt8(ascii: "f"): text.append(0x0C)
    case UInt8(ascii: "u"):
      guard index + 4 <= bytes.count else { return failed = true }
      let digits = String(decoding: bytes[index..<index + 4], as: UTF8.self)
      index += 4
      let scalar = UInt32(digits, radix: 16).flatMap { Unicode.Scalar($0) } ?? "\u{FFFD}"
      text.append(contentsOf: String(Character(scalar)).utf8)
    default: text.append(byte)
    }
  }

  mutating func skip() {
    switch next() {
    case UInt8(ascii: "{"): object { _, cursor in cursor.skip() }
    case UInt8(ascii: "["): array { $0.skip() }
    case UInt8(ascii: "\""): _ = string()
    default:
      let start = index
      while index < bytes.count, !",]} \n".utf8.contains(bytes[index]) { index += 1 }
      if index == start { failed = true }
    }
  }
}
