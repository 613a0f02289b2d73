// SPDX-License-Identifier: Apache-2.0

/// What an outside caller asks of a machine: one command is one turn. All payloads are plain values, so that a log
/// entry is a copy of the command, and a command that was refused has changed nothing.
public enum Command: Equatable, Sendable {
  // Address spaces.
  case createAddressSpace
  /// Starts a memory operation; answers `Reply.operation`, and `Effect.operation` when it has returned.
  case start(OperationRequest)

  // Files.
  /// Answers `Reply.file`. The length is in pages.
  case createFile(pageCount: UInt64, pageSizeLog2: UInt8 = Page.sizeLog2)
  case deleteFile(FileID)

  // Domains.
  case createDomain(DomainKind)
  case destroyDomain(DomainID)
  /// `PAGING` only: maps fresh zeroed frames, or those that back a range of an address space (pinned, as iommufd
  /// `IOAS_MAP` does).
  case map(DomainMapping)

  // Devices.
  case registerDevice(DeviceProfile)
  /// Presence was lost, or the device said good-bye: fence, complete what it owed, forget it.
  case removeDevice(DeviceID)
  /// Attaches the function (PASID 0) or one PASID of it.
  case attach(DeviceID, PASID, Attachment)
  /// Enables PRI anew, after a Response Failure switched it off. `allocation`: outstanding page requests.
  case enablePRI(DeviceID, allocation: UInt32)

  // What a device sends. Posted order holds within one stream.
  case translate(DeviceID, TranslationRequest)
  case pageRequest(DeviceID, PageRequest)
  case dma(DeviceID, DMARequest)
  /// Invalidate Completion: one bit per ITag that is finished.
  case complete(DeviceID, itagVector: UInt32)
  /// The device has used up its retries on a page, and goes on without it.
  case giveUp(DeviceID, PASID, PageNumber, Rights)

  // Notifier subscribers and mirrors. Posted order holds within one client here too.
  case subscribe(AddressSpaceID, SubscriberProfile)
  /// It goes, or its presence was lost: nobody waits for it any more.
  case unsubscribe(SubscriberID)
  case answer(SubscriberID, NotifierAnswer)
  /// Starts the fault as an operation; answers `Reply.operation`, and `Effect.rangeFault` before the operation returns.
  case rangeFault(SubscriberID, RangeFault)
  /// `migrateToDevice` or `makeDeviceExclusive` for the mirror's own device; answers as `rangeFault` does.
  case takePages(SubscriberID, OperationKind, PageRange)
  case mirrorInstall(SubscriberID, MirrorInstall)
  case mirrorAccess(SubscriberID, MirrorAccess)
}

/// A memory operation of an address space or a domain, in the kernel's names (`reference/linux-mm.md` §3).
public enum OperationRequest: Equatable, Sendable {
  /// Anonymous private memory. `pageSizeLog2` 12, 21 or 30; other sizes than 12 behave as hugetlb mappings do.
  case mmap(AddressSpaceID, PageRange, Rights, pageSizeLog2: UInt8)
  /// A file, shared or private, in 4 KiB pages.
  case mmapFile(AddressSpaceID, PageRange, Rights, FileMapping)
  /// mprotect, or UFFDIO_WRITEPROTECT, which sets its protection with the right to read and takes it back with both.
  case protect(OperationKind, AddressSpaceID, PageRange, Rights)
  /// One of `OperationKind.ofRanges`.
  case range(OperationKind, AddressSpaceID, PageRange)
  /// One of `OperationKind.ofSpaces`, over the whole address space.
  case space(OperationKind, AddressSpaceID)
  /// One of `OperationKind.ofMoves`: pages keep their frames under new addresses.
  case move(OperationKind, AddressSpaceID, PageRange, to: PageNumber)
  /// One 8-byte load or store of a CPU, through its TLB, with a fault when needed.
  case cpuAccess(AddressSpaceID, CPUAccess)
  /// KSM's replace_page: write-protected pages with equal contents become one frame, that of the `keeper`.
  case ksmReplacePage(AddressSpaceID, PageRange, keeper: AddressSpaceID, keeperFirst: PageNumber)
  /// One of `OperationKind.ofKernel`: a range of `PageRange.kernel`, which every address space shares.
  case kernel(OperationKind, PageRange)
  /// Removes mappings of a `PAGING` domain, strictly: entries, invalidation with completion, then the frames.
  case unmap(DomainID, PageRange)
  /// Detaches the function or a PASID: cut, flush every cache with completion, drain page requests.
  case detach(DeviceID, PASID)

