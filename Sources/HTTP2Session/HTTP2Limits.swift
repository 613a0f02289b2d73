// SPDX-License-Identifier: Apache-2.0

/// Every limit of one HTTP/2 connection, stated once, as data.
///
/// libnghttp2 enforces the ones that it knows; `HTTP2Session` enforces the rest. A breach never grows memory: it ends the
/// stream or the connection, with the error code that RFC 9113 §7 has for it.
public struct HTTP2Limits: Sendable {
  /// Streams that the peer may have open at once (SETTINGS_MAX_CONCURRENT_STREAMS, RFC 9113 §6.5.2).
  public var concurrentStreams: UInt32 = 1000

  /// Bytes that a peer may send on one stream before the owner has taken them (RFC 9113 §6.9.2).
  public var streamWindow: Int32 = 256 << 10

  /// Bytes that a peer may send on the whole connection before the owner has taken them (RFC 9113 §6.9.1).
  public var connectionWindow: Int32 = 16 << 20

  /// Decoded size of a header list: names, values and 32 bytes per field (RFC 9113 §6.5.2), in bytes.
  public var headerListBytes: UInt32 = 32 << 10

  /// Streams with an oversized header list that a connection survives. Decoding such a block is what costs CPU.
  public var oversizedHeaderLists: UInt32 = 4

  /// CONTINUATION frames per header block (CVE-2024-28182).
  public var continuations: Int = 8

  /// Entries per SETTINGS frame.
  public var settingsEntries: Int = 32

  /// Acknowledgements (PING, SETTINGS) that may wait to be written.
  public var outboundAcknowledgements: Int = 1000

  /// RST_STREAM frames from the peer: burst and refill per second (CVE-2023-44487).
  public var peerResets = (burst: UInt64(1000), perSecond: UInt64(33))

  /// RST_STREAM frames that the peer makes *us* send: burst and refill per second (CVE-2025-8671, MadeYouReset).
  public var provokedResets = (burst: UInt64(200), perSecond: UInt64(33))

  /// Frames that carry nothing (empty DATA, PRIORITY, SETTINGS): burst and refill per second.
  public var emptyFrames = (burst: UInt64(1000), perSecond: UInt64(100))

  public init() {}
}

/// An allowance that refills with time; `take` fails when it is used up. Time is an argument, in nanoseconds.
struct TokenBucket {
  private var tokens: UInt64
  private let burst: UInt64
  private let perSecond: UInt64
  private var refilledAt: UInt64 = 0

  init(_ rate: (burst: UInt64, perSecond: UInt64)) {
    tokens = rate.burst
    burst = rate.burst
    perSecond = rate.perSecond
  }

  /// Takes one token; false means that the allowance is used up.
  mutating func take(now: UInt64) -> Bool {
    if refilledAt == 0 { refilledAt = now }
    let gained = (now &- refilledAt) / 1_000_000 &* perSecond / 1000
    if gained > 0 {
      tokens = min(burst, tokens + gained)
      refilledAt = now
    }
    guard tokens > 0 else { return false }
    tokens -= 1
    return true
  }
}
