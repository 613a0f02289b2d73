// SPDX-License-Identifier: Apache-2.0

/// Walks over JSON text without a copy. Accepts what the generated codec accepts (proto3 JSON), except that it leaves
/// rare spellings — escapes and bytes beyond ASCII in strings, floating-point notation of integers, enum numbers — to the
/// generated codec by `unusual`.
struct JSONCursor {
  private var next: UnsafePointer<UInt8>
  private let end: UnsafePointer<UInt8>
  /// The list element that is being read, for errors.
  var element = -1

  @inline(__always)
  init(_ bytes: UnsafeBufferPointer<UInt8>) {
    // An empty buffer may have no base address; any address will do for an empty text.
    next = bytes.baseAddress ?? UnsafePointer(bitPattern: 1)!
    end = next + bytes.count
  }

  // MARK: - Errors

  @inline(never)
  func error(_ problem: WireError.Problem, _ field: JSONField = .unknown) -> WireError {
    WireError(problem, field: field == .unknown ? "" : field.name, element: element)
  }

  // MARK: - Tokens

  @inline(__always)
  private mutating func skipSpace() {
    if next < end, next.pointee <= 0x20 { skipSpaces() }
  }

  @inline(never)
  private mutating func skipSpaces() {
    while next < end {
      let byte = next.pointee
      guard byte == 0x20 || byte == 0x0a || byte == 0x0d || byte == 0x09 else { return }
      next += 1
    }
  }

  /// Consumes `byte` when it comes next, after white space.
  @inline(__always)
  mutating func take(_ byte: UInt8) -> Bool {
    skipSpace()
    guard next < end, next.pointee == byte else { return false }
    next += 1
    return true
  }

  @inline(__always)
  mutating func require(_ byte: UInt8, _ field: JSONField = .unknown) throws(WireError) {
    guard take(byte) else { throw error(.malformed, field) }
  }

  /// Nothing but white space follows.
  @inline(__always)
  mutating func requireEnd() throws(WireError) {
    skipSpace()
    guard next == end else { throw error(.trailingBytes) }
  }

  /// Consumes `null` when it comes next.
  @inline(__always)
  mutating func takeNull() -> Bool {
    skipSpace()
    guard next < end, next.pointee == 0x6e else { return false }
    return takeWord("null")
  }

  private mutating func takeWord(_ word: StaticString) -> Bool {
    let count = word.utf8CodeUnitCount
    guard end - next >= count else { return false }
    for index in 0..<count where next[index] != word.utf8Start[index] { return false }
    if end - next > count {
      let after = next[count] | 0x20
      if after >= 0x61 && after <= 0x7a { return false }
    }
    next += count
    return true
  }

  // MARK: - Objects and lists

  /// Consumes `{`; false when the object is empty and is consumed whole.
  @inline(__always)
  mutating func beginObject(_ field: JSONField = .unknown) throws(WireError) -> Bool {
    try require(0x7b, field)
    return !take(0x7d)
  }

  /// After a field: false when the object ends here.
  @inline(__always)
  mutating func nextField() throws(WireError) -> Bool {
    if take(0x2c) { return true }
    try require(0x7d)
    return false
  }

  /// Consumes `[`; false when the list is empty and is consumed whole.
  @inline(__always)
  mutating func beginList(_ field: JSONField) throws(WireError) -> Bool {
    try require(0x5b, field)
    return !take(0x5d)
  }

  /// After an element: false when the list ends here.
  @inline(__always)
  mutating func nextElement() throws(WireError) -> Bool {
    if take(0x2c) { return true }
    try require(0x5d)
    return false
  }

  /// A field's name and the colon. `name` is good for `unknown(_:)`. Not inlined, so that its callers stay small.
  @inline(never)
  mutating func field() throws(WireError) -> (field: JSONField, name: UnsafeBufferPointer<UInt8>) {
    try require(0x22)
    let start = next
    var head: UInt64 = 0
    var count = 0
    if end - start > 8 {
      head = UInt64(littleEndian: UnsafeRawPointer(start).loadUnaligned(as: UInt64.self))
      count = Self.plainCount(head)
      if count < 8 { head &= (1 &<< UInt64(truncatingIfNeeded: count &* 8)) &- 1 }
      next = start + count
    }
    if next == end || next.pointee != 0x22 { head = try restOfName(from: start, head) }
    let name = UnsafeBufferPointer(start: start, count: next - start)
    next += 1
    try require(0x3a)
    return (JSONField(head: head, bytes: name), name)
  }

