// SPDX-License-Identifier: Apache-2.0

/// Writes JSON into one block of memory that it owns and keeps. Absent fields are the default values, as in proto3 JSON;
/// required hex fields are always written.
///
/// Not safe to share; its bytes are valid until the next change.
public struct WireWriter: ~Copyable {
  private var base: UnsafeMutablePointer<UInt8>
  /// Where the next byte goes. Pointers, not counts: adding to them needs no overflow check.
  private var next: UnsafeMutablePointer<UInt8>
  private var end: UnsafeMutablePointer<UInt8>
  /// Whether a comma is due before the next field or element.
  var needsComma = false

  public init(capacity: Int = 4096) {
    base = .allocate(capacity: max(capacity, 512))
    next = base
    end = base + max(capacity, 512)
  }

  deinit { base.deallocate() }

  public var count: Int { next - base }

  /// What was written since `clear`.
  public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

  /// Starts anew. A block that has grown beyond 1 MiB is given back.
  @inline(__always)
  public mutating func clear() {
    next = base
    needsComma = false
    if end - base > 1 << 20 { replace(64 << 10) }
  }

  /// Makes room for `bytes` more; every function below relies on it.
  @inline(__always)
  mutating func reserve(_ bytes: Int) {
    if end - next < bytes { replace(max((end - base) * 2, count + bytes)) }
  }

  /// Moves to another block.
  @inline(never)
  private mutating func replace(_ capacity: Int) {
    let count = count
    let block = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
    block.update(from: base, count: count)
    base.deallocate()
    base = block
    next = block + count
    end = block + capacity
  }

  // MARK: - Pieces, within what was reserved

  @inline(__always)
  mutating func byte(_ byte: UInt8) {
    next.pointee = byte
    next += 1
  }

  @inline(__always)
  mutating func literal(_ text: StaticString) {
    let length = text.utf8CodeUnitCount
    UnsafeMutableRawPointer(next).copyMemory(from: text.utf8Start, byteCount: length)
    next += length
  }

  /// A comma when one is due, then `name`, which holds quotes and colon.
  @inline(__always)
  mutating func field(_ name: StaticString) {
    if needsComma { byte(0x2c) }
    needsComma = true
    literal(name)
  }

  @inline(__always)
  mutating func decimal(_ value: UInt64) {
    if value < 10 {
      byte(0x30 + UInt8(truncatingIfNeeded: value))
      return
    }
    var digits = 2
    var bound: UInt64 = 100
    while digits < 20, value >= bound {
      digits += 1
      let (next, overflow) = bound.multipliedReportingOverflow(by: 10)
      if overflow { break }
      bound = next
    }
    var rest = value
    var place = next + digits
    for _ in 0..<digits {
      place -= 1
      let quotient = rest / 10
      place.pointee = 0x30 + UInt8(truncatingIfNeeded: rest &- quotient &* 10)
      rest = quotient
    }
    next += digits
  }

  /// With quotes. Eight digits are made at once; bytes behind the last one are written over later, within what was
  /// reserved.
  @inline(__always)
  mutating func hex(_ value: UInt64) {
    literal("\"0x")
    let count = Hex.digitCount(value)
    if count > 8 {
      put(Hex.eightDigits(UInt32(truncatingIfNeeded: value >> 32)), last: count - 8)
      put(Hex.eightDigits(UInt32(truncatingIfNeeded: value)), last: 8)
    } else {
      put(Hex.eightDigits(UInt32(truncatingIfNeeded: value)), last: count)
    }
    byte(0x22)
  }

  /// The last `count` of eight bytes, the first in the lowest byte.
  @inline(__always)
  private mutating func put(_ eight: UInt64, last count: Int) {
    let bytes = eight &>> UInt64(truncatingIfNeeded: (8 &- count) &* 8)
    UnsafeMutableRawPointer(next).storeBytes(of: bytes.littleEndian, as: UInt64.self)
    next += count
  }

  // MARK: - Fields

  @inline(__always)
  mutating func uint(_ name: StaticString, _ value: UInt32) {
    if value == 0 { return }
    field(name)
    decimal(UInt64(value))
  }

  /// 64 bits stand in quotes.
  @inline(__always)
  mutating func uint64(_ name: StaticString, _ value: UInt64) {
    if value == 0 { return }
    field(name)
    byte(0x22)
    decimal(value)
    byte(0x22)
  }

  @inline(__always)
  mutating func bool(_ name: StaticString, _ value: Bool) {
    if !value { return }
    field(name)
    literal("true")
  }

  /// A required hex field.
  @inline(__always)
  mutating func hex(_ name: StaticString, _ value: UInt64) {
    field(name)
    hex(value)
  }

  /// A hex field that is absent when 0.
  @inline(__always)
  mutating func optionalHex(_ name: StaticString, _ value: UInt64) {
    if value != 0 { hex(name, value) }
  }

  @inline(__always)
  mutating func value<Value: WireEnum>(_ name: StaticString, _ value: Value) {
    field(name)
    byte(0x22)
    literal(Value.prefix)
    // The first name is the one that is nearly always written; as a constant it needs no call.
    if value.rawValue == 1, let first = Value(rawValue: 1) {
      literal(first.suffix)
    } else {
      literal(value.suffix)
    }
    byte(0x22)
  }

  /// A string of any content and length; reserves for itself.
  mutating func string(_ name: StaticString, _ text: String) {
    reserve(name.utf8CodeUnitCount + 3 + text.utf8.count * 6)
    field(name)
    byte(0x22)
    for unit in text.utf8 {
      switch unit {
      case 0x22, 0x5c:
        byte(0x5c)
        byte(unit)
      case 0..<0x20, 0x7f:
        literal("\\u00")
        byte(0x30 + unit >> 4)
        byte((unit & 0xf) + (unit & 0xf > 9 ? 0x57 : 0x30))
      default: byte(unit)
      }
    }
    byte(0x22)
  }
}
