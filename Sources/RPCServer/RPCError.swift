// SPDX-License-Identifier: Apache-2.0

/// Codes shared by Connect and gRPC; the raw value is gRPC's number.
public enum RPCCode: UInt8, Sendable, CaseIterable {
  case canceled = 1
  case unknown, invalidArgument, deadlineExceeded, notFound, alreadyExists, permissionDenied, resourceExhausted
  case failedPrecondition, aborted, outOfRange, unimplemented, `internal`, unavailable, dataLoss, unauthenticated

  /// The name on the wire, Connect protocol "Error Codes".
  public var name: String {
    switch self {
    case .canceled: "canceled"
    case .unknown: "unknown"
    case .invalidArgument: "invalid_argument"
    case .deadlineExceeded: "deadline_exceeded"
    case .notFound: "not_found"
    case .alreadyExists: "already_exists"
    case .permissionDenied: "permission_denied"
    case .resourceExhausted: "resource_exhausted"
    case .failedPrecondition: "failed_precondition"
    case .aborted: "aborted"
    case .outOfRange: "out_of_range"
    case .unimplemented: "unimplemented"
    case .internal: "internal"
    case .unavailable: "unavailable"
    case .dataLoss: "data_loss"
    case .unauthenticated: "unauthenticated"
    }
  }

  /// The HTTP status of a unary error, Connect protocol "Error Codes".
  public var httpStatus: Int {
    switch self {
    case .canceled: 499
    case .invalidArgument, .failedPrecondition, .outOfRange: 400
    case .unauthenticated: 401
    case .permissionDenied: 403
    case .notFound: 404
    case .alreadyExists, .aborted: 409
    case .resourceExhausted: 429
    case .unimplemented: 501
    case .unavailable: 503
    case .deadlineExceeded: 504
    case .unknown, .internal, .dataLoss: 500
    }
  }
}

/// What a caller gets instead of an answer. The code and `reason` are the contract, the text is for people.
public struct RPCError: Error, Sendable {
  public var code: RPCCode
  /// Stable and machine-readable, lower_snake_case; never changes meaning.
  public var reason: String
  /// What, why, and what to do.
  public var message: String
  /// The fields of the request that are at fault, as the contract names them.
  public var fields: [String]

  public init(_ code: RPCCode, _ reason: String, _ message: String, fields: [String] = []) {
    self.code = code
    self.reason = reason
    self.message = message
    self.fields = fields
  }

  /// The error as Connect JSON: `code`, `message`, `details` (one google.rpc.ErrorInfo with reason and fields), and the
  /// same reason and fields as plain members, for people with curl.
  public var json: [UInt8] {
    var text = JSONText()
    text.raw("{\"code\":\"\(code.name)\",\"message\":")
    text.string(message)
    text.raw(",\"reason\":")
    text.string(reason)
    let names = fieldsJSON
    text.raw(",\"fields\":\(names),\"details\":[{\"type\":\"google.rpc.ErrorInfo\",\"value\":\"")
    text.raw(base64(errorInfo))
    text.raw("\",\"debug\":{\"reason\":")
    text.string(reason)
    text.raw(",\"domain\":\"iommulab\",\"metadata\":{\"fields\":")
    text.string(fields.joined(separator: ","))
    text.raw("}}}]}")
    return text.bytes
  }

  private var fieldsJSON: String {
    var text = JSONText()
    text.raw("[")
    for (index, field) in fields.enumerated() {
      if index > 0 { text.raw(",") }
      text.string(field)
    }
    text.raw("]")
    return String(decoding: text.bytes, as: UTF8.self)
  }

  /// google.rpc.ErrorInfo: reason = 1, domain = 2, metadata = 3 (map from string to string).
  private var errorInfo: [UInt8] {
    var bytes: [UInt8] = []
    protobufField(1, Array(reason.utf8), into: &bytes)
    protobufField(2, Array("iommulab".utf8), into: &bytes)
    if !fields.isEmpty {
      var entry: [UInt8] = []
      protobufField(1, Array("fields".utf8), into: &entry)
      protobufField(2, Array(fields.joined(separator: ",").utf8), into: &entry)
      protobufField(3, entry, into: &bytes)
    }
    return bytes
  }
}

private func protobufField(_ number: UInt8, _ value: [UInt8], into bytes: inout [UInt8]) {
  bytes.append(number << 3 | 2)
  var length = value.count
  while length >= 0x80 {
    bytes.append(UInt8(truncatingIfNeeded: length) | 0x80)
    length >>= 7
  }
  bytes.append(UInt8(length))
  bytes.append(contentsOf: value)
}

/// JSON text that is built once per error, RFC 8259 §7.
struct JSONText {
  private(set) var bytes: [UInt8] = []

  mutating func raw(_ text: String) { bytes.append(contentsOf: text.utf8) }

  mutating func string(_ text: String) {
    bytes.append(UInt8(ascii: "\""))
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "\""): raw("\\\"")
      case UInt8(ascii: "\\"): raw("\\\\")
      case 0x0A: raw("\\n")
      case 0x0D: raw("\\r")
      case 0x09: raw("\\t")
      case 0..<0x20:
        raw("\\u00")
        bytes.append(hexDigits[Int(byte >> 4)])
        bytes.append(hexDigits[Int(byte & 15)])
      default: bytes.append(byte)
      }
    }
    bytes.append(UInt8(ascii: "\""))
  }
}

private let hexDigits = Array("0123456789abcdef".utf8)
private let base64Digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

/// Standard alphabet without padding, as Connect wants it (RFC 4648 §4).
func base64(_ bytes: [UInt8]) -> String {
  var text: [UInt8] = []
  var index = 0
  while index < bytes.count {
    let left = bytes.count - index
    let group =
      UInt32(bytes[index]) << 16 | (left > 1 ? UInt32(bytes[index + 1]) << 8 : 0)
      | (left > 2 ? UInt32(bytes[index + 2]) : 0)
    for digit in 0..<min(left + 1, 4) {
      text.append(base64Digits[Int(group >> UInt32(18 - 6 * digit)) & 63])
    }
    index += 3
  }
  return String(decoding: text, as: UTF8.self)
}

/// Reads base64 of either alphabet, padded or not; nil for anything else.
func base64Decoded(_ text: [UInt8]) -> [UInt8]? {
  var bytes: [UInt8] = []
  var group: UInt32 = 0
  var bits = 0
  var digits = text[...]
  while digits.last == UInt8(ascii: "=") { digits.removeLast() }
  if digits.count % 4 == 1 { return nil }
  for digit in digits {
    let value: UInt32
    switch digit {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = UInt32(digit) - 65
    case UInt8(ascii: "a")...UInt8(ascii: "z"): value = UInt32(digit) - 71
    case UInt8(ascii: "0")...UInt8(ascii: "9"): value = UInt32(digit) + 4
    case UInt8(ascii: "+"), UInt8(ascii: "-"): value = 62
    case UInt8(ascii: "/"), UInt8(ascii: "_"): value = 63
    default: return nil
    }
    group = group << 6 | value
    bits += 6
    if bits >= 8 {
      bits -= 8
      bytes.append(UInt8(truncatingIfNeeded: group >> UInt32(bits)))
    }
  }
  return bytes
}
