// SPDX-License-Identifier: Apache-2.0

/// The oracle (design §5): what it knows of grants and references, against every access.
extension Machine {
  // MARK: DMA

  /// Judges an access at its landing; nil: nothing is wrong.
  @inline(__always)
  func judge(_ id: DeviceID, _ dma: InFlightDMA, _ frame: FrameNumber) -> Verdict? {
    let request = dma.request
    let right: Rights = request.write ? .write : .read
    var pasid = request.pasid
    var first = request.page
    let grant: Grant
    if let translation = dma.translation {
      grant = translation
      first = request.page & ~(1 << (9 * UInt64(grant.level)) - 1)
    } else if let (page, claimed) = devices[id].grants.claimed(pasid, request.page, frame, right),
      claimed.rights.isSuperset(of: right)
    {
      first = page
      grant = claimed
    } else if let other = devices[id].grants.any(frame, right) {
      // It reached memory by the address alone: what it claims about it does not matter.
      pasid = other.pasid
      first = other.page
      grant = other.grant
    } else {
      return verdict(.forgedTranslation, .atc, id, pasid, request.page, frame: frame, write: request.write)
    }
    func found(_ kind: VerdictKind, dropped: OperationStamp = .none) -> Verdict {
      var verdict = verdict(
        kind, dma.translation == nil ? .atc : grant.via, id, pasid, request.page, frame: frame, write: request.write)
      verdict.grantGeneration = grant.generation
      verdict.grantedAt = grant.at
      verdict.grantedVia = grant.via
      verdict.dropped = history.mark(dropped)
      return verdict
    }
    if grant.retired { return found(.usedAfterCompletion) }
    guard let target = target(id, pasid) else { return found(.staleDMA) }
    guard let references = references(target) else { return isIdentity(target) ? nil : found(.staleDMA) }
    let reference = references.find(first, level: grant.level)
    let by = reference?.by ?? .none
    if grant.throughFreedTable { return found(.staleWalk, dropped: by) }
    let life = memory.generation(frame)
    if life != grant.generation || memory.isFree(frame) { return found(.staleDMA, dropped: by) }
    if let reference, reference.held, reference.frame == grant.frame {
      if !request.write || reference.rights.contains(.write) { return nil }
      return isInProgress(target, first, grant) ? nil : found(.writeAfterProtect, dropped: by)
    }
    // A huge page that was split since: its parts are held one by one.
    if grant.level > 0,
      let part = references.find(first + UInt64(frame - grant.frame), level: 0), part.held, part.frame == frame
    {
      return !request.write || part.rights.contains(.write) ? nil : found(.writeAfterProtect, dropped: part.by)
    }
    if let reference, reference.held, reference.replacedFrame == grant.frame,
      reference.replacedGeneration == grant.generation, reference.usedByCPU
    {
      return found(.splitView, dropped: by)
    }
    return isInProgress(target, first, grant) ? nil : found(.staleDMA, dropped: by)
  }

  /// Whether an operation that dropped or reduced this reference has not returned: old and new are both legal.
  @inline(__always)
  private func isInProgress(_ target: Binding.Target, _ page: PageNumber, _ grant: Grant) -> Bool {
    let running: [OperationID]
    switch target {
    case .addressSpace(let space):
      running = spaces[space].operations
      if spaces[space].flushQueue.references(page, grant.level, grant.frame, grant.generation) { return true }
    case .domain(let domain): running = domains[domain].operations
    case .kernel: return false
    }
    return running.contains { id in
      operations[id.slot]!.dropped.contains {
        $0.page == page && $0.level == grant.level && $0.frame == grant.frame && $0.generation == grant.generation
      }
    }
  }

  @inline(__always)
  private func target(_ id: DeviceID, _ pasid: PASID) -> Binding.Target? {
    devices[id].bindings.first { bindings[$0].pasid == pasid }.map { bindings[$0].target }
  }

  /// What an address space or a `PAGING` domain holds; nil: it is gone, or keeps no account.
  @inline(__always)
  private func references(_ target: Binding.Target) -> References? {
    switch target {
    case .addressSpace(let space): spaces.contains(space) ? spaces[space].references : nil
    case .domain(let domain): domains[domain].kind == .paging ? domains[domain].references : nil
    case .kernel: kernel.references
    }
  }

  @inline(__always)
  private func isIdentity(_ target: Binding.Target) -> Bool {
    if case .domain(let domain) = target { domains[domain].kind == .identity } else { false }
  }

  func verdict(
    _ kind: VerdictKind, _ via: Verdict.Via, _ device: DeviceID, _ pasid: PASID, _ page: PageNumber,
    frame: FrameNumber = 0, write: Bool = false
  ) -> Verdict {
    let freed = Int(frame) < memory.createdFrameCount ? memory[frame].freedBy : .none
    return Verdict(
      kind: kind, via: via, write: write, device: device, pasid: pasid, page: page, frame: frame,
      grantGeneration: 0, frameGeneration: memory.generation(frame), grantedAt: 0, grantedVia: .walk, at: time,
      dropped: .none,
      freed: history.mark(freed), requests: 0)
  }

  // MARK: Walks and CPUs

  mutating func bookStaleWalk(
    _ id: DeviceID, _ pasid: PASID, _ page: PageNumber, _ table: FrameNumber, _ generation: UInt32, _ via: Verdict.Via,
    _ effects: inout Effects
  ) {
    var found = verdict(.staleWalk, via, id, pasid, page, frame: table)
    found.grantGeneration = generation
    memory.explain(table)
    effects.append(found)
  }