  /// As `field()`, but tries names in their plain spelling before it looks anything up: few comparisons of words find
  /// the next field of a text that was written in the order of the contract. The names must be fields of the message.
  @inline(__always)
  mutating func field(
    likely first: JSONField, _ second: JSONField, _ third: JSONField, _ fourth: JSONField = .unknown,
    _ fifth: JSONField = .unknown, _ sixth: JSONField = .unknown
  ) throws(WireError) -> (field: JSONField, name: UnsafeBufferPointer<UInt8>) {
    let none = UnsafeBufferPointer<UInt8>(start: nil, count: 0)
    if take(plain: first) { return (first, none) }
    if take(plain: second) { return (second, none) }
    if take(plain: third) { return (third, none) }
    if fourth != .unknown, take(plain: fourth) { return (fourth, none) }
    if fifth != .unknown, take(plain: fifth) { return (fifth, none) }
    if sixth != .unknown, take(plain: sixth) { return (sixth, none) }
    return try field()
  }

  /// Consumes a name with quotes and colon, without white space. As the name is a constant, so are its words.
  @inline(__always)
  mutating func take(plain field: JSONField) -> Bool {
    let text = field.quoted
    let count = text.utf8CodeUnitCount
    guard end - next > count else { return false }
    let (mine, its) = (UnsafeRawPointer(next), UnsafeRawPointer(text.utf8Start))
    if count < 8 {
      guard
        mine.loadUnaligned(as: UInt32.self) == its.loadUnaligned(as: UInt32.self),
        (mine + (count - 4)).loadUnaligned(as: UInt32.self) == (its + (count - 4)).loadUnaligned(as: UInt32.self)
      else { return false }
    } else {
      guard
        mine.loadUnaligned(as: UInt64.self) == its.loadUnaligned(as: UInt64.self),
        (mine + (count - 8)).loadUnaligned(as: UInt64.self) == (its + (count - 8)).loadUnaligned(as: UInt64.self)
      else { return false }
    }
    next += count
    return true
  }

  /// Goes on to the quote that ends a name; `head` holds its bytes up to here, at most eight. Returns the first eight.
  @inline(never)
  private mutating func restOfName(from start: UnsafePointer<UInt8>, _ head: UInt64) throws(WireError) -> UInt64 {
    var head = head
    while next < end {
      let byte = next.pointee
      if byte == 0x22 { return head }
      if byte == 0x5c { throw error(.unusual) }
      if byte < 0x20 { throw error(.malformed) }
      head |= UInt64(byte) << UInt64((next - start) * 8)  // a shift beyond 63 gives 0
      next += 1
    }
    throw error(.malformed)
  }

  /// How many of eight bytes, the first in the lowest byte, stand before a quote, a backslash or a control character.
  @inline(__always)
  private static func plainCount(_ word: UInt64) -> Int {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let quote = word ^ (ones &* 0x22)
    let backslash = word ^ (ones &* 0x5c)
    // A borrow runs upwards only, so the lowest high bit is right, and it is the one that counts.
    let stops = (quote &- ones) & ~quote | (backslash &- ones) & ~backslash | (word &- ones &* 0x20) & ~word
    return (stops & (ones &* 0x80)).trailingZeroBitCount >> 3
  }

  @inline(never)
  func unknown(_ name: UnsafeBufferPointer<UInt8>) -> WireError {
    error(.unknownField(String(decoding: name.prefix(64), as: UTF8.self)))
  }

  // MARK: - Values

  /// The bytes between the quotes of a string.
  @inline(__always)
  mutating func string(_ field: JSONField) throws(WireError) -> UnsafeBufferPointer<UInt8> {
    try require(0x22, field)
    let start = next
    while next < end {
      let byte = next.pointee
      if byte == 0x22 {
        let text = UnsafeBufferPointer(start: start, count: next - start)
        next += 1
        return text
      }
      if byte == 0x5c || byte >= 0x80 { throw error(.unusual, field) }
      if byte < 0x20 { throw error(.malformed, field) }
      next += 1
    }
    throw error(.malformed, field)
  }

  /// The bytes of what may be a string of `count` bytes, not consumed: quotes stand before and behind them.
  @inline(__always)
  mutating func quoted(count: Int) -> UnsafeBufferPointer<UInt8>? {
    skipSpace()
    guard end - next > count + 1, next[0] == 0x22, next[count + 1] == 0x22 else { return nil }
    return UnsafeBufferPointer(start: next + 1, count: count)
  }

  /// Consumes a string that `quoted` gave and that holds nothing but letters, digits and hyphens.
  @inline(__always)
  mutating func take(quoted text: UnsafeBufferPointer<UInt8>) { next += text.count + 2 }

