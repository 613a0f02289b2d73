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
  /// The tables that are kept for the transparent huge pages, by page / 512.
  var deposits = PageMap<FrameNumber>()
  /// Set when an exit was accepted: no further operation starts.
  var exiting = false
  /// The OOM reaper has been here: what a fault would bring back would be empty (`MMF_UNSTABLE`), so it is refused.
  var reaped = false
  /// Set while the fork that makes it still copies entries: nobody has been told of it.
  var beingForked = false
  /// Running operations, for the oracle: what they dropped is legal until they return.
  var operations: [OperationID] = []
  var emptyTable = EmptyTableCounter()
  var flushQueue = FlushQueue()
  var notifier = NotifierSubscriptions()
}

/// The windows between S and E that are open in an address space: one count for all bindings of a variant (our choice:
/// S visits them all).
struct EmptyTableCounter {
  /// Of the variant whose lock is held across the flush of S and of the last E (Linux d73a6d722a67).
  var count = 0
  /// Of the variant without that lock, counted down before the table is restored.
  var racyCount = 0
  var holder = OperationID.none
  var waiting: [OperationID] = []
}
