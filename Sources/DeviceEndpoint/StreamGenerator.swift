// SPDX-License-Identifier: Apache-2.0

/// SplitMix64: a seeded generator with integers only, so that every build draws the same numbers. One generator serves
/// one purpose; `derived` makes the others.
public struct StreamGenerator: RandomNumberGenerator, Equatable, Sendable {
  var state: UInt64
  public init(seed: UInt64) { state = seed }

  @inline(__always) public mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    return Self.mix(state)
  }

  /// 0 up to `bound`, exclusive; `bound` is not 0. The bias is below `bound` / 2⁶⁴.
  @inline(__always) public mutating func next(below bound: UInt64) -> UInt64 {
    next().multipliedFullWidth(by: bound).high
  }

  /// The seed for one purpose among those that share `seed`: equal inputs, equal seed.
  public static func derived(_ seed: UInt64, _ purpose: UInt64, _ index: UInt64 = 0) -> UInt64 {
    mix(mix(seed &+ 0x9e37_79b9_7f4a_7c15) ^ mix(purpose &* 0xd134_2543_de82_ef95 &+ index))
  }

  @inline(__always) static func mix(_ value: UInt64) -> UInt64 {
    var z = value
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  /// An exponentially distributed number with mean `mean`, by von Neumann's comparison method: no logarithm, so no
  /// dependence on a maths library.
  public mutating func nextExponential(mean: UInt64) -> UInt64 {
    var whole: UInt64 = 0
    while true {
      let first = next()
      var previous = first
      var runLength: UInt64 = 1
      while true {
        let drawn = next()
        if drawn >= previous { break }
        previous = drawn
        runLength += 1
      }
      if runLength & 1 == 1 { return whole &* mean &+ first.multipliedFullWidth(by: mean).high }
      whole += 1
    }
  }
}

/// FNV-1a over 64-bit words, for `workloadHash`: equal workloads, equal hash, on every build.
public struct StreamHash: Equatable, Sendable {
  public private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325
  public init() {}
  @inline(__always) public mutating func combine(_ word: UInt64) {
    var rest = word
    for _ in 0..<8 {
      value = (value ^ (rest & 0xff)) &* 0x0000_0100_0000_01b3
      rest >>= 8
    }
  }
}
