// SPDX-License-Identifier: Apache-2.0
import Glibc
import HTTP2Session

struct RequestFormat {
  var framing: RPCFraming
  var codec: RPCCodec
}

/// Media types that a request may have.
private enum MediaType {
  case json, proto, connectJSON, connectProto, ndjson

  /// Matches without parameters and without regard to case, RFC 9110 §8.3.1.
  @inline(__always)
  init?(_ value: UnsafeRawBufferPointer) {
    // What nearly every call has, without a look at each byte.
    if value.count == 16, memcmp(value.baseAddress!, "application/json", 16) == 0 {
      self = .json
      return
    }
    self.init(general: value)
  }

  @inline(never)
  private init?(general value: UnsafeRawBufferPointer) {
    var count = 0
    while count < value.count, value[count] != UInt8(ascii: ";") { count += 1 }
    while count > 0, value[count - 1] == UInt8(ascii: " ") || value[count - 1] == 0x09 { count -= 1 }
    let type = UnsafeRawBufferPointer(rebasing: value[..<count])
    if type.equals("application/json") {
      self = .json
    } else if type.equals("application/proto") {
      self = .proto
    } else if type.equals("application/connect+json") {
      self = .connectJSON
    } else if type.equals("application/connect+proto") {
      self = .connectProto
    } else if type.equals("application/x-ndjson") {
      self = .ndjson
    } else {
      return nil
    }
  }
}

extension UnsafeRawBufferPointer {
  /// Equality with lower-case text, ASCII letters compared without case.
  @inline(__always)
  fileprivate func equals(_ text: StaticString) -> Bool {
    guard count == text.utf8CodeUnitCount else { return false }
    if memcmp(baseAddress!, text.utf8Start, count) == 0 { return true }
    for index in 0..<count {
      let byte = self[index]
      let lower = byte >= 65 && byte <= 90 ? byte | 0x20 : byte
      if lower != text.utf8Start[index] { return false }
    }
    return true
  }

  fileprivate func contains(_ text: StaticString) -> Bool {
    let length = text.utf8CodeUnitCount
    guard count >= length else { return false }
    for start in 0...(count - length) where memcmp(baseAddress! + start, text.utf8Start, length) == 0 { return true }
    return false
  }
}

extension RPCLoop {
  /// Framing and codec of a POST, or nil for a content type that the method does not take (415).
  @inline(__always)
  func format(
    _ kind: RPCMethod.Kind, _ head: HTTP2Head, _ storage: UnsafeRawBufferPointer
  ) -> RequestFormat? {
    guard let type = MediaType(head.contentType.of(storage)) else { return nil }
    if kind == .unary {
      switch type {
      case .json: return RequestFormat(framing: .unary, codec: .json)
      case .proto: return RequestFormat(framing: .unary, codec: .proto)
      default: return nil
      }
    }
    switch type {
    case .connectJSON: return RequestFormat(framing: .connect, codec: .json)
    case .connectProto: return RequestFormat(framing: .connect, codec: .proto)
    case .ndjson: return RequestFormat(framing: .ndjson, codec: .json)
    case .json where kind == .serverStream && head.accept.of(storage).contains("application/x-ndjson"):
      return RequestFormat(framing: .ndjson, codec: .json)
    default: return nil
    }
  }

  func unsupportedType(_ kind: RPCMethod.Kind) -> RPCError {
    let types =
      switch kind {
      case .unary: "application/json or application/proto"
      case .serverStream:
        "application/connect+json, application/connect+proto, application/x-ndjson, or application/json with"
          + " 'accept: application/x-ndjson' (for curl -N)"
      case .clientStream, .bidi:
        "application/connect+json, application/connect+proto or application/x-ndjson"
      }
    return RPCError(
      .invalidArgument, "UNSUPPORTED_CONTENT_TYPE", "this method takes content-type \(types)", fields: [])
  }

  /// Connect: an unknown compression is `unimplemented`, and the message lists what is supported.
  func encodingError(
    _ head: HTTP2Head, _ framing: RPCFraming, _ storage: UnsafeRawBufferPointer
  ) -> RPCError? {
    if head.contentEncoding.isEmpty, head.connectContentEncoding.isEmpty { return nil }
    for range in [head.contentEncoding, head.connectContentEncoding] where !range.isEmpty {
      if !range.of(storage).equals("identity") { return unsupportedEncoding() }
    }
    return nil
  }

  func unsupportedEncoding() -> RPCError {
    RPCError(.unimplemented, "UNSUPPORTED_COMPRESSION", "unknown compression; supported encodings: identity")
  }

  /// A decimal number of at most `digits` digits.
  func decimal(_ text: UnsafeRawBufferPointer, digits: Int) -> UInt64? {
    guard text.count > 0, text.count <= digits else { return nil }
    var number: UInt64 = 0
    for byte in text {
      guard byte >= 48, byte <= 57 else { return nil }
      number = number * 10 + UInt64(byte - 48)
    }
    return number
  }
}
