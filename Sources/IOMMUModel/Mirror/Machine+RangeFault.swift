// SPDX-License-Identifier: Apache-2.0

/// A mirror's fault, and what it may do with the answer.
extension Machine {
  mutating func rangeFault(
    _ id: SubscriberID, _ fault: RangeFault, _ effects: inout Effects
  ) throws(Refusal) -> OperationID {
    try require(id)
    let space = subscribers[id].space
    try require(space)
    try require(fault.range, for: id)
    try requireSlot()
    let operation = insert(.rangeFault, .addressSpace(space), fault.range) {
      $0.rights = fault.rights.impliedByEntry
      $0.mirrorFault = RangeFaultState(subscriber: id)
    }
    resume(operation, &effects)
    return operation
  }

  /// What a mirror may ask for in one call: pages whose end it will be told of.
  @inline(__always)
  private func require(_ range: PageRange, for id: SubscriberID) throws(Refusal) {
    try require(range)
    guard range.count <= RangeFault.pageLimit else {
      throw Refusal(.limitReached, .byteCount, figure: RangeFault.pageLimit << 12)
    }
    let profile = subscribers[id].profile
    guard !profile.kind.isInterval || profile.range.contains(range) else {
      throw Refusal(.outsideSubscription, [.address, .byteCount])
    }
  }

  /// Looks at every page of the range, and faults the first one in that does not grant what is wanted. The turn that
  /// finds nothing to fault answers.
  mutating func collect(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let id = operation.mirrorFault!.subscriber
    guard let space = operation.space, spaces.contains(space), subscribers.contains(id), !subscribers[id].isSilent
    else {
      return failure(&operation, .objectGone)
    }
    if subscribers[id].profile.kind.isInterval {
      let sequence = subscribers[id].sequence
      if operation.mirrorFault!.sequence == 0 {
        // mmu_interval_read_begin: sleeps while the subscriber's last invalidation is the one that is under way.
        if sequence == spaces[space].notifier.sequence {
          spaces[space].notifier.readers.append(operation.id)
          return .blocked
        }
        operation.mirrorFault!.sequence = sequence
      } else if operation.mirrorFault!.sequence != sequence {
        return failure(&operation, .busy)
      }
    }
    var pages: [MirrorPage] = []
    pages.reserveCapacity(Int(operation.range.count))
    for page in operation.range.first..<operation.range.end {
      let (position, entry) = locate(spaces[space].root, page)
      let isLeaf = entry.isPresent && (position.level == 0 || !entry.isTable)
      if isLeaf && entry.rights.isSuperset(of: operation.rights) {
        let frame = entry.leafFrame(level: position.level) + FrameNumber(page % position.span)
        pages.append(
          MirrorPage(
            physicalAddress: UInt64(frame) << 12, rights: entry.rights, sizeLog2: Page.sizeLog2 + 9 * position.level))
      } else if let own = ownPage(page, position, entry, subscribers[id].profile.owner, space),
        own.isDeviceMemory && own.rights.isSuperset(of: operation.rights)
      {
        pages.append(own)
      } else if operation.rights.isEmpty {
        pages.append(.absent)
      } else {
        // EPERM for a write that the area forbids; what cannot be reached at all is EFAULT, as of every fault.
        if let area = spaces[space].areas.find(page), area.rights == .read, operation.rights.contains(.write) {
          return failure(&operation, .notPermitted)
        }
        operation.fault.page = page
        operation.fault.wanted = operation.rights
        return .through
      }
    }
    hand(pages, to: id, operation, &effects)
    return .go(to: lists[operation.kind].count - 1)
  }

  /// Answers, and notes for the oracle what the mirror has been given.
  private mutating func hand(
    _ pages: [MirrorPage], to id: SubscriberID, _ operation: borrowing Operation, _ effects: inout Effects
  ) {
    subscribers[id].lastFault += 1
    let number = subscribers[id].lastFault
    var page = operation.range.first
    for found in pages {
      if !found.rights.isEmpty {
        let frame = FrameNumber(found.physicalAddress >> 12)
        subscribers[id].pages.hand(
          page,
          MirrorGrant(
            fault: number, frame: frame, generation: memory.generation(frame), level: (found.sizeLog2 - 12) / 9,
            rights: found.rights, at: time, afterEvent: subscribers[id].lastEvent,
            collided: subscribers[id].isInWindow(page)))
      }
      page += 1
    }
    effects.counters.rangeFaults += 1
    effects.append(
      RangeFaultAnswer(
        subscriber: id, operation: operation.id, number: number, sequence: operation.mirrorFault!.sequence,
        first: operation.range.first, pages: pages))
  }

  // MARK: Pages for the mirror alone

