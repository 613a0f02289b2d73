// SPDX-License-Identifier: Apache-2.0

/// The contents of frames: 512 words each, for those frames that were ever written. Kept in chunks of 2^n frames,
/// which are the copy-on-write unit: a small machine's copy shares all chunks until it writes.
struct Words {
  private var chunks: [[UInt64]] = []
  private let chunkLog2: Int
  private let chunkMask: Int
  private var used = 0
  private var free: [Int32] = []

  init(chunkFramesLog2: UInt8) {
    chunkLog2 = Int(chunkFramesLog2)
    chunkMask = (1 << chunkLog2) - 1
  }

  /// A backing of 512 zero words.
  mutating func allocate() -> Int32 {
    if let slot = free.popLast() { return slot }
    let slot = Int32(used)
    if used >> chunkLog2 == chunks.count {
      chunks.append(Array(repeating: 0, count: Page.wordCount << chunkLog2))
    }
    used += 1
    return slot
  }

  /// Zeroes the backing and keeps it for the next frame.
  mutating func release(_ slot: Int32) {
    let base = (Int(slot) & chunkMask) << 9
    for index in base..<base + Page.wordCount { chunks[Int(slot) >> chunkLog2][index] = 0 }
    free.append(slot)
  }

  subscript(slot: Int32, index: Int) -> UInt64 {
    @inline(__always) get { chunks[Int(slot) &>> chunkLog2][(Int(slot) & chunkMask) << 9 | index] }
    @inline(__always) set { chunks[Int(slot) &>> chunkLog2][(Int(slot) & chunkMask) << 9 | index] = newValue }
  }
}
