// SPDX-License-Identifier: Apache-2.0

/// The floor: 4-level tables of bare indices in one array, walked by four dependent loads and nothing else.
struct PointerChase {
  private var words: [UInt64] = []
  private let roots: [UInt64]
  private let pages: [(space: Int, page: UInt64)]

  init(pages: [(space: Int, page: UInt64)], spaceCount: Int) {
    var words: [UInt64] = []
    func makeTable() -> UInt64 {
      words += repeatElement(0, count: 512)
      return UInt64(words.count / 512 - 1)
    }
    let roots = (0..<spaceCount).map { _ in makeTable() }
    for (space, page) in pages {
      var table = roots[space]
      for level in [3, 2, 1] as [UInt64] {
        let slot = Int(table << 9 | page >> (9 * level) & 511)
        if words[slot] == 0 { words[slot] = makeTable() }
        table = words[slot]
      }
      words[Int(table << 9 | page & 511)] = page
    }
    (self.words, self.roots, self.pages) = (words, roots, pages)
  }

  /// Nanoseconds of this thread for each walk of `depth` loads, over `count` walks in the given order.
  func nanoseconds(order: [Int], depth: UInt64) -> Double {
    words.withUnsafeBufferPointer { words in
      var sum: UInt64 = 0
      let began = threadNanoseconds()
      for index in order {
        let (space, page) = pages[index]
        var table = roots[space]
        var level: UInt64 = 3
        for _ in 0..<depth {
          table = words[Int(table << 9 | page >> (9 * level) & 511)]
          level &-= 1
        }
        sum &+= table
      }
      let spent = threadNanoseconds() - began
      blackHole(sum)
      return Double(spent) / Double(order.count)
    }
  }
}
