// SPDX-License-Identifier: Apache-2.0

/// SplitMix64 (Steele, Lea, Flood 2014). One generator per purpose, derived from the machine's seed by name, so that
/// drawing more for one purpose never shifts the choices of another.
public struct SeededGenerator: RandomNumberGenerator, Equatable, Sendable {
  public private(set) var state: UInt64

  public init(seed: UInt64) { state = seed }

  public init(seed: UInt64, purpose: StaticString) {
    var digest = Digest()
    digest.combine(seed)
    purpose.withUTF8Buffer { for byte in $0 { digest.combine(UInt64(byte)) } }
    state = digest.value
  }

  @inlinable public mutating func next() -> UInt64 {
    advance()
    return Self.mix(state)
  }

  /// Uniform in 0..<bound up to a bias below 2⁻³² for bounds below 2³² (multiply-shift); 0 when `bound` is 0.
  @inlinable public mutating func next(below bound: UInt64) -> UInt64 { next().multipliedFullWidth(by: bound).high }

  @usableFromInline mutating func advance() { state &+= 0x9e37_79b9_7f4a_7c15 }

  /// SplitMix64's finalizer: every input bit reaches every output bit.
  @inlinable public static func mix(_ value: UInt64) -> UInt64 {
    var z = value
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}

/// Our own hash of a sequence of words, equal on every machine and build. Not against adversaries.
public struct Digest: Equatable, Sendable {
  public private(set) var value: UInt64 = 0x6a09_e667_f3bc_c908
  public init() {}
  @inlinable public mutating func combine(_ word: UInt64) { absorb(SeededGenerator.mix(value ^ word)) }
  @usableFromInline mutating func absorb(_ word: UInt64) { value = (word << 7 | word >> 57) &+ 0x9e37_79b9_7f4a_7c15 }
}
