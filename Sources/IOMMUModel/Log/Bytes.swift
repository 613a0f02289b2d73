// SPDX-License-Identifier: Apache-2.0

/// Bytes of logs, snapshots and state hashes: unsigned LEB128 numbers, and nothing else.
public struct ByteEncoder: Sendable {
  public private(set) var bytes: [UInt8] = []
  public init() {}

  @inline(__always)
  mutating func put(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    bytes.append(UInt8(rest))
  }
  @inline(__always) mutating func put(_ value: some BinaryInteger) { put(UInt64(truncatingIfNeeded: value)) }
  mutating func put(_ value: Bool) { put(value ? 1 : 0) }
  mutating func put(_ text: String) {
    put(text.utf8.count)
    bytes.append(contentsOf: text.utf8)
  }
  mutating func put(raw: [UInt8]) { bytes.append(contentsOf: raw) }
  /// Empties the buffer and keeps its storage.
  public mutating func removeAll() { bytes.removeAll(keepingCapacity: true) }
}

/// Why a log could not be read.
public enum LogError: Error, Equatable, Sendable {
  case notALog
  case unknownVersion(UInt64)
  /// The bytes end inside an entry, which begins at `offset`: a torn tail. Everything before is whole.
  case torn(offset: Int)
  case malformed(offset: Int)
  /// The replayed machine answered otherwise than the recorded one.
  case diverged(entry: Int)
}

/// Reads what `ByteEncoder` wrote.
public struct ByteDecoder: Sendable {
  let bytes: [UInt8]
  public private(set) var offset = 0
  public init(_ bytes: [UInt8]) { self.bytes = bytes }
  public var isAtEnd: Bool { offset == bytes.count }

  mutating func number() throws(LogError) -> UInt64 {
    var value: UInt64 = 0
    var shift: UInt64 = 0
    while true {
      guard offset < bytes.count else { throw .torn(offset: offset) }
      let byte = bytes[offset]
      offset += 1
      guard shift < 64, shift < 63 || byte & 0x7e == 0 else { throw .malformed(offset: offset) }
      value |= UInt64(byte & 0x7f) << shift
      if byte < 0x80 { return value }
      shift += 7
    }
  }
  mutating func number<T: FixedWidthInteger>(_ type: T.Type) throws(LogError) -> T {
    guard let value = T(exactly: try number()) else { throw .malformed(offset: offset) }
    return value
  }
  mutating func flag() throws(LogError) -> Bool { try number() != 0 }
  mutating func value<T: RawRepresentable>(_ type: T.Type) throws(LogError) -> T where T.RawValue: FixedWidthInteger {
    guard let value = T(rawValue: try number(T.RawValue.self)) else { throw .malformed(offset: offset) }
    return value
  }
  mutating func text() throws(LogError) -> String {
    let count = try number(Int.self)
    guard count <= bytes.count - offset else { throw .torn(offset: offset) }
    defer { offset += count }
    return String(decoding: bytes[offset..<offset + count], as: UTF8.self)
  }
  mutating func raw(_ count: Int) throws(LogError) -> [UInt8] {
    guard count <= bytes.count - offset else { throw .torn(offset: offset) }
    defer { offset += count }
    return Array(bytes[offset..<offset + count])
  }
}
