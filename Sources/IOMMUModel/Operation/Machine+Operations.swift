// SPDX-License-Identifier: Apache-2.0

/// What a step answers to the runner.
enum StepOutcome {
  /// Done; the next step belongs to the same turn.
  case through
  /// Done; the next step is due after this time, as a turn of its own.
  case next(after: Nanoseconds)
  /// The same step once more, as a turn of its own.
  case again(after: Nanoseconds)
  /// On at this step of the list, in the same turn.
  case go(to: Int)
  /// Somebody will wake the operation; the step runs again then.
  case blocked
  /// The operation has returned.
  case finished
}

/// Starting, running, waking and ending of operations. What the steps do is in `Machine+Steps` and its neighbours.
extension Machine {
  /// Operations that can run at a time, the machine's own among them (`OperationID.slot`).
  static let operationSlots = 0xfff
  /// Of these, slots that callers leave to page-request groups and flushes, for which what they start may wait; and slots
  /// that groups leave to flushes, for which a group may wait. A flush waits for devices alone, and so ends.
  static let slotsBesideCallers = 128
  static let slotsBesideGroups = 64

  /// Operations beside which a caller may start no other.
  @inline(__always) var operationLimit: Int {
    min(Int(settings.limits.operations), Self.operationSlots - Self.slotsBesideCallers)
  }

  @inline(__always)
  func requireSlot() throws(Refusal) {
    guard operationCount < operationLimit else { throw Refusal(.limitReached, [], figure: UInt64(operationLimit)) }
  }

  /// What a running operation is; nil: it has returned, or is in its turn.
  @inline(__always)
  func kind(_ id: OperationID) -> OperationKind? {
    guard id.slot < operations.count, operations[id.slot]?.id == id else { return nil }
    return operations[id.slot]!.kind
  }

  /// Whether the operation waits for this turn.
  @inline(__always)
  func waits(_ id: OperationID, for turn: UInt64) -> Bool {
    id.slot < operations.count && operations[id.slot]?.id == id && operations[id.slot]!.turn == turn
  }

  // MARK: Start

  /// Accepts an operation and runs it up to its first wait.
  /// - Parameter mirror: for whom it is, when it is a driver's.
  mutating func start(
    _ request: OperationRequest, by mirror: SubscriberID? = nil, _ effects: inout Effects
  ) throws(Refusal) -> OperationID {
    try validate(request)
    try requireSlot()
    let id: OperationID
    switch request {
    case .mmap(let space, let range, let rights, let pageSizeLog2):
      id = insert(.mmap, .addressSpace(space), range) {
        $0.rights = rights.impliedByEntry
        $0.level = (pageSizeLog2 - Page.sizeLog2) / 9
      }
    case .mmapFile(let space, let range, let rights, let mapping):
      let level = files[mapping.file].level
      id = insert(.mmap, .addressSpace(space), range) {
        $0.rights = rights.impliedByEntry
        $0.file = mapping
        $0.level = level
      }
    case .protect(let kind, let space, let range, let rights):
      id = insert(kind, .addressSpace(space), range) { $0.rights = rights.impliedByEntry }
    case .range(let kind, let space, let range):
      id = insert(kind, .addressSpace(space), range)
    case .space(let kind, let space):
      id = insert(kind, .addressSpace(space), .all)
      if kind == .exit { spaces[space].exiting = true }
    case .move(let kind, let space, let range, let destination):
      id = insert(kind, .addressSpace(space), range) { $0.destination = destination }
    case .cpuAccess(let space, let access):
      let range = PageRange(first: access.address >> 12, count: access.kind == .touch ? access.pageCount : 1)
      id = insert(.cpuAccess, .addressSpace(space), range) { $0.cpuAccess = access }
    case .unmap(let domain, let range):
      id = insert(.unmap, .domain(domain), range)
    case .kernel(let kind, let range):
      id = insert(kind, .kernel, range)
    case .ksmReplacePage(let space, let range, let keeper, let first):
      id = insert(.ksmReplacePage, .addressSpace(space), range) {
        $0.destination = first
        $0.keeper = keeper
      }
    case .detach(let device, let pasid):
      let binding = devices[device].bindings.first { bindings[$0].pasid == pasid }!
      id = insert(.detach, bindings[binding].target, .all) { $0.detached = (device, pasid, binding) }
      bindings[binding].detaching = true
    }
    if let mirror {
      operations[id.slot]!.mirrorFault = RangeFaultState(subscriber: mirror)
      operations[id.slot]!.owner = subscribers[mirror].profile.owner
    }
    resume(id, &effects)
    return id
  }

