// SPDX-License-Identifier: Apache-2.0

/// What a device is attached to, when it does not share an address space.
struct Domain {
  let id: DomainID
  let kind: DomainKind
  /// Root of a `PAGING` domain's own table; 0 otherwise.
  let root: FrameNumber
  var bindings: [BindingID] = []
  var references = References()
  var operations: [OperationID] = []
  /// An unmap runs alone (iommufd's `iova_rwsem`).
  var lock = MmapLock()
}