  /// migrate_vma to the device's own memory, or make_device_exclusive, by the mirror's driver: its events carry the
  /// owner, who may ignore them, and what was taken is answered as a fault's pages are.
  mutating func takePages(
    _ id: SubscriberID, _ kind: OperationKind, _ range: PageRange, _ effects: inout Effects
  ) throws(Refusal) -> OperationID {
    try require(id)
    guard kind == .migrateToDevice || kind == .makeDeviceExclusive else { throw Refusal(.notInThisKernel, []) }
    try require(range, for: id)
    return try start(.range(kind, subscribers[id].space, range), by: id, &effects)
  }

  /// The operation returns: the pages that it has set itself, and that nobody has taken back. What another driver has is
  /// never handed out.
  mutating func handOwnPages(_ operation: Operation, _ effects: inout Effects) {
    let id = operation.mirrorFault!.subscriber
    guard let space = operation.space, spaces.contains(space), subscribers.contains(id), !subscribers[id].isSilent
    else {
      return
    }
    let pages = (operation.range.first..<operation.range.end).map { page -> MirrorPage in
      let (position, entry) = locate(spaces[space].root, page)
      // Only what this very operation has taken: another driver's pages are not for this one.
      let setter = spaces[space].references.find(position.first(of: page), level: position.level)?.by.operation
      guard setter == operation.id else { return MirrorPage.absent }
      return ownPage(page, position, entry, operation.owner, space) ?? MirrorPage.absent
    }
    var operation = operation
    operation.mirrorFault!.sequence = subscribers[id].profile.kind.isInterval ? subscribers[id].sequence : 0
    hand(pages, to: id, operation, &effects)
  }

  /// A page that a device has: the owner's in its memory, or anybody's to itself. What a fork shares is written to nowhere
  /// but in a copy.
  @inline(__always)
  private func ownPage(
    _ page: PageNumber, _ position: EntryPosition, _ entry: PageTableEntry, _ owner: UInt32, _ space: AddressSpaceID
  ) -> MirrorPage? {
    let head = entry.leafFrame(level: position.level)
    let isHidden = entry.bits & PageTableEntry.heldWithoutRights != 0
    guard entry.isDevicePrivate && memory[head].deviceOwner == owner && !isHidden || entry.isDeviceExclusive,
      var rights = spaces[space].areas.find(page)?.rights, !rights.isEmpty
    else { return nil }
    if entry.isUserfaultWriteProtected || memory[head].references > 1 { rights.subtract(.write) }
    let frame = head + FrameNumber(page % position.span)
    return MirrorPage(
      physicalAddress: UInt64(frame) << 12, rights: rights, sizeLog2: Page.sizeLog2 + 9 * position.level,
      isDeviceMemory: entry.isDevicePrivate && owner != 0)
  }

  /// A page has really gone into a device's memory. Who asked for that may have ignored the event, and has lost what it had
  /// of the page all the same.
  mutating func retireMoved(_ operation: Operation) {
    guard operation.owner != 0, let space = operation.space else { return }
    let stamp = stamp(operation)
    for id in spaces[space].notifier.subscribers where subscribers[id].profile.owner == operation.owner {
      subscribers[id].pages.retire(operation.window, .start, by: stamp, before: .max)
    }
  }

  // MARK: The mirror's own table

  /// The mirror installs pages of a fault. Those whose fault has met an invalidation it should have faulted again.
  mutating func install(
    _ id: SubscriberID, _ install: MirrorInstall, _ effects: inout Effects
  ) throws(Refusal) {
    try require(id)
    try require(install.range)
    guard install.range.count <= RangeFault.pageLimit else {
      throw Refusal(.limitReached, .byteCount, figure: RangeFault.pageLimit << 12)
    }
    for page in install.range.first..<install.range.end {
      guard let handed = subscribers[id].pages[page]?.handed, handed.fault == install.fault else {
        throw Refusal(.faultNotAnswered, [.fault, .address], figure: page << 12)
      }
    }
    var isBooked = false
    for page in install.range.first..<install.range.end {
      let handed = subscribers[id].pages[page]!.handed!
      subscribers[id].pages.install(page, isReleased: subscribers[id].isReleased)
      let broken: VerdictKind? =
        subscribers[id].isReleased ? .mirrorAfterRelease : handed.collided ? .mirrorWithoutRetry : nil
      // One verdict for an install, of its first page that broke the rule.
      if let broken, !isBooked {
        isBooked = true
        effects.append(verdict(broken, id, page, handed, frame: handed.frame, write: false))
      }
    }
  }

