// SPDX-License-Identifier: Apache-2.0

/// A process's memory (Linux `mm`): areas, one page table in frames of the machine, and who shares it.
struct AddressSpace {
  let id: AddressSpaceID
  let root: FrameNumber
  var areas = Areas()
  var lock = MmapLock()
  /// PASIDs that share the page table, in the order of their attachment.
  var bindings: [BindingID] = []
  var references = References()
  /// Set when an exit was accepted: no further operation starts.
  var exiting = false
  /// Set while the fork that makes it still copies entries: nobody has been told of it.
  var beingForked = false
  /// Running operations, for the oracle: what they dropped is legal until they return.
  var operations: [OperationID] = []
  var emptyTable = EmptyTableCounter()
}

/// The counter of the historic empty-table notifier, in its last form: its lock is held across the flush of S and of
/// the last E (Linux d73a6d722a67). One for all bindings of an address space that use it: S visits them all (our
/// choice).
struct EmptyTableCounter {
  var count = 0
  var holder = OperationID.none
  var waiting: [OperationID] = []
}
