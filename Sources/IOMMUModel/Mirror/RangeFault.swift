// SPDX-License-Identifier: Apache-2.0

/// `hmm_range_fault`, or a mirror's `get_user_pages`: faults pages in, and answers where they are.
public struct RangeFault: Equatable, Sendable {
  public var range: PageRange
  /// What every page must grant; empty: a snapshot, which faults nothing in.
  public var rights: Rights
  public init(range: PageRange, rights: Rights) {
    self.range = range
    self.rights = rights
  }
  /// Pages of one fault.
  public static let pageLimit: UInt64 = 512
}

/// A page of an answered fault.
public struct MirrorPage: Equatable, Sendable {
  /// Of the page's first byte; 0: a snapshot found nothing.
  public var physicalAddress: UInt64
  /// What the entry grants; the mirror may use no more.
  public var rights: Rights
  /// log2 of the byte count of the entry's block: 12, 21 or 30.
  public var sizeLog2: UInt8
  /// It is in the memory of the mirror's own device, where no CPU reaches it.
  public var isDeviceMemory = false
  static let absent = MirrorPage(physicalAddress: 0, rights: [], sizeLog2: Page.sizeLog2)
}

/// What a range fault came to, when it came to something.
public struct RangeFaultAnswer: Equatable, Sendable {
  public var subscriber: SubscriberID
  public var operation: OperationID
  /// Names the fault when its pages are installed: 1, 2, 3 … for each subscriber.
  public var number: UInt64
  /// Interval notifiers: what `mmu_interval_read_begin` answered; `read_retry` compares with it.
  public var sequence: UInt64
  public var first: PageNumber
  public var pages: [MirrorPage]
}

/// A mirror has put pages of a fault into its own table.
public struct MirrorInstall: Equatable, Sendable {
  /// The fault's number.
  public var fault: UInt64
  public var range: PageRange
  public init(fault: UInt64, range: PageRange) {
    self.fault = fault
    self.range = range
  }
}

/// One 8-byte access of a mirror through its own table: it reaches memory by the physical address alone.
public struct MirrorAccess: Equatable, Sendable {
  public var page: PageNumber
  /// 8-byte aligned.
  public var physicalAddress: UInt64
  public var write: Bool
  /// What a write stores.
  public var value: UInt64
  public init(page: PageNumber, physicalAddress: UInt64, write: Bool, value: UInt64 = 0) {
    self.page = page
    self.physicalAddress = physicalAddress
    self.write = write
    self.value = value
  }
}

/// Where a mirror's fault stands.
struct RangeFaultState {
  var subscriber: SubscriberID
  /// 0: `read_begin` has not passed yet, or there is none.
  var sequence: UInt64 = 0
}
