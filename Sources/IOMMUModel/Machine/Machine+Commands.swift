// SPDX-License-Identifier: Apache-2.0

extension Machine {
  /// One room for each noun; what is hot comes first.
  @inline(never)
  mutating func perform(_ command: Command, _ effects: inout Effects) throws(Refusal) -> Reply {
    switch command {
    case .translate(let device, let request):
      try answerTranslation(device, request, &effects)
    case .dma(let device, let request):
      try issue(device, request, &effects)
    case .pageRequest(let device, let request):
      try enqueue(device, request, &effects)
    case .complete(let device, let vector):
      try post(device, completion: vector, &effects)
    case .giveUp(let device, let pasid, let page, let rights):
      try giveUp(device, pasid, page, rights, &effects)
    case .start(let request):
      return .operation(try start(request, &effects))
    case .createAddressSpace:
      return .addressSpace(try createAddressSpace())
    case .createFile(let pageCount, let pageSizeLog2):
      return .file(try createFile(pageCount, pageSizeLog2: pageSizeLog2))
    case .deleteFile(let file):
      try deleteFile(file)
    case .createDomain(let kind):
      return .domain(try createDomain(kind))
    case .destroyDomain(let domain):
      try destroyDomain(domain)
    case .map(let mapping):
      try map(mapping)
    case .registerDevice(let profile):
      return try register(profile)
    case .removeDevice(let device):
      try require(device)
      remove(device, &effects)
    case .attach(let device, let pasid, let attachment):
      try attach(device, pasid, attachment)
    case .enablePRI(let device, let allocation):
      try enablePRI(device, allocation, &effects)
    case .answer(let subscriber, let answer):
      try self.answer(subscriber, answer, &effects)
    case .mirrorAccess(let subscriber, let access):
      return try self.access(subscriber, access, &effects)
    case .mirrorInstall(let subscriber, let install):
      try self.install(subscriber, install, &effects)
    case .rangeFault(let subscriber, let fault):
      return .operation(try rangeFault(subscriber, fault, &effects))
    case .takePages(let subscriber, let kind, let range):
      return .operation(try takePages(subscriber, kind, range, &effects))
    case .subscribe(let space, let profile):
      return try subscribe(space, profile)
    case .unsubscribe(let subscriber):
      try unsubscribe(subscriber)
    }
    return .none
  }

  // MARK: Handles
  // Inlined always: a call would copy the machine, a kilobyte, to pass it as a value beside its own mutation.

  @inline(__always) func require(_ id: DeviceID) throws(Refusal) {
    guard devices.contains(id) else { throw Refusal(.unknownDevice, .device) }
  }
  @inline(__always) func require(_ id: DomainID) throws(Refusal) {
    guard domains.contains(id) else { throw Refusal(.unknownDomain, .domain) }
  }
  /// An address space that still takes operations.
  @inline(__always) func require(_ id: AddressSpaceID) throws(Refusal) {
    guard spaces.contains(id), !spaces[id].beingForked else { throw Refusal(.unknownAddressSpace, .addressSpace) }
    guard !spaces[id].exiting else { throw Refusal(.addressSpaceExiting, .addressSpace) }
  }
  @inline(__always) func require(_ range: PageRange) throws(Refusal) {
    guard range.count > 0 else { throw Refusal(.emptyRange, .byteCount) }
    guard range.first < PageRange.all.end, range.count <= PageRange.all.end - range.first else {
      throw Refusal(.rangeOutsideAddressSpace, [.address, .byteCount], figure: PageRange.all.end << 12)
    }
  }
  @inline(__always) func require(_ pasid: PASID) throws(Refusal) {
    guard pasid <= Page.maximumPASID else {
      throw Refusal(.pasidOutOfRange, .pasid, figure: UInt64(Page.maximumPASID))
    }
  }

  // MARK: Address spaces and domains

  private mutating func createAddressSpace() throws(Refusal) -> AddressSpaceID {
    guard spaces.count < Int(settings.limits.addressSpaces) else {
      throw Refusal(.limitReached, .addressSpace, figure: UInt64(settings.limits.addressSpaces))
    }
    guard let root = memory.allocate(.table) else { throw Refusal(.outOfFrames, .addressSpace) }
    copyKernelHalf(to: root)
    return spaces.insert { AddressSpace(id: $0, root: root) }
  }