  /// A mirror's access: judged, and performed as the settings say.
  mutating func access(
    _ id: SubscriberID, _ access: MirrorAccess, _ effects: inout Effects
  ) throws(Refusal) -> Reply {
    guard subscribers.contains(id) else { throw Refusal(.unknownSubscriber, .subscriber) }
    guard access.physicalAddress % 8 == 0 else { throw Refusal(.misaligned, .physicalAddress, figure: 8) }
    guard access.page < PageRange.all.end else {
      throw Refusal(.rangeOutsideAddressSpace, .address, figure: PageRange.all.end << 12)
    }
    if subscribers[id].isLost { return .mirrorAccess(.fenced, value: 0) }
    effects.counters.mirrorAccesses += 1
    let frame = FrameNumber(clamping: access.physicalAddress >> 12)
    guard frame > 0, frame < settings.frameCount else {
      effects.append(verdict(.forgedTranslation, id, access.page, nil, frame: frame, write: access.write))
      return .mirrorAccess(.unsupportedRequest, value: 0)
    }
    let found = judge(id, access, frame)
    if found == nil && access.write { markDirty(id, access.page, frame) }
    var answer = DMAAnswer(tag: 0, status: .success, write: access.write, value: 0)
    reach(frame, Int(access.physicalAddress & 0xfff) >> 3, writes: access.value, found, &answer, &effects)
    return .mirrorAccess(answer.status, value: answer.value)
  }

  /// Who writes through a table of its own says so (`set_page_dirty`), so that reclaim does not drop what it wrote.
  private mutating func markDirty(_ id: SubscriberID, _ page: PageNumber, _ frame: FrameNumber) {
    let space = subscribers[id].space
    guard spaces.contains(space) else { return }
    let (position, entry) = locate(spaces[space].root, page)
    // What stands there now may be of another size than what the mirror was given.
    guard entry.isPresent, entry.leafFrame(level: position.level) + FrameNumber(page % position.span) == frame else {
      return
    }
    memory.store(position.table, position.index, entry.bits | PageTableEntry.dirty)
  }

  /// Judges a mirror's access; nil: nothing is wrong.
  @inline(__always)
  private func judge(_ id: SubscriberID, _ access: MirrorAccess, _ frame: FrameNumber) -> Verdict? {
    let right: Rights = access.write ? .write : .read
    guard let grant = subscribers[id].pages[access.page]?.installed, grant.frame == frame,
      grant.rights.contains(right)
    else { return verdict(.forgedTranslation, id, access.page, nil, frame: frame, write: access.write) }
    func found(_ kind: VerdictKind, _ dropped: OperationStamp) -> Verdict {
      verdict(kind, id, access.page, grant, frame: frame, write: access.write, dropped: dropped)
    }
    switch grant.end {
    case .release: return found(.mirrorAfterRelease, grant.endedBy)
    case .start: return found(.mirrorAfterStart, grant.endedBy)
    case .none: break
    }
    let space = subscribers[id].space
    let first = access.page & ~(1 << (9 * UInt64(grant.level)) - 1)
    let reference = spaces.contains(space) ? spaces[space].references.find(first, level: grant.level) : nil
    let by = reference?.by ?? .none
    if memory.generation(grant.frame) != grant.generation || memory.isFree(frame) { return found(.staleDMA, by) }
    guard let reference else { return found(.staleDMA, by) }
    // What was dropped stays legal until the operation returns, old and new.
    let running = spaces[space].operations.contains { running in
      operations[running.slot]!.dropped.contains {
        $0.level == grant.level && $0.page == first || $0.level == 0 && $0.page == access.page
      }
    }
    if running { return nil }
    // A huge page that was split since: its parts are held one by one.
    if grant.level > 0, let part = spaces[space].references.find(access.page, level: 0), part.held, part.frame == frame
    {
      return !access.write || part.rights.contains(.write) ? nil : found(.writeAfterProtect, part.by)
    }
    let head = frame - FrameNumber(access.page - first)
    guard reference.held, reference.frame == head else { return found(.staleDMA, by) }
    let entry = locate(spaces[space].root, access.page).entry
    // The page is the device's own: nobody else's rights count.
    if entry.isDevicePrivate || entry.isDeviceExclusive { return nil }
    return !access.write || reference.rights.contains(.write) ? nil : found(.writeAfterProtect, by)
  }

  @inline(__always)
  private func verdict(
    _ kind: VerdictKind, _ id: SubscriberID, _ page: PageNumber, _ grant: MirrorGrant?, frame: FrameNumber, write: Bool,
    dropped: OperationStamp = .none
  ) -> Verdict {
    var found = verdict(kind, .mirror, DeviceID(rawValue: 0), 0, page, frame: frame, write: write)
    found.subscriber = id
    found.grantedVia = .mirror
    if let grant {
      found.grantGeneration = grant.generation
      found.grantedAt = grant.at
      found.dropped = history.mark(dropped)
    }
    return found
  }
}
