// SPDX-License-Identifier: Apache-2.0
import CNghttp2
import Glibc

/// Memory for one thread: free lists of 64-byte size classes up to 32 KiB, malloc above.
///
/// libnghttp2 allocates about six small blocks per request; a free list makes each of them a few instructions. Layout: a
/// 16-byte header before each block holds its capacity, so that `free` needs no size. Blocks stay on the thread that took
/// them. At most `retainedLimit` bytes stay in the lists; what is above goes back to malloc.
struct HTTP2Memory {
  private static let headerBytes = 16
  private static let classBytes = 64
  private static let classCount = 512
  private static let largestClass = classBytes * classCount
  private static let retainedLimit = 64 << 20

  private let lists: UnsafeMutablePointer<UnsafeMutableRawPointer?>
  private var retained = 0

  init() {
    lists = .allocate(capacity: HTTP2Memory.classCount)
    lists.initialize(repeating: nil, count: HTTP2Memory.classCount)
  }

  /// Gives every retained block back. Blocks still in use must not be freed through this value afterwards.
  mutating func destroy() {
    for index in 0..<HTTP2Memory.classCount {
      while let block = lists[index] {
        lists[index] = block.load(as: UnsafeMutableRawPointer?.self)
        free(block - HTTP2Memory.headerBytes)
      }
    }
    lists.deallocate()
  }

  /// A block of at least `count` bytes, aligned to 16; nil only when malloc fails or `count` is 0.
  @inline(__always)
  mutating func allocate(_ count: Int) -> UnsafeMutableRawPointer? {
    let index = (count &- 1) >> 6
    guard UInt(bitPattern: index) < UInt(HTTP2Memory.classCount), let block = lists[index] else {
      return fresh(count)
    }
    lists[index] = block.load(as: UnsafeMutableRawPointer?.self)
    retained &-= (index &+ 1) << 6
    return block
  }

  @inline(__always)
  mutating func deallocate(_ block: UnsafeMutableRawPointer?) {
    guard let block else { return }
    let capacity = HTTP2Memory.capacity(of: block)
    if capacity <= HTTP2Memory.largestClass, retained &+ capacity <= HTTP2Memory.retainedLimit {
      let index = (capacity &- 1) >> 6
      block.storeBytes(of: lists[index], as: UnsafeMutableRawPointer?.self)
      lists[index] = block
      retained &+= capacity
    } else {
      free(block - HTTP2Memory.headerBytes)
    }
  }

  /// The same contents in a block of at least `count` bytes; nil leaves the old block as it was.
  mutating func reallocate(_ block: UnsafeMutableRawPointer?, _ count: Int) -> UnsafeMutableRawPointer? {
    guard let block else { return allocate(count) }
    let capacity = HTTP2Memory.capacity(of: block)
    if count <= capacity { return block }
    guard let grown = allocate(count) else { return nil }
    memcpy(grown, block, capacity)
    deallocate(block)
    return grown
  }

  static func capacity(of block: UnsafeMutableRawPointer) -> Int {
    (block - headerBytes).load(as: Int.self)
  }

  @inline(never)
  private func fresh(_ count: Int) -> UnsafeMutableRawPointer? {
    if count <= 0 { return nil }
    let step = HTTP2Memory.classBytes
    let capacity = count <= HTTP2Memory.largestClass ? (count + step - 1) / step * step : count
    guard let base = malloc(capacity + HTTP2Memory.headerBytes) else { return nil }
    base.storeBytes(of: capacity, as: Int.self)
    return base + HTTP2Memory.headerBytes
  }
}

extension HTTP2Memory {
  /// The allocator as libnghttp2 wants it. `memory` must outlive every session that uses it.
  static func nghttp2(_ memory: UnsafeMutablePointer<HTTP2Memory>) -> nghttp2_mem {
    nghttp2_mem(
      mem_user_data: UnsafeMutableRawPointer(memory),
      malloc: { count, user in
        user.unsafelyUnwrapped.assumingMemoryBound(to: HTTP2Memory.self).pointee.allocate(count)
      },
      free: { block, user in
        user.unsafelyUnwrapped.assumingMemoryBound(to: HTTP2Memory.self).pointee.deallocate(block)
      },
      calloc: { items, size, user in
        let (count, overflow) = items.multipliedReportingOverflow(by: size)
        if overflow { return nil }
        let block = user.unsafelyUnwrapped.assumingMemoryBound(to: HTTP2Memory.self).pointee.allocate(count)
        if let block { memset(block, 0, count) }
        return block
      },
      realloc: { block, count, user in
        user.unsafelyUnwrapped.assumingMemoryBound(to: HTTP2Memory.self).pointee.reallocate(block, count)
      })
  }
}