  public static func mprotect(_ space: AddressSpaceID, _ range: PageRange, _ rights: Rights) -> Self {
    .protect(.mprotect, space, range, rights)
  }
  public static func munmap(_ space: AddressSpaceID, _ range: PageRange) -> Self { .range(.munmap, space, range) }
  public static func dontNeed(_ space: AddressSpaceID, _ range: PageRange) -> Self { .range(.dontNeed, space, range) }
  public static func fork(_ space: AddressSpaceID) -> Self { .space(.fork, space) }
  public static func exit(_ space: AddressSpaceID) -> Self { .space(.exit, space) }
}

extension OperationKind {
  /// Operations that take a range of pages and nothing else.
  public static let ofRanges: [OperationKind] = [
    .munmap, .dontNeed, .numaHint, .clearYoung, .ksmWriteProtect, .migratePages, .madviseFree, .reclaim, .writeback,
    .migrateToDevice, .makeDeviceExclusive, .collapse, .splitPages, .retractTables,
  ]
  /// Operations that take no mmap lock: reclaim's, page_referenced's and khugepaged's ways to a page.
  static let withoutMmapLock: [OperationKind] = [
    .migratePages, .clearYoung, .reclaim, .writeback, .splitPages, .retractTables,
  ]
  /// Operations that take a range and rights.
  public static let ofRights: [OperationKind] = [.mprotect, .uffdWriteProtect]
  /// Operations that take an address space and nothing else.
  public static let ofSpaces: [OperationKind] = [.fork, .exit, .clearSoftDirty, .oomReap]
  /// Operations that take a range and the first page of where it goes.
  public static let ofMoves: [OperationKind] = [.mremap, .uffdioMove]
  /// Operations on the kernel's own memory.
  public static let ofKernel: [OperationKind] = [.kernelMap, .kernelUnmap]
}

/// What mmap maps of a file.
public struct FileMapping: Equatable, Sendable {
  public var file: FileID
  /// Page of the file that the range begins with.
  public var firstPage: PageNumber
  /// MAP_SHARED: writes go to the file.
  public var isShared: Bool
  public init(_ file: FileID, firstPage: PageNumber = 0, isShared: Bool) {
    self.file = file
    self.firstPage = firstPage
    self.isShared = isShared
  }
}

public struct CPUAccess: Equatable, Sendable {
  public enum Kind: UInt8, Sendable {
    case load, store
    /// A load of every page of a range, for its faults alone.
    case touch
  }
  public var cpu: UInt8
  public var kind: Kind
  /// 8-byte aligned virtual address.
  public var address: UInt64
  /// What a store writes.
  public var value: UInt64
  /// Pages that a touch covers, from the page of `address` on; 1 otherwise.
  public var pageCount: UInt64
  public init(cpu: UInt8, kind: Kind, address: UInt64, value: UInt64 = 0, pageCount: UInt64 = 1) {
    self.cpu = cpu
    self.kind = kind
    self.address = address
    self.value = value
    self.pageCount = pageCount
  }
}

public enum DomainKind: UInt8, Sendable {
  /// Own I/O page table, explicit map and unmap.
  case paging
  /// IOVA is the physical address.
  case identity
  /// Every request is refused.
  case blocked
}