  @inline(__always)
  private func validate(_ request: OperationRequest) throws(Refusal) {
    switch request {
    case .mmap(let space, let range, _, let pageSizeLog2):
      try require(space)
      try require(range)
      guard [12, 21, 30].contains(pageSizeLog2) else { throw Refusal(.misaligned, .pageSize, figure: 30) }
      let block = UInt64(1) << UInt64(pageSizeLog2 - Page.sizeLog2)
      guard range.first % block == 0, range.count % block == 0 else {
        throw Refusal(.misaligned, [.address, .byteCount], figure: block << 12)
      }
      guard !spaces[space].areas.overlaps(range) else { throw Refusal(.overlapsArea, [.address, .byteCount]) }
      try requireRoom(space, 1)
    case .mmapFile(let space, let range, _, let mapping):
      try require(space)
      try require(range)
      try require(mapping.file)
      let length = files[mapping.file].pageCount
      guard mapping.firstPage < length, range.count <= length - mapping.firstPage else {
        throw Refusal(.outsideFile, [.fileOffset, .byteCount], figure: length << 12)
      }
      let block = UInt64(1) << (9 * UInt64(files[mapping.file].level))
      guard range.first % block == 0, range.count % block == 0, mapping.firstPage % block == 0 else {
        throw Refusal(.misaligned, [.address, .byteCount, .fileOffset], figure: block << 12)
      }
      guard !spaces[space].areas.overlaps(range) else { throw Refusal(.overlapsArea, [.address, .byteCount]) }
      try requireRoom(space, 1)
    case .protect(let kind, let space, let range, let rights):
      try require(space)
      try require(kind, of: OperationKind.ofRights)
      try require(range)
      if kind == .uffdWriteProtect && rights.isEmpty { throw Refusal(.noRights, .rights) }
      guard spaces[space].areas.covers(range) else { throw Refusal(.noAreaInRange, [.address, .byteCount]) }
      try requireWholeBlocks(space, range)
      try requireRoom(space, spaces[space].areas.growth(range, keepsRange: true))
    case .range(let kind, let space, let range):
      try require(space)
      try require(kind, of: OperationKind.ofRanges)
      try require(range)
      let isAdvice = kind == .dontNeed || kind == .madviseFree
      if isAdvice, !spaces[space].areas.covers(range) {
        throw Refusal(.noAreaInRange, [.address, .byteCount])
      }
      if kind == .munmap || isAdvice { try requireWholeBlocks(space, range) }
      if kind == .munmap { try requireRoom(space, spaces[space].areas.growth(range, keepsRange: false)) }
    case .move(let kind, let space, let range, let destination):
      try require(space)
      try require(kind, of: OperationKind.ofMoves)
      try requireMove(range, destination)
      if kind == .mremap { try requireMremap(space, range, destination) }
    case .ksmReplacePage(let space, let range, let keeper, let keeperFirst):
      try require(space)
      try require(range)
      guard spaces.contains(keeper), !spaces[keeper].beingForked else { throw Refusal(.unknownAddressSpace, .keeper) }
      guard keeperFirst < PageRange.all.end, range.count <= PageRange.all.end - keeperFirst else {
        throw Refusal(.rangeOutsideAddressSpace, [.keeperAddress, .byteCount], figure: PageRange.all.end << 12)
      }
    case .space(let kind, let space):
      try require(space)
      try require(kind, of: OperationKind.ofSpaces)
      if kind == .fork && spaces.count >= Int(settings.limits.addressSpaces) {
        throw Refusal(.limitReached, .addressSpace, figure: UInt64(settings.limits.addressSpaces))
      }
    case .cpuAccess(let space, let access):
      try require(space)
      guard access.cpu < settings.cpuCount else {
        throw Refusal(.cpuOutOfRange, .cpu, figure: UInt64(settings.cpuCount))
      }
      guard access.address % 8 == 0 else { throw Refusal(.misaligned, .address, figure: 8) }
      try require(PageRange(first: access.address >> 12, count: access.kind == .touch ? access.pageCount : 1))
    case .unmap(let domain, let range):
      try require(domain)
      try require(range)
      guard domains[domain].kind == .paging else { throw Refusal(.wrongDomainKind, .domain) }
      for page in range.first..<range.end where domains[domain].references.find(page, level: 0)?.held != true {
        throw Refusal(.notMapped, [.address, .byteCount], figure: page << 12)
      }
    case .kernel(let kind, let range):
      try require(kind, of: OperationKind.ofKernel)
      try validate(kernel: kind, range)
    case .detach(let device, let pasid):
      try require(device)
      guard let binding = devices[device].bindings.first(where: { bindings[$0].pasid == pasid }) else {
        throw Refusal(.pasidNotAttached, .pasid)
      }
      guard !bindings[binding].detaching else { throw Refusal(.detachInProgress, .pasid) }
    }
  }

