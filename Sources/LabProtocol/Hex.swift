// SPDX-License-Identifier: Apache-2.0

/// The one written form of addresses, byte counts, masks and data words: `0x` and 1 to 16 hexadecimal digits. Canonical
/// is lower case without leading zeros; both are accepted on input.
public enum Hex {
  /// Why a text is not a number of this form.
  public enum ParseError: Error, Equatable, Sendable {
    /// Only decimal digits; `value` when it fits 64 bits, for the corrected form.
    case decimal(UInt64?)
    /// More than 16 digits after `0x`.
    case tooLong
    /// Anything else, the empty string included.
    case malformed

    /// What, why and what to do, for people.
    public var text: String {
      switch self {
      case .decimal(let value):
        if let value {
          "decimal is not accepted; write \"\(Hex.string(value))\""
        } else {
          "decimal is not accepted, and the number does not fit 64 bits; write 0x and up to 16 hexadecimal digits"
        }
      case .tooLong: "more than 16 hexadecimal digits; the number must fit 64 bits"
      case .malformed:
        "not a hexadecimal number; write 0x and 1 to 16 hexadecimal digits, for example \"0x7f5a00001000\""
      }
    }
  }

  /// Reads the bytes of a whole field.
  @inline(__always)
  public static func parse(_ bytes: UnsafeBufferPointer<UInt8>) throws(ParseError) -> UInt64 {
    let count = bytes.count
    guard count >= 3, count <= 18, bytes[0] == 0x30, bytes[1] == 0x78 else { throw reject(bytes) }
    var value: UInt64 = 0
    for index in 2..<count {
      let digit = digits[Int(bytes[index])]
      guard digit < 16 else { throw .malformed }
      value = value << 4 | UInt64(digit)
    }
    return value
  }

  /// Reads a whole field.
  public static func parse(_ text: String) throws(ParseError) -> UInt64 {
    var text = text
    let result: Result<UInt64, ParseError> = text.withUTF8 { bytes in
      do throws(ParseError) { return .success(try parse(bytes)) } catch { return .failure(error) }
    }
    return try result.get()
  }

  /// The canonical form.
  public static func string(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }

  /// Digits of the canonical form, without `0x`.
  @inline(__always)
  static func digitCount(_ value: UInt64) -> Int {
    value == 0 ? 1 : (64 - value.leadingZeroBitCount + 3) >> 2
  }

  /// Eight digits with leading zeros, the first in the lowest byte.
  @inline(__always)
  static func eightDigits(_ value: UInt32) -> UInt64 {
    let ones: UInt64 = 0x0101_0101_0101_0101
    var nibbles = UInt64(value.byteSwapped)
    nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff
    nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff
    nibbles = nibbles >> 4 & 0x000f_000f_000f_000f | (nibbles & 0x000f_000f_000f_000f) << 8
    let letters = (nibbles &+ ones &* 6) >> 4 & ones
    return nibbles &+ ones &* 0x30 &+ letters &* 0x27
  }

  /// The value of eight nibbles, one in each byte, the first in the lowest.
  @inlinable @inline(__always)
  static func value(eightNibbles nibbles: UInt64) -> UInt32 {
    let pairs = (nibbles << 4 | nibbles >> 8) & 0x00ff_00ff_00ff_00ff
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff
    return UInt32(truncatingIfNeeded: fours | fours >> 16).byteSwapped
  }

  @inline(never)
  private static func reject(_ bytes: UnsafeBufferPointer<UInt8>) -> ParseError {
    if bytes.count > 18, bytes[0] == 0x30, bytes[1] == 0x78 {
      return bytes[2...].allSatisfy({ digits[Int($0)] < 16 }) ? .tooLong : .malformed
    }
    guard !bytes.isEmpty, bytes.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return .malformed }
    var value: UInt64? = 0
    for byte in bytes {
      guard let soFar = value else { break }
      let (product, overflow) = soFar.multipliedReportingOverflow(by: 10)
      let (sum, carry) = product.addingReportingOverflow(UInt64(byte - 0x30))
      value = overflow || carry ? nil : sum
    }
    return .decimal(value)
  }

  /// Value of each byte as a hexadecimal digit; 255: none.
  @usableFromInline
  static let digits: InlineArray<256, UInt8> = {
    var table = InlineArray<256, UInt8>(repeating: 255)
    for digit in 0..<10 { table[0x30 + digit] = UInt8(digit) }
    for digit in 10..<16 {
      table[0x61 + digit - 10] = UInt8(digit)
      table[0x41 + digit - 10] = UInt8(digit)
    }
    return table
  }()
}
