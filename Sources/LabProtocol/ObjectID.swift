// SPDX-License-Identifier: Apache-2.0

/// The written form of ids: a kind, a hyphen, and a fixed number of lower-case hexadecimal digits. Opaque to clients.
/// A text that is not such an id names nothing, like an id that was never given out; 0 is never given out.
public enum ObjectID {
  /// What an id names.
  public enum Kind: Sendable {
    case machine, addressSpace, domain, device, operation
    @inlinable var prefix: StaticString {
      switch self {
      case .machine: "m-"
      case .addressSpace: "as-"
      case .domain: "dom-"
      case .device: "d-"
      case .operation: "op-"
      }
    }
    @inlinable var digitCount: Int {
      switch self {
      case .machine: 32
      case .addressSpace, .domain, .device: 8
      case .operation: 16
      }
    }
  }

  /// The id's text.
  public static func text(_ kind: Kind, _ value: UInt128) -> String {
    let digits = String(value, radix: 16)
    return "\(kind.prefix)" + String(repeating: "0", count: kind.digitCount - digits.utf8.count) + digits
  }

  /// The value of an id's text; 0 when it is none of that kind.
  @inlinable
  public static func value(_ kind: Kind, _ bytes: UnsafeBufferPointer<UInt8>) -> UInt128 {
    let prefix = kind.prefix
    let prefixCount = prefix.utf8CodeUnitCount
    guard bytes.count == prefixCount + kind.digitCount else { return 0 }
    for index in 0..<prefixCount where bytes[index] != prefix.utf8Start[index] { return 0 }
    var value: (high: UInt64, low: UInt64) = (0, 0)
    for index in prefixCount..<bytes.count {
      let byte = bytes[index]
      let isDigit = byte &- 0x30 < 10
      guard isDigit != (byte &- 0x61 < 6) else { return 0 }
      value.high = value.high << 4 | value.low >> 60
      value.low = value.low << 4 | UInt64(byte & 0xf) &+ (isDigit ? 0 : 9)
    }
    return UInt128(value.high) << 64 | UInt128(value.low)
  }

  /// The value of an id's text; 0 when it is none of that kind.
  public static func value(_ kind: Kind, _ text: String) -> UInt128 {
    var text = text
    return text.withUTF8 { value(kind, $0) }
  }
}