  /// Whether the address space may hold so many more areas (Linux `max_map_count`).
  func hasRoom(_ space: AddressSpaceID, _ growth: Int) -> Bool {
    growth == 0 || spaces[space].areas.list.count + growth <= Int(settings.limits.areasPerAddressSpace)
  }

  private func requireRoom(_ space: AddressSpaceID, _ growth: Int) throws(Refusal) {
    guard hasRoom(space, growth) else {
      throw Refusal(.limitReached, .addressSpace, figure: UInt64(settings.limits.areasPerAddressSpace))
    }
  }

  /// An operation of this form that the machine's kernel has.
  @inline(__always)
  private func require(_ kind: OperationKind, of form: [OperationKind]) throws(Refusal) {
    precondition(form.contains(kind), "\(kind) takes something else")
    guard !lists[kind].isEmpty else { throw Refusal(.notInThisKernel, []) }
  }

  /// Two ranges of one length in one address space, apart from each other.
  @inline(__always)
  private func requireMove(_ range: PageRange, _ destination: PageNumber) throws(Refusal) {
    try require(range)
    guard destination < PageRange.all.end, range.count <= PageRange.all.end - destination else {
      throw Refusal(.rangeOutsideAddressSpace, [.destination, .byteCount], figure: PageRange.all.end << 12)
    }
    guard !PageRange(first: destination, count: range.count).overlaps(range) else {
      throw Refusal(.overlapsSource, [.address, .destination])
    }
  }

  /// Areas with whole blocks, to a place that is free and lies as they do.
  @inline(__always)
  private func requireMremap(
    _ space: AddressSpaceID, _ range: PageRange, _ destination: PageNumber
  ) throws(Refusal) {
    guard spaces[space].areas.covers(range) else { throw Refusal(.noAreaInRange, [.address, .byteCount]) }
    try requireWholeBlocks(space, range)
    for area in spaces[space].areas.overlapping(range) {
      let block = UInt64(1) << (9 * UInt64(area.level))
      guard destination % block == range.first % block else {
        throw Refusal(.misaligned, .destination, figure: block << 12)
      }
    }
    guard !spaces[space].areas.overlaps(PageRange(first: destination, count: range.count)) else {
      throw Refusal(.overlapsArea, [.destination, .byteCount])
    }
    try requireRoom(space, spaces[space].areas.overlapping(range).count + 1)
  }

  /// hugetlb: a range does not end inside a huge page.
  @inline(__always)
  private func requireWholeBlocks(_ space: AddressSpaceID, _ range: PageRange) throws(Refusal) {
    if let block = splitsBlock(space, range) {
      throw Refusal(.splitsHugePage, [.address, .byteCount], figure: block << 12)
    }
  }

  /// Pages of the huge page inside which the range begins or ends; nil: it does not.
  @inline(__always)
  func splitsBlock(_ space: AddressSpaceID, _ range: PageRange) -> UInt64? {
    for edge in [range.first, range.end] {
      guard let area = spaces[space].areas.find(edge == range.end ? edge - 1 : edge), area.level > 0 else { continue }
      let block = UInt64(1) << (9 * UInt64(area.level))
      if edge % block != 0 { return block }
    }
    return nil
  }

  mutating func insert(
    _ kind: OperationKind, _ target: Binding.Target?, _ range: PageRange,
    _ configure: (inout Operation) -> Void = { _ in }
  ) -> OperationID {
    let slot: Int
    if let reused = freeOperationSlots.popLast() {
      slot = reused
    } else {
      slot = operations.count
      operations.append(nil)
    }
    lastOperationNumber += 1
    let id = OperationID(number: lastOperationNumber, slot: slot)
    operations[slot] = Operation(id, kind, target, range, at: time)
    configure(&operations[slot]!)
    operationCount += 1
    history.begin(id, kind)
    switch target {
    case .addressSpace(let space)? where spaces.contains(space): spaces[space].operations.append(id)
    case .domain(let domain)? where domains.contains(domain): domains[domain].operations.append(id)
    default: break
    }
    return id
  }

