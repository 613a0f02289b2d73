// SPDX-License-Identifier: Apache-2.0

/// What an address space or a domain holds at a page, as its operations declared it: the oracle's own account, kept
/// beside the page table and never read from it.
struct Reference {
  var frame: FrameNumber
  var generation: UInt32
  var rights: Rights
  /// False after an operation dropped it; the rest then tells what it was.
  var held: Bool
  /// The turn of the last change, for `LIVELOCK`.
  var changedTurn: UInt64
  /// Who dropped it or took the write right away.
  var by: OperationStamp = .none
  /// The page that an operation replaced by this one (a COW break), and whether a CPU has used the new one since.
  var replacedFrame: FrameNumber = 0
  var replacedGeneration: UInt32 = 0
  var usedByCPU = false
}

/// A page on which a running operation has dropped or reduced the reference; until it returns, old and new are legal.
struct Dropped {
  var page: PageNumber
  var level: UInt8
  var frame: FrameNumber
  var generation: UInt32
}

/// The references of one address space or domain by page and leaf level.
struct References {
  private var map = PageMap<Reference>()
  private(set) var heldCount = 0

  @inline(__always)
  private static func key(_ page: PageNumber, _ level: UInt8) -> PageKey {
    PageKey(owner: UInt32(level), page: page >> (9 * UInt64(level)))
  }

  func find(_ page: PageNumber, level: UInt8) -> Reference? { map[Self.key(page, level)] }

  mutating func hold(_ page: PageNumber, level: UInt8, _ reference: Reference) {
    precondition(reference.held)
    if find(page, level: level)?.held != true { heldCount += 1 }
    map.set(Self.key(page, level), reference)
  }

  mutating func drop(_ page: PageNumber, level: UInt8, by stamp: OperationStamp, turn: UInt64) {
    guard let slot = map.find(Self.key(page, level)) else { preconditionFailure("a reference stands behind every entry") }
    precondition(map[slot: slot].held, "a reference is dropped once")
    map[slot: slot].held = false
    map[slot: slot].by = stamp
    map[slot: slot].changedTurn = turn
    heldCount -= 1
    // What was dropped long ago explains nothing any more; keep the account in proportion to what is held.
    if map.count > 8192 && map.count > 8 * (heldCount + 1024) { map.keep { _, reference in reference.held } }
  }

  mutating func change(_ page: PageNumber, level: UInt8, _ body: (inout Reference) -> Void) {
    guard let slot = map.find(Self.key(page, level)) else { return }
    body(&map[slot: slot])
  }

  var sorted: [(key: PageKey, value: Reference)] { map.sorted }
}