  private mutating func createDomain(_ kind: DomainKind) throws(Refusal) -> DomainID {
    guard domains.count < Int(settings.limits.domains) else {
      throw Refusal(.limitReached, .domain, figure: UInt64(settings.limits.domains))
    }
    var root: FrameNumber = 0
    if kind == .paging {
      guard let table = memory.allocate(.table) else { throw Refusal(.outOfFrames, .domain) }
      root = table
    }
    return domains.insert { Domain(id: $0, kind: kind, root: root) }
  }

  private mutating func destroyDomain(_ id: DomainID) throws(Refusal) {
    try require(id)
    guard domains[id].bindings.isEmpty, domains[id].operations.isEmpty else { throw Refusal(.domainInUse, .domain) }
    let stamp = OperationStamp(operation: .none, at: time)
    if domains[id].kind == .paging { freeTree(domains[id].root, stamp) }
    domains.remove(id)
  }

  /// Maps a range of a `PAGING` domain at once. On a refusal nothing is mapped and no frame is taken.
  private mutating func map(_ mapping: DomainMapping) throws(Refusal) {
    try require(mapping.domain)
    try require(mapping.range)
    guard domains[mapping.domain].kind == .paging else { throw Refusal(.wrongDomainKind, .domain) }
    guard mapping.rights == .read || mapping.rights == .readWrite else { throw Refusal(.noRights, .rights) }
    guard domains[mapping.domain].operations.isEmpty else { throw Refusal(.domainInUse, .domain) }
    // Enough frames for the leaves and the most tables that they can need; first, because it bounds the loops below.
    let count = mapping.range.count
    let tables = (count >> 9 + 2) + (count >> 18 + 2) + (count >> 27 + 2)
    guard UInt64(memory.freeCount) >= (mapping.source == nil ? count : 0) + tables else {
      throw Refusal(.outOfFrames, .byteCount, figure: UInt64(memory.freeCount))
    }
    for page in mapping.range.first..<mapping.range.end
    where domains[mapping.domain].references.find(page, level: 0)?.held == true {
      throw Refusal(.overlapsMapping, [.address, .byteCount], figure: page << 12)
    }
    var frames: [FrameNumber] = []
    if let source = mapping.source {
      try require(source)
      for offset in 0..<mapping.range.count {
        let page = mapping.sourceFirst + offset
        guard let reference = spaces[source].references.find(page, level: 0), reference.held,
          reference.rights.isSuperset(of: mapping.rights)
        else { throw Refusal(.noAreaInRange, .source, figure: page << 12) }
        frames.append(reference.frame)
      }
    }
    for offset in 0..<mapping.range.count {
      let page = mapping.range.first + offset
      let frame: FrameNumber
      if mapping.source == nil {
        frame = memory.allocate(.data)!
      } else {
        frame = frames[Int(offset)]
        memory.retain(frame)
      }
      let table = makeTables(domains[mapping.domain].root, page, level: 0)!
      let index = walker.format.index(page, level: 0)
      memory.store(table, index, PageTableEntry.leaf(frame, mapping.rights, level: 0).bits)
      domains[mapping.domain].references.hold(
        page, level: 0,
        Reference(
          frame: frame, generation: memory.generation(frame), rights: mapping.rights, held: true, changedTurn: turn))
    }
  }

  // MARK: Devices

  private mutating func register(_ profile: DeviceProfile) throws(Refusal) -> Reply {
    guard devices.count < Int(settings.limits.devices) else {
      throw Refusal(.limitReached, .device, figure: UInt64(settings.limits.devices))
    }
    for id in devices.ids where devices[id].profile.rid == profile.rid { throw Refusal(.ridTaken, .rid) }
    if profile.pri {
      guard profile.ats else { throw Refusal(.atsDisabled, .allocation) }
      guard profile.priAllocation > 0, profile.priAllocation <= settings.pageRequestQueueCapacity else {
        throw Refusal(.allocationTooLarge, .allocation, figure: UInt64(settings.pageRequestQueueCapacity))
      }
    }
    lastEpoch += 1
    let epoch = lastEpoch
    return .device(devices.insert { Device(id: $0, profile: profile, epoch: epoch) }, epoch: epoch)
  }

