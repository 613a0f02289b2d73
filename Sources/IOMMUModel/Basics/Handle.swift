// SPDX-License-Identifier: Apache-2.0

/// A handle of a machine's object: slot and generation, so that a reused slot cannot answer for a dead object.
/// Opaque outside the service; 0 is never a valid handle.
public protocol Handle: Equatable, Comparable, Sendable {
  var rawValue: UInt32 { get }
  init(rawValue: UInt32)
}

extension Handle {
  /// Index of the slot, 0…65,535.
  @inlinable public var slot: Int { Int(rawValue & 0xffff) }
  /// 1…65,535: how often the slot was taken, wrapping past 0.
  @inlinable public var generation: UInt32 { rawValue >> 16 }
  @inlinable init(slot: Int, generation: UInt32) {
    self.init(rawValue: generation << 16 | UInt32(truncatingIfNeeded: slot))
  }
  @inlinable public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// A process's memory (Linux `mm`).
public struct AddressSpaceID: Handle {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// What a device or a PASID is attached to, when it is not an address space itself.
public struct DomainID: Handle {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// A file that address spaces map.
public struct FileID: Handle {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// A PCIe function behind the IOMMU.
public struct DeviceID: Handle {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// A notifier subscriber of an address space (Linux `mmu_notifier`, `mmu_interval_notifier`).
public struct SubscriberID: Handle {
  public let rawValue: UInt32
  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// A running memory operation. Its number is never reused within a machine.
public struct OperationID: Equatable, Comparable, Sendable {
  public let rawValue: UInt64
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
  init(number: UInt64, slot: Int) { rawValue = number << 12 | UInt64(slot) }
  /// 1, 2, 3 … in the order of acceptance: what people are shown.
  public var number: UInt64 { rawValue >> 12 }
  var slot: Int { Int(rawValue & 0xfff) }
  @inlinable public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  /// No operation: what a record says when nothing dropped, freed or blocked it.
  public static let none = OperationID(rawValue: 0)
}
