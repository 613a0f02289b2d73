// SPDX-License-Identifier: Apache-2.0

/// What a turn did that somebody outside must hear of, in order. Plain values, like commands.
public enum Effect: Equatable, Sendable {
  case translation(DeviceID, TranslationAnswer)
  case pageResponse(DeviceID, PageResponse)
  case invalidation(DeviceID, Invalidation)
  case dma(DeviceID, DMAAnswer)
  /// An owed invalidation is over: completed, timed out, ended by the fence of its
  /// device, or gone with the device.
  case invalidationEnded(DeviceID, InvalidationEnd)
  case device(DeviceID, DeviceChange)
  case step(OperationStep)
  case operation(OperationOutcome)
  /// Its place in `Effects.verdicts`: a verdict is four times as large as anything else here, and rare.
  case verdict(Int)
  /// A subscriber is told: its place in `Effects.notifierEvents`.
  case notifierEvent(Int)
  /// A mirror's fault has its pages: its place in `Effects.rangeFaults`.
  case rangeFault(Int)
  case subscriber(SubscriberID, SubscriberChange)
}

/// ATS Translation Completion. `rights` empty is the success status with R = W = 0: not present, ask by PRI.
public struct TranslationAnswer: Equatable, Sendable {
  public enum Status: UInt8, Sendable {
    case success
    /// Unsupported Request: the function or PASID is fenced, blocked, detached or without ATS.
    case unsupportedRequest
    /// Completer Abort: the tables are malformed.
    case completerAbort
  }
  // The largest first: the answer is the largest effect, and an effect shall be 48 bytes.
  public var page: PageNumber
  /// First byte of the translated block.
  public var physicalAddress: UInt64
  public var order: Order
  public var tag: UInt32
  public var pasid: PASID
  public var status: Status
  /// log2 of the block's byte count: 12, 21 or 30.
  public var sizeLog2: UInt8
  public var rights: Rights
}

/// PRG Response.
public struct PageResponse: Equatable, Sendable {
  public enum Code: UInt8, Sendable {
    case success = 0
    /// A page does not exist or the right cannot be granted; PRI stays on.
    case invalidRequest = 1
    /// PRI of the function becomes disabled.
    case responseFailure = 15
  }
  public var pasid: PASID
  public var groupIndex: UInt16
  public var code: Code
  /// Machine time from the arrival of the group's last member.
  public var serviceNanoseconds: Nanoseconds
  public var memberCount: UInt16
}

/// ATS Invalidate Request: a naturally aligned power-of-two block of one PASID.
public struct Invalidation: Equatable, Sendable {
  /// 0…31; taken until the completion is applied or the device is fenced.
  public var itag: UInt8
  public var pasid: PASID
  public var first: PageNumber
  /// log2 of the block's byte count, 12…47.
  public var sizeLog2: UInt8
  public var order: Order
  public var range: PageRange { PageRange(first: first, count: 1 << UInt64(sizeLog2 - Page.sizeLog2)) }
}

public struct InvalidationEnd: Equatable, Sendable {
  public enum Kind: UInt8, Sendable { case completed, timedOut, fenced, removed }
  public var itag: UInt8
  public var kind: Kind
  /// Machine time from push to end.
  public var nanoseconds: Nanoseconds
}

public struct DMAAnswer: Equatable, Sendable {
  public enum Status: UInt8, Sendable {
    case success
    /// The device is fenced.
    case fenced
    /// No such translation, or not this right (untranslated requests, and domains that refuse).
    case refused
    /// Judged and not performed: by `OracleAction.block`, or because it would have written into a page table.
    case blocked
    /// No memory stands at that physical address.
    case unsupportedRequest
  }
  public var tag: UInt32
  public var status: Status
  public var write: Bool
  /// What a read fetched.
  public var value: UInt64
}

public enum DeviceChange: Equatable, Sendable {
  case fenced(FenceReason)
  case priDisabled
  case priEnabled(allocation: UInt32)
  case removed
  /// A message of the device that broke its contract was counted and dropped.
  case ignored(IgnoredMessage)
}

public enum FenceReason: UInt8, Sendable { case invalidationTimedOut, removed }

public enum IgnoredMessage: UInt8, Sendable {
  /// A completion whose ITag is idle: late, duplicate or forged.
  case unexpectedCompletion
  /// A page request beyond the allocation.
  case excessPageRequest
  /// A page request while PRI is off.
  case pageRequestWhileDisabled
  /// A page request whose group index still waits for its response.
  case groupIndexInUse
  /// Lost to an overflow of the page-request queue without an answer (not the last of its group).
  case droppedByOverflow
}

/// A letter of an operation's step list (design §4), as it happened.
public struct OperationStep: Equatable, Sendable {
  public enum Letter: UInt8, Sendable {
    case start, hold, entries, cpuFlush, flushSite, flushed, framesFreed, tablesUnlinked, tablesFreed, end
    case changePTE, release, drain, lockWait, invalidatePage, young
    /// I waits in the flush queue.
    case flushQueued
    /// An entry has gained a right, on hardware that caches rights.
    case upgrade
  }
  public var operation: OperationID
  public var kind: OperationKind
  public var letter: Letter
  public var range: PageRange
}

public struct OperationOutcome: Equatable, Sendable {
  public enum Status: UInt8, Sendable {
    case success
    /// EFAULT/SIGSEGV: no area, or not this right.
    case accessDenied
    /// ENOMEM: no free frame.
    case outOfMemory
    /// EEXIST or ENOMEM: an operation that was accepted earlier had changed the areas by the time the lock was held.
    case areasChanged
    /// The address space, domain or device went away first.
    case objectGone
    /// EAGAIN or EBUSY: a lock was held, or a page was in use, absent or not what it had been.
    case busy
    /// EPERM: the area of a mirror's fault may not be written.
    case notPermitted
  }
  public var operation: OperationID
  public var kind: OperationKind
  public var status: Status
  /// A load's value, the child's id of a fork, or how many pages were moved, merged, protected or young.
  public var value: UInt64
  /// Machine time from acceptance to return.
  public var nanoseconds: Nanoseconds
}

public enum OperationKind: UInt8, Sendable, CaseIterable {
  case mmap, munmap, mprotect, dontNeed, fork, exit, cpuAccess, unmap, detach
  /// The fault handler's service of one page-request group.
  case pageRequestGroup
  case mremap, numaHint, clearSoftDirty, clearYoung, oomReap, ksmWriteProtect, ksmReplacePage, migratePages, uffdioMove
  case madviseFree, reclaim, uffdWriteProtect, writeback, migrateToDevice, makeDeviceExclusive
  case collapse, splitPages, retractTables
  /// The machine's own: I for all that an address space's flush queue has gathered.
  case flushQueue
  case kernelMap, kernelUnmap
  /// A mirror's `hmm_range_fault` or `get_user_pages`.
  case rangeFault

  /// Whether an outcome's value is a number of pages.
  public var countsPages: Bool {
    switch self {
    case .clearYoung, .ksmWriteProtect, .ksmReplacePage, .migratePages, .uffdioMove, .reclaim, .writeback,
      .migrateToDevice, .makeDeviceExclusive, .collapse, .splitPages, .retractTables:
      true
    default: false
    }
  }
}
