// SPDX-License-Identifier: Apache-2.0

/// What the oracle says of an access (design §5).
public enum VerdictKind: UInt8, Sendable, CaseIterable {
  case staleDMA, staleWalk, staleCPU, writeAfterProtect, splitView
  case usedAfterCompletion, forgedTranslation, illegalTranslation
  case gaveUp, livelock
  case prgUnanswered, prgTwice, prgWrongPASID
  case mirrorAfterStart, mirrorWithoutRetry, mirrorAfterRelease

  /// The name in API, logs and docs.
  public var name: String {
    switch self {
    case .staleDMA: "STALE_DMA"
    case .staleWalk: "STALE_WALK"
    case .staleCPU: "STALE_CPU"
    case .writeAfterProtect: "WRITE_AFTER_PROTECT"
    case .splitView: "SPLIT_VIEW"
    case .usedAfterCompletion: "USED_AFTER_COMPLETION"
    case .forgedTranslation: "FORGED_TRANSLATION"
    case .illegalTranslation: "ILLEGAL_TRANSLATION"
    case .gaveUp: "GAVE_UP"
    case .livelock: "LIVELOCK"
    case .prgUnanswered: "PRG_UNANSWERED"
    case .prgTwice: "PRG_TWICE"
    case .prgWrongPASID: "PRG_WRONG_PASID"
    case .mirrorAfterStart: "MIRROR_AFTER_START"
    case .mirrorWithoutRetry: "MIRROR_WITHOUT_RETRY"
    case .mirrorAfterRelease: "MIRROR_AFTER_RELEASE"
    }
  }
}

/// One verdict with what is needed to explain it. Plain values; the text is written by `Explanation`.
public struct Verdict: Equatable, Sendable {
  public enum Via: UInt8, Sendable { case atc, iotlb, walkCache, pasidCache, walk, cpuTLB, mirror }
  public var kind: VerdictKind
  public var via: Via
  public var write: Bool
  public var device: DeviceID
  public var pasid: PASID
  public var page: PageNumber
  public var frame: FrameNumber
  /// The frame's generation when the translation was given out, and at the access.
  public var grantGeneration: UInt32
  public var frameGeneration: UInt32
  /// When the translation was given out, and from where; of a struggle for a page, when it began.
  public var grantedAt: Nanoseconds
  public var grantedVia: Via
  public var at: Nanoseconds
  /// The operation that dropped the reference (or write-protected it), and the one that freed the frame.
  public var dropped: OperationMark
  public var freed: OperationMark
  /// How many page requests a device had sent when it gave up.
  public var requests: UInt32
  /// The mirror whose access it was; 0: a device's or a CPU's.
  public var subscriber = SubscriberID(rawValue: 0)
}

/// Who did it and when: one line of an explanation.
public struct OperationMark: Equatable, Sendable {
  public var operation: OperationID
  public var kind: OperationKind
  public var at: Nanoseconds
  /// When the operation's start hook had returned and when its last flush before `at` was complete; 0: never.
  public var startedAt: Nanoseconds
  public var flushedAt: Nanoseconds
  public static let none = OperationMark(operation: .none, kind: .mmap, at: 0, startedAt: 0, flushedAt: 0)
}
