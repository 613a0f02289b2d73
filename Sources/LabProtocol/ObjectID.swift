// SPDX-License-Identifier: Apache-2.0

/// The written form of ids: a kind, a hyphen, and a fixed number of lower-case hexadecimal digits. Opaque to clients.
/// A text that is not such an id names nothing, like an id that was never given out; 0 is never given out.
public enum ObjectID {
  /// What an id names.
  public enum Kind: Sendable {
    case machine, addressSpace, domain, device, operation, file, subscriber
    @inlinable var prefix: StaticString {
      switch self {
      case .machine: "m-"
      case .addressSpace: "as-"
      case .domain: "dom-"
      case .device: "d-"
      case .operation: "op-"
      case .file: "f-"
      case .subscriber: "sub-"
      }
    }
    @inlinable var digitCount: Int {
      switch self {
      case .machine: 32
      case .addressSpace, .domain, .device, .file, .subscriber: 8
      case .operation: 16
      }
    }
    @inlinable var textCount: Int { prefix.utf8CodeUnitCount + digitCount }
  }

  /// The id's text.
  public static func text(_ kind: Kind, _ value: UInt128) -> String {
    let digits = String(value, radix: 16)
    return "\(kind.prefix)" + String(repeating: "0", count: kind.digitCount - digits.utf8.count) + digits
  }

  /// The value of an id's text; 0 when it is none of that kind.
  @inlinable @inline(__always)
  public static func value(_ kind: Kind, _ bytes: UnsafeBufferPointer<UInt8>) -> UInt128 {
    let prefix = kind.prefix
    let prefixCount = prefix.utf8CodeUnitCount
    guard bytes.count == kind.textCount else { return 0 }
    for index in 0..<prefixCount where bytes[index] != prefix.utf8Start[index] { return 0 }
    var value: (high: UInt64, low: UInt64) = (0, 0)
    for part in 0..<kind.digitCount / 8 {
      let digits = UnsafeRawPointer(bytes.baseAddress! + prefixCount + 8 * part).loadUnaligned(as: UInt64.self)
      guard let part = eightDigits(UInt64(littleEndian: digits)) else { return 0 }
      value.high = value.high << 32 | value.low >> 32
      value.low = value.low << 32 | part
    }
    return UInt128(value.high) << 64 | UInt128(value.low)
  }

  /// Eight lower-case hexadecimal digits at once, the first in the lowest byte; nil when one is none. Ids stand in every
  /// unary request, 40 digits of them.
  @inlinable @inline(__always)
  static func eightDigits(_ text: UInt64) -> UInt64? {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let letters = (text >> 6) & ones
    let low = text & (ones &* 0x0f)
    // The high half is 3 or 6; below it 0…9 in a digit, 1…6 in a letter. No sum leaves its byte.
    let wrongHalf = (text & (ones &* 0xf0)) ^ (ones &* 0x30 &+ letters &* 0x30)
    let tooHigh = (low &+ ones &* 6 &+ letters &* 3) & (ones &* 0x10)
    let tooLow = ((low &+ ones &* 15) & (letters &* 0x10)) ^ (letters &* 0x10)
    return wrongHalf | tooHigh | tooLow == 0 ? UInt64(Hex.value(eightNibbles: low &+ letters &* 9)) : nil
  }

  /// The value of an id's text; 0 when it is none of that kind.
  public static func value(_ kind: Kind, _ text: String) -> UInt128 {
    var text = text
    return text.withUTF8 { value(kind, $0) }
  }
}
