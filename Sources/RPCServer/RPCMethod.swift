// SPDX-License-Identifier: Apache-2.0

import Glibc

/// One method of the service, as data. Its index in the table is the method's number in every event.
public struct RPCMethod: Sendable {
  public enum Kind: UInt8, Sendable {
    case unary, serverStream, clientStream, bidi
  }

  /// `/package.Service/Method`, case-sensitive.
  public var path: String
  public var kind: Kind
  /// `idempotency_level = NO_SIDE_EFFECTS`: the method may be called with GET.
  public var isSideEffectFree: Bool

  public init(_ path: String, _ kind: Kind, sideEffectFree: Bool = false) {
    self.path = path
    self.kind = kind
    isSideEffectFree = sideEffectFree
  }
}

public enum RPCCodec: UInt8, Sendable {
  case json, proto
}

/// How messages lie in the bodies of a call.
public enum RPCFraming: UInt8, Sendable {
  /// Connect unary: the body is the bare message (or the `message` of a GET).
  case unary
  /// Connect streaming: 1 byte of flags, 4 bytes of big-endian length, message.
  case connect
  /// One JSON message per line.
  case ndjson
}

/// Paths to indexes: open addressing over the last eight bytes and the length, no String and no hash of the whole path.
struct MethodTable {
  struct Entry {
    var path: UnsafeRawBufferPointer
    var index: UInt16
    var kind: RPCMethod.Kind
    var isSideEffectFree: Bool
  }

  private let entries: UnsafeMutablePointer<Entry?>
  private let mask: Int

  /// The table lives as long as the process.
  init(_ methods: [RPCMethod]) {
    precondition(methods.count < 1 << 15, "too many methods")
    var capacity = 16
    while capacity < methods.count * 4 { capacity *= 2 }
    entries = .allocate(capacity: capacity)
    entries.initialize(repeating: nil, count: capacity)
    mask = capacity - 1
    for (index, method) in methods.enumerated() {
      precondition(method.path.hasPrefix("/") && method.path.utf8.count >= 8, "not a method path: \(method.path)")
      let bytes = Array(method.path.utf8)
      let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
      copy.copyBytes(from: bytes)
      let path = UnsafeRawBufferPointer(copy)
      precondition(find(path) == nil, "path twice: \(method.path)")
      var slot = self.slot(path)
      while entries[slot] != nil { slot = (slot + 1) & mask }
      entries[slot] = Entry(
        path: path, index: UInt16(index), kind: method.kind, isSideEffectFree: method.isSideEffectFree)
    }
  }

  @inline(__always)
  private func slot(_ path: UnsafeRawBufferPointer) -> Int {
    let tail = path.loadUnaligned(fromByteOffset: path.count - 8, as: UInt64.self)
    let mixed = (tail ^ UInt64(path.count) &* 0x9E37_79B9_7F4A_7C15) &* 0xD6E8_FEB8_6659_FD93
    return Int(truncatingIfNeeded: mixed >> 40) & mask
  }

  @inline(__always)
  func find(_ path: UnsafeRawBufferPointer) -> Entry? {
    guard path.count >= 8 else { return nil }
    var slot = self.slot(path)
    while let entry = entries[slot] {
      if entry.path.count == path.count, memcmp(entry.path.baseAddress!, path.baseAddress!, path.count) == 0 {
        return entry
      }
      slot = (slot + 1) & mask
    }
    return nil
  }
}