  /// A hex field; nil: absent (`null` or the empty string).
  @inline(__always)
  mutating func hex(_ field: JSONField) throws(WireError) -> UInt64? {
    if takeNull() { return nil }
    try require(0x22, field)
    let start = next
    // Up to eight digits at once, then up to eight more.
    if end - next > 10, next[0] == 0x30, next[1] == 0x78 {
      let (first, count) = Self.hexDigits(UnsafeRawPointer(next + 2))
      next += 2 + count
      var value = first
      if count == 8, end - next > 8 {
        let (second, more) = Self.hexDigits(UnsafeRawPointer(next))
        next += more
        value = value << UInt64(truncatingIfNeeded: more &* 4) | second
      }
      if next.pointee == 0x22, count > 0 {
        next += 1
        return value
      }
    }
    next = start - 1
    return try oddHex(field)
  }

  /// The hexadecimal digits at the start of eight bytes: their value and how many they are.
  @inline(__always)
  private static func hexDigits(_ bytes: UnsafeRawPointer) -> (value: UInt64, count: Int) {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let highs = ones &* 0x80
    let text = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
    // Sums of seven-bit bytes stay within their bytes; a byte with its high bit set is no digit anyway.
    let low = text & ~highs
    let lower = low | ones &* 0x20
    let digits = (low &+ ones &* (0x80 - 0x30)) & ~(low &+ ones &* (0x80 - 0x3a))
    let letters = (lower &+ ones &* (0x80 - 0x61)) & ~(lower &+ ones &* (0x80 - 0x67))
    let count = (~(digits | letters) & highs | text & highs).trailingZeroBitCount >> 3
    if count == 0 { return (0, 0) }
    // Digits to the top, so that those before them read as zeros.
    let nibbles = (text & (ones &* 0xf)) &+ ((text >> 6) & ones) &* 9
    let shifted = nibbles &<< UInt64(truncatingIfNeeded: (8 &- count) &* 8)
    return (UInt64(Hex.value(eightNibbles: shifted)), count)
  }

  @inline(never)
  private mutating func oddHex(_ field: JSONField) throws(WireError) -> UInt64? {
    let text = try string(field)
    if text.isEmpty { return nil }
    do throws(Hex.ParseError) { return try Hex.parse(text) } catch { throw self.error(.hex(error), field) }
  }

  /// An unsigned integer, bare or quoted; `null` is 0.
  @inline(__always)
  mutating func uint(_ field: JSONField, max: UInt64) throws(WireError) -> UInt64 {
    if takeNull() { return 0 }
    let quoted = next < end && next.pointee == 0x22
    if quoted { next += 1 }
    guard next < end, next.pointee &- 0x30 < 10 else {
      throw error(next < end && next.pointee == 0x5c ? .unusual : .malformed, field)
    }
    var value = UInt64(next.pointee - 0x30)
    next += 1
    while next < end {
      let digit = next.pointee &- 0x30
      guard digit < 10 else { break }
      if value == 0 { throw error(.malformed, field) }  // leading zero
      let (product, overflow) = value.multipliedReportingOverflow(by: 10)
      let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
      if overflow || carry { throw error(.outOfRange, field) }
      value = sum
      next += 1
    }
    if next < end {
      let byte = next.pointee
      if byte == 0x2e || byte | 0x20 == 0x65 || (quoted && byte == 0x5c) { throw error(.unusual, field) }
      if quoted {
        guard byte == 0x22 else { throw error(.malformed, field) }
        next += 1
      }
    } else if quoted {
      throw error(.malformed, field)
    }
    guard value <= max else { throw error(.outOfRange, field) }
    return value
  }

  @inline(__always)
  mutating func uint32(_ field: JSONField) throws(WireError) -> UInt32 {
    UInt32(truncatingIfNeeded: try uint(field, max: UInt64(UInt32.max)))
  }

  @inline(__always)
  mutating func uint64(_ field: JSONField) throws(WireError) -> UInt64 { try uint(field, max: .max) }

  /// `null` is false.
  @inline(__always)
  mutating func bool(_ field: JSONField) throws(WireError) -> Bool {
    skipSpace()
    if next < end {
      switch next.pointee {
      case 0x74: if takeWord("true") { return true }
      case 0x66: if takeWord("false") { return false }
      case 0x6e: if takeWord("null") { return false }
      default: break
      }
    }
    throw error(.malformed, field)
  }

  /// An enum's name without `prefix`; nil: absent. Numbers are left to the generated codec.
  @inline(__always)
  mutating func enumName(_ field: JSONField, prefix: StaticString) throws(WireError) -> UnsafeBufferPointer<UInt8>? {
    if takeNull() { return nil }
    guard next < end, next.pointee == 0x22 else { throw error(.unusual, field) }
    let text = try string(field)
    let count = prefix.utf8CodeUnitCount
    guard text.count > count else { throw error(.unknownValue, field) }
    for index in 0..<count where text[index] != prefix.utf8Start[index] { throw error(.unknownValue, field) }
    return UnsafeBufferPointer(rebasing: text[count...])
  }
}
