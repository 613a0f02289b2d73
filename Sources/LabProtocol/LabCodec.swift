// SPDX-License-Identifier: Apache-2.0
import SwiftProtobuf

/// The generated codec, with the project's rules: unknown fields are errors, and errors name the field.
public enum LabCodec {
  /// Reads one whole message of JSON text.
  public static func decode<M: Message>(_: M.Type, json bytes: UnsafeRawBufferPointer) throws(WireError) -> M {
    do {
      return try M(jsonUTF8Bytes: BorrowedBytes(bytes))
    } catch {
      switch error as? JSONDecodingError {
      case .unknownField(let name)?: throw WireError(.unknownField(String(name.prefix(64))))
      case .unrecognizedEnumValue?: throw WireError(.unknownValue)
      case .numberRange?: throw WireError(.outOfRange)
      case .trailingGarbage?: throw WireError(.trailingBytes)
      default: throw WireError(.malformed)
      }
    }
  }

  /// Reads the binary form of one message.
  public static func decode<M: Message>(_: M.Type, binary bytes: UnsafeRawBufferPointer) throws(WireError) -> M {
    guard let message = try? M(serializedBytes: BorrowedBytes(bytes)) else { throw WireError(.malformed) }
    guard message.unknownFields.data.isEmpty else { throw WireError(.unknownField("of the binary message")) }
    return message
  }

  /// A message as JSON text.
  public static func json(_ message: any Message) -> [UInt8] {
    // Only a `google.protobuf.Any` without its type can fail here, and the contract has none.
    do { return try message.jsonUTF8Bytes() } catch { preconditionFailure("a message of the contract encodes") }
  }

  /// A message in its binary form.
  public static func binary(_ message: any Message) -> [UInt8] {
    do { return try message.serializedBytes() } catch { preconditionFailure("a message of the contract encodes") }
  }

  /// A hex field; nil: absent.
  public static func hex(_ text: String, field: String) throws(WireError) -> UInt64? {
    if text.isEmpty { return nil }
    do throws(Hex.ParseError) { return try Hex.parse(text) } catch { throw WireError(.hex(error), field: field) }
  }

  /// A required hex field.
  public static func required(_ text: String, field: String) throws(WireError) -> UInt64 {
    guard let value = try hex(text, field: field) else { throw WireError(.missing, field: field) }
    return value
  }
}
