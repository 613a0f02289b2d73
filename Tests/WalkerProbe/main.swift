// SPDX-License-Identifier: Apache-2.0
import Glibc
import IOMMUModel

// Test support, not part of the product: answers page walks over tables that another program made.
//
// stdin, little-endian 64-bit words, repeated until the end of input:
//   first frame, frame count, root frame, request count · 512 words for each frame · (address, access) for each request
//   access: 0 read, 1 write, 2 execute
// stdout, for each repetition:
//   (status, physical address, level) for each request · 512 words for each frame, after the last request
//   status: 0 allowed, 1 not present, 2 reserved bit, 3 denied, 4 not canonical

/// Reads exactly `count` words; nil at the end of the input.
func readWords(_ count: Int) -> [UInt64]? {
  var words = [UInt64](repeating: 0, count: count)
  let isWhole = words.withUnsafeMutableBytes { buffer in
    var filled = 0
    while filled < buffer.count {
      let got = read(0, buffer.baseAddress! + filled, buffer.count - filled)
      if got <= 0 { return false }
      filled += got
    }
    return true
  }
  return isWhole ? words : nil
}

func writeWords(_ words: [UInt64]) {
  words.withUnsafeBytes { buffer in
    var sent = 0
    while sent < buffer.count {
      let count = write(1, buffer.baseAddress! + sent, buffer.count - sent)
      guard count > 0 else { exit(1) }
      sent += count
    }
  }
}

func answer(_ result: WalkResult, to address: UInt64) -> [UInt64] {
  switch result {
  case .leaf(let leaf):
    let span = UInt64(1) << (12 + 9 * UInt64(leaf.level))
    return [0, UInt64(leaf.frame) << 12 | address & (span - 1), UInt64(leaf.level)]
  case .fault(let fault, let level):
    let status: UInt64 =
      switch fault {
      case .notPresent: 1
      case .reservedBit: 2
      case .denied: 3
      case .notCanonical: 4
      }
    return [status, 0, UInt64(level)]
  }
}

func serve() {
  let walker = PageWalker(format: .x86Level4)
  while let head = readWords(4) {
    let first = FrameNumber(head[0])
    guard let image = readWords(Int(head[1]) * Page.wordCount), let requests = readWords(Int(head[3]) * 2) else {
      exit(1)
    }
    var memory = PhysicalMemory(frameCount: first + FrameNumber(head[1]))
    memory.installTables(first: first, image: image)
    var output: [UInt64] = []
    for request in stride(from: 0, to: requests.count, by: 2) {
      let kind: WalkAccess = [[], .write, .execute][Int(requests[request + 1])]
      let result = walker.walk(
        &memory, root: FrameNumber(head[2]), address: requests[request], access: kind.union(.updateBits))
      output += answer(result, to: requests[request])
    }
    for frame in first..<first + FrameNumber(head[1]) {
      for index in 0..<Page.wordCount { output.append(memory.load(frame, index)) }
    }
    writeWords(output)
  }
}

serve()
