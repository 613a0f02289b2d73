// SPDX-License-Identifier: Apache-2.0

/// Read and write, as ATS answers and page requests carry them.
public struct ATSRights: OptionSet, Sendable {
  public let rawValue: UInt8
  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
  public static let read = ATSRights(rawValue: 1)
  public static let write = ATSRights(rawValue: 2)
}

/// What a device says, in order. The order matters: a completion stands behind every DMA that it vouches for.
public enum DeviceMessage: Equatable, Sendable {
  case translate(ATSRequest)
  case pageRequest(PRIRequest)
  case dma(DMAIssue)
  /// Invalidate Completion: one bit per ITag.
  case complete(itagVector: UInt32)
  /// The device used up its retries, or lost PRI, and goes on without this access.
  case giveUp(Abandonment)
}

/// ATS Translation Request for one page.
public struct ATSRequest: Equatable, Sendable {
  public var tag: UInt32
  public var pasid: UInt32
  public var page: UInt64
  public var noWrite: Bool
  public init(tag: UInt32, pasid: UInt32, page: UInt64, noWrite: Bool) {
    (self.tag, self.pasid, self.page, self.noWrite) = (tag, pasid, page, noWrite)
  }
}

/// One member of a page-request group.
public struct PRIRequest: Equatable, Sendable {
  public var pasid: UInt32
  public var page: UInt64
  public var rights: ATSRights
  public var groupIndex: UInt16
  public var last: Bool
}

/// One 8-byte DMA. `address` is physical when `translated`, else the I/O virtual address.
public struct DMAIssue: Equatable, Sendable {
  public var tag: UInt32
  public var write: Bool
  public var translated: Bool
  public var pasid: UInt32
  public var address: UInt64
  /// The page that the device meant.
  public var page: UInt64
  /// What a write stores; never 0, and no two writes of a device store the same.
  public var value: UInt64
}

/// An access that the device gives up.
public struct Abandonment: Equatable, Sendable {
  public var pasid: UInt32
  public var page: UInt64
  public var rights: ATSRights
}

/// ATS Translation Completion. Success with empty rights: not present.
public struct ATSAnswer: Equatable, Sendable {
  public enum Status: UInt8, Sendable { case success, unsupportedRequest, completerAbort }
  public var tag: UInt32
  public var status: Status
  public var page: UInt64
  /// First byte of the translated block.
  public var physicalAddress: UInt64
  /// log2 of the block's byte count: 12, 21 or 30.
  public var sizeLog2: UInt8
  public var rights: ATSRights
  public var order: UInt64
  public init(
    tag: UInt32, status: Status = .success, page: UInt64, physicalAddress: UInt64 = 0, sizeLog2: UInt8 = 12,
    rights: ATSRights, order: UInt64
  ) {
    self.tag = tag
    self.status = status
    self.page = page
    self.physicalAddress = physicalAddress
    self.sizeLog2 = sizeLog2
    self.rights = rights
    self.order = order
  }
}

/// PRG Response.
public struct PRGResponse: Equatable, Sendable {
  public enum Code: UInt8, Sendable {
    case success = 0
    case invalidRequest = 1
    case responseFailure = 15
    /// 2…14 count as Response Failure (PCIe, Page Request Services).
    public init(field: UInt8) { self = field == 0 ? .success : field == 1 ? .invalidRequest : .responseFailure }
  }
  public var pasid: UInt32
  public var groupIndex: UInt16
  public var code: Code
  public init(pasid: UInt32, groupIndex: UInt16, code: Code) {
    self.pasid = pasid
    self.groupIndex = groupIndex
    self.code = code
  }
}

/// ATS Invalidate Request: a naturally aligned power-of-two block of one PASID.
public struct ATSInvalidation: Equatable, Sendable {
  /// 0…31.
  public var itag: UInt8
  public var pasid: UInt32
  public var firstPage: UInt64
  /// log2 of the block's byte count, at least 12.
  public var sizeLog2: UInt8
  public var order: UInt64
  public init(itag: UInt8, pasid: UInt32, firstPage: UInt64, sizeLog2: UInt8, order: UInt64) {
    self.itag = itag
    self.pasid = pasid
    self.firstPage = firstPage
    self.sizeLog2 = sizeLog2
    self.order = order
  }
  var pages: PageBlock { PageBlock(firstPage, sizeLog2: sizeLog2) }
}

/// The answer to a DMA: it has landed, or it never will.
public struct DMAResult: Equatable, Sendable {
  public enum Status: UInt8, Sendable { case success, fenced, refused, blocked, unsupportedRequest }
  public var tag: UInt32
  public var status: Status
  public var value: UInt64
  public init(tag: UInt32, status: Status = .success, value: UInt64 = 0) {
    self.tag = tag
    self.status = status
    self.value = value
  }
}

/// A naturally aligned run of 2ⁿ pages; `last` is inclusive, so that no block overflows.
struct PageBlock: Equatable {
  var first: UInt64
  var last: UInt64
  @inline(__always) init(_ page: UInt64, sizeLog2: UInt8) {
    let span = sizeLog2 >= 76 ? UInt64.max : (1 << UInt64(max(sizeLog2, 12) - 12)) - 1
    first = page & ~span
    last = page | span
  }
  @inline(__always) func overlaps(_ other: PageBlock) -> Bool { first <= other.last && other.first <= last }
  @inline(__always) func contains(_ page: UInt64) -> Bool { page >= first && page <= last }
}