  mutating func bookStaleCPU(_ entry: CPUTLB.Entry, write: Bool, _ effects: inout Effects) {
    var found = verdict(
      .staleCPU, .cpuTLB, DeviceID(rawValue: 0), 0, entry.page, frame: entry.frame, write: write)
    found.grantGeneration = entry.generation
    found.grantedAt = entry.at
    if write { memory.explain(entry.frame) }
    effects.append(found)
  }

  // MARK: Attempts

  /// A page request: the struggle for the page begins or goes on.
  mutating func noteAttempt(_ id: DeviceID, _ request: PageRequest) {
    let key = PageKey(owner: request.pasid, page: request.page)
    if let slot = devices[id].attempts.find(key) {
      devices[id].attempts[slot: slot].requests += 1
      devices[id].attempts[slot: slot].rights.formUnion(request.rights)
    } else {
      if devices[id].attempts.count >= Attempt.limit { forgetOldAttempts(id) }
      devices[id].attempts.set(
        key, Attempt(sinceTurn: turn, sinceTime: time, requests: 1, rights: request.rights, needless: false))
    }
  }

  /// A device that asks for pages and never translates them again leaves its attempts behind; the older half goes.
  private mutating func forgetOldAttempts(_ id: DeviceID) {
    let turns = devices[id].attempts.sorted.map(\.value.sinceTurn).sorted()
    let middle = turns[turns.count / 2]
    devices[id].attempts.keep { _, attempt in attempt.sinceTurn > middle }
  }

  /// A translation's answer: it ends the struggle, or was it needless?
  mutating func noteAnswer(_ id: DeviceID, _ request: TranslationRequest, _ answer: IOMMUAnswer, _ wanted: Rights) {
    let key = PageKey(owner: request.pasid, page: request.page)
    if answer.rights.isSuperset(of: wanted) {
      // A read that is granted does not end the struggle for a write.
      if let slot = devices[id].attempts.find(key),
        answer.rights.isSuperset(of: devices[id].attempts[slot: slot].rights)
      {
        devices[id].attempts.remove(key)
      }
      return
    }
    let needless = answer.status == .success && ownTableGrants(answer.binding, request.page, wanted)
    if let slot = devices[id].attempts.find(key) {
      devices[id].attempts[slot: slot].needless = needless
    } else if needless {
      if devices[id].attempts.count >= Attempt.limit { forgetOldAttempts(id) }
      devices[id].attempts.set(key, Attempt(sinceTurn: turn, sinceTime: time, rights: wanted, needless: true))
    }
  }

  /// Whether the address space's own table grants the right in this very turn.
  @inline(__always)
  private func ownTableGrants(_ binding: BindingID?, _ page: PageNumber, _ wanted: Rights) -> Bool {
    guard let binding, bindings.contains(binding), bindings[binding].table != .cut,
      case .addressSpace(let space) = bindings[binding].target,
      spaces.contains(space), page < PageRange.all.end
    else { return false }
    let (position, entry) = locate(spaces[space].root, page)
    guard entry.isPresent, position.level == 0 || !entry.isTable else { return false }
    return !wanted.contains(.write) || entry.isWritable
  }

  /// An Invalid Request: the device goes on without these pages, and a later access begins anew.
  mutating func endAttempts(_ group: PageRequestGroup) {
    for member in 0..<group.count {
      devices[group.device].attempts.remove(PageKey(owner: group.pasid, page: group[member].page))
    }
  }

  /// A success answer for one page: too many of them without a change between are a livelock.
  mutating func bookSuccess(
    _ group: PageRequestGroup, _ page: PageNumber, _ space: AddressSpaceID, _ slot: Int, _ effects: inout Effects
  ) {
    var changed: UInt64 = 0
    for level in UInt8(0)...2 {
      if let reference = spaces[space].references.find(page, level: level), reference.held {
        changed = reference.changedTurn
      }
    }
    var attempt = devices[group.device].attempts[slot: slot]
    attempt.successes = attempt.changedTurn == changed ? attempt.successes + 1 : 1
    attempt.changedTurn = changed
    if attempt.successes > settings.livelockLimit {
      var found = verdict(.livelock, .walk, group.device, group.pasid, page)
      found.requests = attempt.successes
      found.grantedAt = attempt.sinceTime
      effects.append(found)
      attempt.successes = 0
    }
    devices[group.device].attempts[slot: slot] = attempt
  }

  /// A device abandons an access. It is a verdict when one area with that right covered the page all the while.
  mutating func giveUp(
    _ id: DeviceID, _ pasid: PASID, _ page: PageNumber, _ rights: Rights, _ effects: inout Effects
  ) throws(Refusal) {
    try require(id)
    try require(pasid)
    let key = PageKey(owner: pasid, page: page)
    // While PRI is off an access is abandoned without a request of its own.
    let isOff = devices[id].profile.pri && !devices[id].priEnabled
    let attempt =
      devices[id].attempts[key]
      ?? (isOff ? Attempt(sinceTurn: turn, sinceTime: time, rights: rights, needless: false) : nil)
    guard !devices[id].priEnabled || (attempt?.requests ?? 0) > devices[id].profile.retryLimit else {
      throw Refusal(.retriesLeft, .device, figure: UInt64(devices[id].profile.retryLimit) + 1)
    }
    devices[id].attempts.remove(key)
    guard let attempt, case .addressSpace(let space)? = target(id, pasid), spaces.contains(space),
      let area = spaces[space].areas.find(page), area.rights.isSuperset(of: rights),
      area.sinceTurn <= attempt.sinceTurn, !rights.contains(.write) || area.writableSinceTurn <= attempt.sinceTurn
    else { return }
    var found = verdict(.gaveUp, .walk, id, pasid, page, write: rights.contains(.write))
    found.requests = attempt.requests
    found.grantedAt = attempt.sinceTime
    effects.append(found)
  }
}
