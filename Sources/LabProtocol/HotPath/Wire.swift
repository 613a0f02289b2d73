// SPDX-License-Identifier: Apache-2.0

/// The hot messages as trivial values: what the hand-written codec reads and writes, in both directions. Each mirrors
/// the message of the same name in `device_message.proto`, where meanings and units stand; raw values of enums are the
/// contract's numbers. Addresses are whole, not page numbers.
public enum Wire {
  public struct TranslationRequest: Hashable, Sendable {
    public var tag: UInt32
    public var pasid: UInt32
    public var address: UInt64
    public var noWrite: Bool
    @inlinable public init(tag: UInt32 = 0, pasid: UInt32 = 0, address: UInt64 = 0, noWrite: Bool = false) {
      self.tag = tag
      self.pasid = pasid
      self.address = address
      self.noWrite = noWrite
    }
  }

  public struct PageRequest: Hashable, Sendable {
    public var pasid: UInt32
    public var groupIndex: UInt32
    public var address: UInt64
    public var read: Bool
    public var write: Bool
    public var last: Bool
    @inlinable public init(
      pasid: UInt32 = 0, address: UInt64 = 0, read: Bool = false, write: Bool = false, groupIndex: UInt32 = 0,
      last: Bool = false
    ) {
      self.pasid = pasid
      self.groupIndex = groupIndex
      self.address = address
      self.read = read
      self.write = write
      self.last = last
    }
  }

  public struct DMAAccess: Hashable, Sendable {
    public var tag: UInt32
    public var pasid: UInt32
    public var address: UInt64
    /// With `translated` only; otherwise 0.
    public var iova: UInt64
    public var value: UInt64
    public var write: Bool
    public var translated: Bool
    @inlinable public init(
      tag: UInt32 = 0, write: Bool = false, translated: Bool = false, pasid: UInt32 = 0, address: UInt64 = 0,
      iova: UInt64 = 0, value: UInt64 = 0
    ) {
      self.tag = tag
      self.pasid = pasid
      self.address = address
      self.iova = iova
      self.value = value
      self.write = write
      self.translated = translated
    }
  }

  public struct Abandonment: Hashable, Sendable {
    public var pasid: UInt32
    public var address: UInt64
    public var read: Bool
    public var write: Bool
    @inlinable public init(pasid: UInt32 = 0, address: UInt64 = 0, read: Bool = false, write: Bool = false) {
      self.pasid = pasid
      self.address = address
      self.read = read
      self.write = write
    }
  }

  /// One message of a device.
  public enum DeviceMessage: Hashable, Sendable {
    case translate(TranslationRequest)
    case pageRequest(PageRequest)
    case dma(DMAAccess)
    /// One bit for each ITag.
    case complete(itagVector: UInt32)
    case giveUp(Abandonment)
  }

  public enum TranslationStatus: UInt8, Sendable, CaseIterable {
    case success = 1
    case unsupportedRequest, completerAbort
  }

  public struct Translation: Equatable, Sendable {
    public var tag: UInt32
    public var pasid: UInt32
    public var address: UInt64
    public var physicalAddress: UInt64
    public var order: UInt64
    public var status: TranslationStatus
    public var sizeLog2: UInt8
    public var read: Bool
    public var write: Bool
    @inlinable public init(
      tag: UInt32 = 0, status: TranslationStatus = .success, pasid: UInt32 = 0, address: UInt64 = 0,
      physicalAddress: UInt64 = 0, sizeLog2: UInt8 = 0, read: Bool = false, write: Bool = false, order: UInt64 = 0
    ) {
      self.tag = tag
      self.pasid = pasid
      self.address = address
      self.physicalAddress = physicalAddress
      self.order = order
      self.status = status
      self.sizeLog2 = sizeLog2
      self.read = read
      self.write = write
    }
  }

  public enum PageResponseCode: UInt8, Sendable, CaseIterable {
    case success = 1
    case invalidRequest, responseFailure
  }

  public struct PageResponse: Equatable, Sendable {
    public var pasid: UInt32
    public var groupIndex: UInt32
    public var serviceNanoseconds: UInt64
    public var memberCount: UInt32
    public var code: PageResponseCode
    @inlinable public init(
      pasid: UInt32 = 0, groupIndex: UInt32 = 0, code: PageResponseCode = .success, serviceNanoseconds: UInt64 = 0,
      memberCount: UInt32 = 0
    ) {
      self.pasid = pasid
      self.groupIndex = groupIndex
      self.serviceNanoseconds = serviceNanoseconds
      self.memberCount = memberCount
      self.code = code
    }
  }

  public struct Invalidation: Equatable, Sendable {
    public var pasid: UInt32
    public var itag: UInt8
    public var sizeLog2: UInt8
    public var address: UInt64
    public var order: UInt64
    @inlinable public init(
      itag: UInt8 = 0, pasid: UInt32 = 0, address: UInt64 = 0, sizeLog2: UInt8 = 0, order: UInt64 = 0
    ) {
      self.pasid = pasid
      self.itag = itag
      self.sizeLog2 = sizeLog2
      self.address = address
      self.order = order
    }
  }

  public enum DMAStatus: UInt8, Sendable, CaseIterable {
    case success = 1
    case fenced, refused, blocked, unsupportedRequest
  }

  public struct DMAResult: Equatable, Sendable {
    public var tag: UInt32
    public var status: DMAStatus
    public var write: Bool
    public var value: UInt64
    @inlinable public init(tag: UInt32 = 0, status: DMAStatus = .success, write: Bool = false, value: UInt64 = 0) {
      self.tag = tag
      self.status = status
      self.write = write
      self.value = value
    }
  }

  public enum DeviceState: UInt8, Sendable, CaseIterable {
    case fencedInvalidationTimedOut = 1
    case fencedRemoved, priDisabled, priEnabled, removed
  }

  public enum IgnoredReason: UInt8, Sendable, CaseIterable {
    case unexpectedCompletion = 1
    case excessPageRequest, pageRequestWhileDisabled, droppedByOverflow, groupIndexInUse
  }

  /// One event for a device.
  public enum DeviceEvent: Equatable, Sendable {
    case translation(Translation)
    case pageResponse(PageResponse)
    case invalidation(Invalidation)
    case dma(DMAResult)
    case device(DeviceState, allocation: UInt32)
    case ignored(IgnoredReason)
    /// `message` counts the stream's messages from 1 on. The text for people is not kept; nil: a reason that this build
    /// does not know.
    case refused(message: UInt64, ErrorReason?)
    case heartbeat(timeNanoseconds: UInt64)
  }
}
