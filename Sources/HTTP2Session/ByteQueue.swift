// SPDX-License-Identifier: Apache-2.0

import Glibc

/// A first-in first-out run of bytes in one block of `HTTP2Memory`; it owns no block while it is empty, so an idle stream
/// costs nothing.
struct ByteQueue {
  private(set) var base: UnsafeMutableRawPointer?
  private var head = 0
  private var tail = 0

  var count: Int { tail - head }
  var first: UnsafeMutableRawPointer { base! + head }

  /// Room for `count` more bytes at the end; `commit` makes them part of the queue. The pointer is valid until the next call.
  @inline(__always)
  mutating func reserve(_ count: Int, _ memory: UnsafeMutablePointer<HTTP2Memory>) -> UnsafeMutableRawPointer {
    if base == nil, let block = memory.pointee.allocate(max(count, 256)) {
      base = block
      return block
    }
    let capacity = base.map { HTTP2Memory.capacity(of: $0) } ?? 0
    if base == nil || tail + count > capacity { makeRoom(count, capacity, memory) }
    return base! + tail
  }

  mutating func commit(_ count: Int) { tail += count }

  mutating func removeFirst(_ count: Int, _ memory: UnsafeMutablePointer<HTTP2Memory>) {
    head += count
    if head == tail { removeAll(memory) }
  }

  /// Keeps the first `count` bytes.
  mutating func truncate(_ count: Int, _ memory: UnsafeMutablePointer<HTTP2Memory>) {
    if count == 0 { removeAll(memory) } else { tail = head + count }
  }

  mutating func removeAll(_ memory: UnsafeMutablePointer<HTTP2Memory>) {
    memory.pointee.deallocate(base)
    base = nil
    head = 0
    tail = 0
  }

  @inline(never)
  private mutating func makeRoom(_ count: Int, _ capacity: Int, _ memory: UnsafeMutablePointer<HTTP2Memory>) {
    let used = tail - head
    if let base, used + count <= capacity, head >= capacity / 2 {
      memmove(base, base + head, used)
    } else {
      let wanted = max(used + count, max(256, capacity * 2))
      guard let grown = memory.pointee.allocate(wanted) else { fatalError("out of memory: \(wanted) bytes") }
      if used > 0 { memcpy(grown, base! + head, used) }
      memory.pointee.deallocate(base)
      base = grown
    }
    head = 0
    tail = used
  }
}

/// A reused growing run of bytes, cleared once per batch. What one huge batch made it grow to is given back.
public struct ByteStorage {
  @usableFromInline var base: UnsafeMutableRawPointer
  private var capacity: Int
  @usableFromInline var used = 0

  @inlinable public var count: Int { used }

  /// Capacity in bytes that survives `removeAll`.
  private static let kept = 1 << 20

  init(capacity: Int) {
    base = .allocate(byteCount: capacity, alignment: 16)
    self.capacity = capacity
  }

  func destroy() { base.deallocate() }

  /// The bytes; valid until the next change.
  @inlinable public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

  @inline(__always)
  public mutating func append(_ source: UnsafeRawPointer, _ length: Int) {
    if capacity &- used < length { grow(used + length) }
    memcpy(base + used, source, length)
    used &+= length
  }

  public mutating func removeAll() {
    used = 0
    if capacity > ByteStorage.kept {
      base.deallocate()
      capacity = 64 << 10
      base = .allocate(byteCount: capacity, alignment: 16)
    }
  }

  @inline(never)
  private mutating func grow(_ wanted: Int) {
    let larger = max(wanted, capacity * 2)
    let grown = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 16)
    memcpy(grown, base, used)
    base.deallocate()
    base = grown
    capacity = larger
  }
}
