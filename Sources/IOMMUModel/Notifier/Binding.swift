// SPDX-License-Identifier: Apache-2.0

struct BindingID: Handle {
  let rawValue: UInt32
  init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// An entry of a device's PASID table.
struct Binding {
  enum Target: Equatable {
    case addressSpace(AddressSpaceID)
    case domain(DomainID)
    /// The kernel's half: operations have it as their target, and bindings never.
    case kernel
  }
  /// What the entry points to at this moment.
  enum Table: UInt8 {
    case real
    /// The empty table, between S and E.
    case empty
    /// Nothing: `release` or a detach has cut it.
    case cut
  }
  let id: BindingID
  let device: DeviceID
  let pasid: PASID
  let target: Target
  let strategy: Strategy
  /// The root of the shared or own page table when it was attached, and the life of that frame.
  let root: FrameNumber
  let rootGeneration: UInt32
  var table = Table.real
  var detaching = false
}
