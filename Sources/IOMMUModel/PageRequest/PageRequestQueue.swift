// SPDX-License-Identifier: Apache-2.0
import DequeModule

/// A page request as it stands in the queue.
struct QueuedPageRequest {
  var device: DeviceID
  var request: PageRequest
  var arrivedAt: Nanoseconds
}

/// The IOMMU's bounded page-request queue. It interrupts when it stops being empty; the driver's interrupt thread
/// takes everything out, so that one interrupt may serve many requests (VT-d: PRS.PPR).
struct PageRequestQueue {
  let capacity: Int
  var entries: Deque<QueuedPageRequest> = []
  /// Sticky: from the first request that found no room until the interrupt thread has drained the queue.
  var overflowed = false
  var interruptPending = false
}

/// A complete group, waiting for a worker of the fault handler or in service.
struct PageRequestGroup {
  var device: DeviceID
  var pasid: PASID
  var index: UInt16
  var first: PageRequest
  /// The members after the first; empty, and without storage, for the common group of one.
  var rest: [PageRequest]
  /// Arrival of the last member.
  var arrivedAt: Nanoseconds
  /// The response was sent.
  var answered = false

  var count: Int { 1 + rest.count }
  subscript(member: Int) -> PageRequest { member == 0 ? first : rest[member - 1] }
}

/// The built-in fault handler: groups in arrival order, served by a bounded number of workers.
struct FaultHandler {
  var idleWorkers: Int
  var groups: Deque<PageRequestGroup> = []
  /// Set while groups are given out, so that one that is answered at once does not start a second round inside.
  var dispatching = false
}
