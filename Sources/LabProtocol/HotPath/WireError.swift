// SPDX-License-Identifier: Apache-2.0

/// Why a text is not the message that it should be. Nothing of the message may be used.
public struct WireError: Error, Equatable, Sendable {
  public enum Problem: Equatable, Sendable {
    /// Not JSON, or cut short, or JSON of another shape than the field's.
    case malformed
    /// The text goes on after its end.
    case trailingBytes
    /// The message has no field of this name.
    case unknownField(String)
    /// The field must be there.
    case missing
    /// A number outside the field's bounds.
    case outOfRange
    /// Not a value of the enum.
    case unknownValue
    /// A hex field that does not hold a hex number.
    case hex(Hex.ParseError)
    /// Exactly one of the message's fields must be there.
    case notExactlyOne
    /// More messages than a batch may hold; the limit.
    case tooMany(Int)
    /// `request_id` is longer than 64 bytes or holds other bytes than printable ASCII without quote and backslash.
    case badRequestID
    /// Valid perhaps, but written in a way that the hand-written reader leaves to the generated one. Never leaves this
    /// room.
    case unusual
  }
  public var problem: Problem
  /// The field that the error is about, in its JSON form; empty: the message itself.
  public var field: String
  /// Which element of the message's list, from 0 on; -1: none.
  public var element: Int

  public init(_ problem: Problem, field: String = "", element: Int = -1) {
    self.problem = problem
    self.field = field
    self.element = element
  }

  /// The stable reason.
  public var reason: ErrorReason {
    switch problem {
    case .malformed, .trailingBytes, .unusual: .malformedJSON
    case .unknownField: .unknownField
    case .missing, .notExactlyOne: .missingField
    case .outOfRange, .unknownValue: .badValue
    case .hex(.decimal): .decimalNumber
    case .hex: .badHex
    case .tooMany: .batchTooLarge
    case .badRequestID: .badRequestID
    }
  }

  /// What, why and what to do, for people.
  public var text: String {
    let place = (element < 0 ? "" : "element \(element): ") + (field.isEmpty ? "" : "\(field): ")
    let what =
      switch problem {
      case .malformed, .unusual: "not the JSON (or protobuf, by the content type) that the contract asks for here; see the message's .proto file"
      case .trailingBytes: "more text follows after the end of the message; send one message"
      case .unknownField(let name): "the message has no field \"\(name)\"; look for a typo, see the .proto file"
      case .missing: "the field is required"
      case .outOfRange: "the number is outside the field's bounds"
      case .unknownValue: "not a name of the field's enum; see the .proto file"
      case .hex(let error): error.text
      case .notExactlyOne: "exactly one field of the message must be set"
      case .tooMany(let limit): "more than \(limit) elements; send several batches"
      case .badRequestID: "request_id takes 1 to 64 printable ASCII characters without quote and backslash"
      }
    return place + what
  }
}