  // MARK: Run

  /// Runs steps until one ends the turn. The operation is out of its slot meanwhile, so that steps may change both.
  mutating func resume(_ id: OperationID, _ effects: inout Effects) {
    // Taken, not copied: a copy would retain what each of its arrays holds.
    var operation = operations[id.slot].take()
    precondition(operation?.id == id, "the operation runs")
    if run(&operation!, &effects) {
      retire(operation!, &effects)
    } else {
      operations[id.slot] = consume operation
    }
  }

  /// - Returns: whether the operation has returned.
  @inline(__always)
  private mutating func run(_ operation: inout Operation, _ effects: inout Effects) -> Bool {
    operation.turn = 0
    let list = lists[operation.kind]
    while true {
      switch perform(list[operation.step], &operation, &effects) {
      case .through:
        operation.step += 1
        continue
      case .go(let step):
        operation.step = step
        continue
      case .next(let delay):
        operation.step += 1
        operation.turn = pending.schedule(.step(operation.id), at: time + delay)
      case .again(let delay):
        operation.turn = pending.schedule(.step(operation.id), at: time + delay)
      case .blocked:
        break
      case .finished:
        return true
      }
      return false
    }
  }

  /// Lets a waiting operation run its step again, in a turn of its own.
  mutating func wake(_ id: OperationID) {
    guard operations[id.slot]?.id == id, operations[id.slot]!.turn == 0 else { return }
    operations[id.slot]!.turn = pending.schedule(.step(id), at: time)
  }

  private mutating func retire(_ operation: Operation, _ effects: inout Effects) {
    freeOperationSlots.append(operation.id.slot)
    operationCount -= 1
    switch operation.target {
    case .addressSpace(let space)? where spaces.contains(space):
      spaces[space].operations.removeAll { $0 == operation.id }
    case .domain(let domain)? where domains.contains(domain):
      domains[domain].operations.removeAll { $0 == operation.id }
    default: break
    }
    if operation.kind == .pageRequestGroup {
      handler.idleWorkers += 1
    } else if operation.kind != .flushQueue && !operation.isAnswered {
      if operation.mirrorFault != nil, operation.kind != .rangeFault { handOwnPages(operation, &effects) }
      effects.append(.operation(outcome(of: operation)))
    }
    if case .addressSpace(let space)? = operation.target, spaces.contains(space), spaces[space].exiting,
      let exit = spaces[space].operations.first(where: { kind($0) == .exit }),
      let step = operations[exit.slot]?.step, lists[.exit][step] == .destroySpace
    {
      // It may have waited for this one. In any other step it waits for something else, which will wake it.
      wake(exit)
    }
    // A worker is idle again, or a slot for an operation is free.
    startWantedFlushes()
    dispatchGroups(&effects)
  }

  @inline(__always)
  func outcome(of operation: Operation) -> OperationOutcome {
    OperationOutcome(
      operation: operation.id, kind: operation.kind, status: operation.status, value: operation.value,
      nanoseconds: time - operation.acceptedAt)
  }

  /// Whether an operation takes no mmap lock: reclaim's and page_referenced's ways to a page.
  @inline(__always)
  func worksWithoutLock(_ id: OperationID) -> Bool {
    guard let kind = kind(id) else { return false }
    return OperationKind.withoutMmapLock.contains(kind)
  }

  @inline(__always)
  func report(_ letter: OperationStep.Letter, _ operation: Operation, _ range: PageRange, _ effects: inout Effects) {
    effects.append(.step(OperationStep(operation: operation.id, kind: operation.kind, letter: letter, range: range)))
  }

  @inline(__always)
  func stamp(_ operation: Operation) -> OperationStamp { OperationStamp(operation: operation.id, at: time) }

  /// Where the list goes on when the operation cannot: a group is answered, everything else returns.
  @inline(__always)
  func failure(_ operation: inout Operation, _ status: OperationOutcome.Status) -> StepOutcome {
    operation.status = status
    let list = lists[operation.kind]
    return .go(to: list.count - (operation.kind == .pageRequestGroup ? 2 : 1))
  }
}
