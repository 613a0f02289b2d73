// SPDX-License-Identifier: Apache-2.0
import DequeModule

/// A PCIe function behind the IOMMU, as the machine sees it. Its own cache and its doings are in its process.
struct Device {
  let id: DeviceID
  let profile: DeviceProfile
  /// One more for each registration on the machine: what an older presence said is void.
  let epoch: UInt32
  /// Translated requests are blocked until the device registers anew.
  var fenced = false
  var bindings: [BindingID] = []
  /// The counter over translation answers and invalidations.
  var order: Order = 0

  // PRI.
  var priEnabled: Bool
  var allocation: UInt32
  /// Page requests that are not answered yet.
  var outstanding: UInt32 = 0
  /// By group index: members that were sent and not answered, and whether the last of them was.
  var groups: [GroupState]
  /// Members of groups whose last member has not come, in arrival order.
  var partial: [QueuedPageRequest] = []

  // Invalidations that it owes.
  var itags = [ITag](repeating: ITag(), count: ITag.count)
  var itagQueue: Deque<QueuedInvalidation> = []

  /// DMA in flight and what must stay behind it, in posted order.
  var posted: Deque<Posted> = []
  var lastLanding: Nanoseconds = 0
  var dmaInFlight: UInt32 = 0
  /// Completions among what is posted.
  var completionsPosted: UInt32 = 0
  /// A device owes 32 completions at most; the rest of these are duplicates and forgeries, which are counted too.
  static let completionsPostedLimit: UInt32 = 1024

  // The oracle's account.
  var grants = GrantTable()
  var attempts = PageMap<Attempt>()

  struct GroupState {
    var members: UInt16 = 0
    var closed = false
  }

  init(id: DeviceID, profile: DeviceProfile, epoch: UInt32) {
    self.id = id
    self.profile = profile
    self.epoch = epoch
    priEnabled = profile.pri
    allocation = profile.priAllocation
    groups = profile.pri ? Array(repeating: GroupState(), count: 512) : []
  }
}

/// What arrived on a device's stream and takes effect in that order.
enum Posted {
  case dma(InFlightDMA)
  /// An Invalidate Completion, behind the DMA that was posted before it.
  case completion(itagVector: UInt32)
  /// The fence command of an invalidation: untranslated DMA that passed the IOMMU before it has landed.
  case drain(OperationID)
}

/// A DMA between issue and landing.
struct InFlightDMA {
  var request: DMARequest
  /// Where it will land; untranslated requests were translated at issue.
  var physicalAddress: UInt64
  var landsAt: Nanoseconds
  /// Untranslated: the translation at issue, or nil when it was refused.
  var translation: Grant?
}
