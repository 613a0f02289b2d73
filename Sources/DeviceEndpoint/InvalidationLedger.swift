// SPDX-License-Identifier: Apache-2.0

/// Invalidations that wait for uses of their range to land, one per ITag, and those that are ready to be completed.
struct InvalidationLedger: Sendable {
  /// Uses that each ITag waits for.
  private(set) var pendingUses: [UInt32] = Array(repeating: 0, count: 32)
  /// When each ITag's invalidation arrived.
  private(set) var arrivedAt: [UInt64] = Array(repeating: 0, count: 32)
  /// ITags that wait.
  private(set) var waiting: UInt32 = 0
  /// ITags to be completed with the next completion message.
  private(set) var ready: UInt32 = 0

  /// Takes an invalidation that waits for `uses` uses.
  mutating func take(itag: UInt8, uses: UInt32, now: UInt64) {
    let bit: UInt32 = 1 << UInt32(itag)
    pendingUses[Int(itag)] = uses
    arrivedAt[Int(itag)] = now
    waiting &= ~bit
    if uses == 0 { ready |= bit } else { waiting |= bit }
  }

  /// One use has landed; `holds` names the ITags that waited for it.
  @inline(__always) mutating func landed(holds: UInt32) {
    var rest = holds
    while rest != 0 {
      let itag = rest.trailingZeroBitCount
      rest &= rest - 1
      pendingUses[itag] -= 1
      if pendingUses[itag] == 0 {
        waiting &= ~(1 << UInt32(itag))
        ready |= 1 << UInt32(itag)
      }
    }
  }

  mutating func takeReady() -> UInt32 {
    let taken = ready
    ready = 0
    return taken
  }

  mutating func removeAll() { self = InvalidationLedger() }
}