  private mutating func attach(_ id: DeviceID, _ pasid: PASID, _ attachment: Attachment) throws(Refusal) {
    try require(id)
    try require(pasid)
    guard pasid == 0 || devices[id].profile.pasid else { throw Refusal(.pasidUnsupported, .pasid) }
    for binding in devices[id].bindings where bindings[binding].pasid == pasid { throw Refusal(.pasidTaken, .pasid) }
    guard bindings.count < 0xffff else { throw Refusal(.limitReached, .pasid, figure: 0xffff) }
    switch attachment {
    case .addressSpace(let space, let strategy):
      try require(space)
      let root = spaces[space].root
      let generation = memory.generation(root)
      let binding = bindings.insert {
        Binding(
          id: $0, device: id, pasid: pasid, target: .addressSpace(space), strategy: strategy, root: root,
          rootGeneration: generation)
      }
      if strategy.emptyTable != .none && spaces[space].emptyTable.count > 0 { bindings[binding].table = .empty }
      spaces[space].bindings.append(binding)
      devices[id].bindings.append(binding)
    case .domain(let domain):
      try require(domain)
      let root = domains[domain].root
      let generation = memory.generation(root)
      let binding = bindings.insert {
        Binding(
          id: $0, device: id, pasid: pasid, target: .domain(domain), strategy: .invalidateRange, root: root,
          rootGeneration: generation)
      }
      domains[domain].bindings.append(binding)
      devices[id].bindings.append(binding)
    }
    // Making an entry valid needs no flush: nothing is cached of an absent one (`iommu-hardware.md` A3, rule 6).
    caches.invalidate(rid: devices[id].profile.rid, pasid)
  }

  private mutating func enablePRI(_ id: DeviceID, _ allocation: UInt32, _ effects: inout Effects) throws(Refusal) {
    try require(id)
    guard devices[id].profile.pri else { throw Refusal(.priDisabled, .device) }
    // EBUSY while enabled or not Stopped: an answer to an older group would be taken for one to a new group.
    guard !devices[id].priEnabled, devices[id].outstanding == 0 else {
      throw Refusal(.priEnabled, .device, figure: UInt64(devices[id].outstanding))
    }
    guard allocation > 0, allocation <= settings.pageRequestQueueCapacity else {
      throw Refusal(.allocationTooLarge, .allocation, figure: UInt64(settings.pageRequestQueueCapacity))
    }
    devices[id].priEnabled = true
    devices[id].allocation = allocation
    effects.append(.device(id, .priEnabled(allocation: allocation)))
  }

  /// Surprise removal or farewell: fence, complete what it owed, forget it (design §4).
  mutating func remove(_ id: DeviceID, _ effects: inout Effects) {
    effects.append(.device(id, .fenced(.removed)))
    endInvalidations(id, culprit: nil, .removed, &effects)
    devices[id].fenced = true
    for item in devices[id].posted {
      if case .drain(let operation) = item { settle(operation) }
    }
    queue.entries.removeAll { $0.device == id }
    handler.groups.removeAll { $0.device == id }
    let rid = devices[id].profile.rid
    for binding in devices[id].bindings { forget(binding) }
    caches.contexts.remove(.init(owner: UInt64(rid), page: 0))
    effects.append(.device(id, .removed))
    devices.remove(id)
    wakeDrains()
  }

  /// Takes a binding out of its device and its target, and what is cached of it out of the IOMMU: nobody flushes for a
  /// binding that is gone, and the PASID may be attached again.
  mutating func forget(_ id: BindingID) {
    let binding = bindings[id]
    switch binding.target {
    case .addressSpace(let space):
      if spaces.contains(space) { spaces[space].bindings.removeAll { $0 == id } }
    case .domain(let domain):
      if domains.contains(domain) { domains[domain].bindings.removeAll { $0 == id } }
    case .kernel: break
    }
    caches.invalidate(rid: devices[binding.device].profile.rid, binding.pasid)
    caches.invalidate(tag: Self.tag(binding.target), binding.pasid, .all)
    devices[binding.device].bindings.removeAll { $0 == id }
    bindings.remove(id)
  }
}
