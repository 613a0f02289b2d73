// SPDX-License-Identifier: Apache-2.0

/// Writes JSON into one block of memory that it owns and keeps. Absent fields are the default values, as in proto3 JSON;
/// required hex fields are always written.
///
/// Not safe to share; its bytes are valid until the next change.
public struct WireWriter: ~Copyable {
  private var base: UnsafeMutablePointer<UInt8>
  public private(set) var count = 0
  private var capacity: Int
  /// Whether a comma is due before the next field or element.
  var needsComma = false

  public init(capacity: Int = 4096) {
    self.capacity = max(capacity, 512)
    base = .allocate(capacity: self.capacity)
  }

  deinit { base.deallocate() }

  /// What was written since `clear`.
  public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

  /// Starts anew. A block that has grown beyond 1 MiB is given back.
  public mutating func clear() {
    count = 0
    needsComma = false
    if capacity > 1 << 20 {
      base.deallocate()
      capacity = 64 << 10
      base = .allocate(capacity: capacity)
    }
  }

  /// Makes room for `bytes` more; every function below relies on it.
  @inline(__always)
  mutating func reserve(_ bytes: Int) {
    if capacity - count < bytes { grow(bytes) }
  }

  @inline(never)
  private mutating func grow(_ bytes: Int) {
    capacity = max(capacity * 2, count + bytes)
    let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
    larger.update(from: base, count: count)
    base.deallocate()
    base = larger
  }

  // MARK: - Pieces, within what was reserved

  @inline(__always)
  mutating func byte(_ byte: UInt8) {
    base[count] = byte
    count += 1
  }

  @inline(__always)
  mutating func literal(_ text: StaticString) {
    let length = text.utf8CodeUnitCount
    (base + count).update(from: text.utf8Start, count: length)
    count += length
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
    var place = base + count + digits
    for _ in 0..<digits {
      place -= 1
      let quotient = rest / 10
      place.pointee = 0x30 + UInt8(truncatingIfNeeded: rest &- quotient &* 10)
      rest = quotient
    }
    count += digits
  }

  /// With quotes.
  @inline(__always)
  mutating func hex(_ value: UInt64) {
    byte(0x22)
    byte(0x30)
    byte(0x78)
    let digits = Hex.digitCount(value)
    var shift = UInt64(digits) &* 4
    let place = base + count
    for index in 0..<digits {
      shift &-= 4
      let nibble = UInt8(truncatingIfNeeded: value &>> shift) & 0xf
      place[index] = nibble &+ 0x30 &+ (nibble > 9 ? 0x27 : 0)
    }
    count += digits
    byte(0x22)
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
    literal(value.suffix)
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