public struct DomainMapping: Equatable, Sendable {
  public var domain: DomainID
  public var range: PageRange
  public var rights: Rights
  /// Where the frames come from: an address space from `sourceFirst` on, or fresh zeroed frames.
  public var source: AddressSpaceID?
  public var sourceFirst: PageNumber
  public init(
    domain: DomainID, range: PageRange, rights: Rights, source: AddressSpaceID? = nil, sourceFirst: PageNumber = 0
  ) {
    self.domain = domain
    self.range = range
    self.rights = rights
    self.source = source
    self.sourceFirst = sourceFirst
  }
}

/// What a device is and can do, fixed at registration.
public struct DeviceProfile: Equatable, Sendable {
  /// Requester id, bus:device.function in 16 bits; unique among the machine's present devices.
  public var rid: UInt16
  public var ats: Bool
  public var pri: Bool
  public var pasid: Bool
  /// Outstanding page requests that the device enabled; at most the machine's page-request queue.
  public var priAllocation: UInt32
  /// Page requests after the first that the device sends for one page before it gives up.
  public var retryLimit: UInt32
  public init(
    rid: UInt16, ats: Bool = true, pri: Bool = true, pasid: Bool = true, priAllocation: UInt32 = 32,
    retryLimit: UInt32 = 4
  ) {
    self.rid = rid
    self.ats = ats
    self.pri = pri
    self.pasid = pasid
    self.priAllocation = priAllocation
    self.retryLimit = retryLimit
  }
}

public enum Attachment: Equatable, Sendable {
  /// `SVA`: shares the address space's page table, under a strategy.
  case addressSpace(AddressSpaceID, Strategy)
  case domain(DomainID)
}

/// An ATS Translation Request for one page.
public struct TranslationRequest: Equatable, Sendable {
  /// Chosen by the device, echoed in the answer.
  public var tag: UInt32
  public var pasid: PASID
  public var page: PageNumber
  /// NW: the device does not ask for write permission, and no Dirty bit is set.
  public var noWrite: Bool
  public init(tag: UInt32, pasid: PASID, page: PageNumber, noWrite: Bool) {
    self.tag = tag
    self.pasid = pasid
    self.page = page
    self.noWrite = noWrite
  }
}

/// One member of a page-request group. R = W = 0 with `last` is a Stop Marker: never answered.
public struct PageRequest: Equatable, Sendable {
  public var pasid: PASID
  public var page: PageNumber
  public var rights: Rights
  /// 9 bits.
  public var groupIndex: UInt16
  public var last: Bool
  public init(pasid: PASID, page: PageNumber, rights: Rights, groupIndex: UInt16, last: Bool) {
    self.pasid = pasid
    self.page = page
    self.rights = rights
    self.groupIndex = groupIndex
    self.last = last
  }
}

/// One 8-byte DMA. A translated request reaches memory by its physical address alone; `pasid` and `page` tell the
/// oracle which grant the device believes it is using, and the hardware does not look at them (our choice).
public struct DMARequest: Equatable, Sendable {
  public var tag: UInt32
  public var write: Bool
  public var translated: Bool
  public var pasid: PASID
  /// 8-byte aligned. Untranslated: the IOVA. Translated: the physical address.
  public var address: UInt64
  /// The page that the device meant; for an untranslated request the page of `address`.
  public var page: PageNumber
  /// What a write stores.
  public var value: UInt64
  public init(
    tag: UInt32, write: Bool, translated: Bool, pasid: PASID, address: UInt64, page: PageNumber, value: UInt64 = 0
  ) {
    self.tag = tag
    self.write = write
    self.translated = translated
    self.pasid = pasid
    self.address = address
    self.page = page
    self.value = value
  }
}

/// What the command itself answered, at once.
public enum Reply: Equatable, Sendable {
  case none
  case addressSpace(AddressSpaceID)
  case domain(DomainID)
  case file(FileID)
  case device(DeviceID, epoch: UInt32)
  case operation(OperationID)
  /// `sequence`: of an interval subscriber, `interval_sub->invalidate_seq`. `openWindows`: ends of which the subscriber
  /// will be told without their starts.
  case subscriber(SubscriberID, sequence: UInt64, openWindows: UInt32)
  case mirrorAccess(DMAAnswer.Status, value: UInt64)
}
