// SPDX-License-Identifier: Apache-2.0

/// A device without I/O and without a clock: its list of accesses, its ATC, its page-request credits, and the rules by
/// which it answers invalidations (design §4, "Devices and messages"). The storm's device processes and the simulation
/// run this same type.
///
/// The caller hands in what arrives, then calls `settle`, which says what can be said now: completions, page-request
/// groups, and new accesses. Messages go out in the order of `EndpointOutput.messages`.
///
///     access ─▶ ATC hit ───────────────────────────────▶ DMA ─▶ landed
///          └──▶ miss ─▶ translate ─▶ present ───────────▲
///                            ▲   └─▶ not present ─▶ page request ─▶ Success ─▶ translate …
///                            └── stale answer              └─▶ Invalid Request ─▶ refused
public struct DeviceEndpoint: Sendable {
  /// Whether the device may ask for pages.
  public enum PRIState: UInt8, Sendable {
    /// The device has no PRI, or software never enabled it.
    case absent
    case enabled
    /// Switched off by a Response Failure.
    case disabled
  }

  public let configuration: EndpointConfiguration
  public private(set) var counters = EndpointCounters()
  public private(set) var priState: PRIState
  public private(set) var isFenced = false
  /// Accesses that may have begun, in the closed loop; the open loops keep their schedule. A caller that keeps several
  /// lists in step raises it as they go on.
  public var startLimit = UInt64.max
  var stream: AccessStream
  var arrivals: ArrivalClock
  var atc: TranslationCache
  var slots: [AccessSlot]
  var freeSlot: Int32
  var active = 0
  var pages: PageRequestLedger
  var owed = InvalidationLedger()
  var stampSequence: UInt64 = 0

  /// `startTime`: when the open-loop schedules begin.
  public init(_ configuration: EndpointConfiguration, startTime: UInt64 = 0) {
    self.configuration = configuration
    stream = AccessStream(configuration.workload)
    arrivals = ArrivalClock(
      configuration.arrivals, start: startTime, seed: StreamGenerator.derived(configuration.workload.seed, 2))
    atc = TranslationCache(entryCount: configuration.translationCacheEntries)
    slots = Array(repeating: AccessSlot(), count: configuration.concurrency)
    for index in slots.indices { slots[index].next = Int32(index) + 1 }
    slots[slots.count - 1].next = -1
    freeSlot = 0
    pages = PageRequestLedger(allocation: configuration.priAllocation)
    priState = configuration.priAllocation > 0 ? .enabled : .absent
  }

  /// Accesses under way.
  public var outstandingAccesses: Int { active }
  /// Page requests sent and not answered.
  public var outstandingPageRequests: UInt32 { pages.outstanding }
  /// Invalidations that wait for uses to land, as ITag bits.
  public var waitingInvalidations: UInt32 { owed.waiting }
  /// Every access of the list has ended.
  public var isIdle: Bool { active == 0 && stream.remaining == 0 }
  /// Accesses that have ended, one way or another.
  public var endedAccesses: UInt64 { counters.done + counters.refused + counters.gaveUp + counters.fenced }
  /// The device would begin another access if `startLimit` were higher.
  public var isHeldBack: Bool {
    arrivals.isClosedLoop && counters.accesses >= startLimit && stream.remaining > 0 && freeSlot >= 0
  }
  /// When the next access arrives by the schedule; nil in the closed loop, and when the list is done.
  public var nextArrival: UInt64? {
    arrivals.isClosedLoop || stream.remaining == 0 || isFenced ? nil : arrivals.next
  }

  // MARK: What arrives

  /// A translation answer: a DMA, a page request, another try, or the end of the access.
  public mutating func receive(_ answer: ATSAnswer, now: UInt64, into out: inout EndpointOutput) {
    guard let index = slot(of: answer.tag, in: .translating) else { return }
    guard answer.status == .success else { return end(index, .refused, now, &out) }
    let isGranted = answer.rights.isSuperset(of: slots[index].rights)
    if isGranted { endStruggle(index, &out) }
    let stale = answer.order < slots[index].staleBelow(sizeLog2: answer.sizeLog2)
    if stale && !configuration.misbehaviour.contains(.ignoresOrder) {
      counters.discardedAnswers += 1
      return translate(index, &out)
    }
    let access = slots[index].access
    if !answer.rights.isEmpty {
      atc.insert(
        pasid: access.pasid, page: access.page, physicalAddress: answer.physicalAddress, sizeLog2: answer.sizeLog2,
        rights: answer.rights)
    }
    if isGranted {
      issue(index, answer.physicalAddress, answer.sizeLog2, &out)
    } else {
      missed(index, now, &out)
    }
  }

  /// A page response. Success: translate again. Invalid Request: refused. Response Failure: PRI is off.
  public mutating func receive(_ response: PRGResponse, now: UInt64, into out: inout EndpointOutput) {
    guard !isFenced else { return }
    guard let group = pages.close(index: response.groupIndex, pasid: response.pasid) else {
      counters.unexpected += 1
      return
    }
    out.pageRequestNanoseconds.append(now &- group.sentAt)
    var index = Int(group.head)
    while index >= 0 {
      let next = Int(slots[index].next)
      switch response.code {
      case .success: translate(index, &out)
      case .invalidRequest: end(index, .refused, now, &out)
      case .responseFailure: abandon(index, now, &out)
      }
      index = next
    }
    if response.code == .responseFailure { disablePRI(now: now, into: &out) }
  }

  /// PRI was switched off: every access that waits for a page is given up, now and from now on.
  public mutating func disablePRI(now: UInt64, into out: inout EndpointOutput) {
    guard priState == .enabled else { return }
    priState = .disabled
    pages.removeAll()
    for index in slots.indices where slots[index].struggles && slots[index].state != .translating {
      abandon(index, now, &out)
    }
  }

  /// An invalidation: the ATC forgets the range at once; the completion waits until every use of the range that is in
  /// flight has landed, and for nothing else.
  public mutating func receive(_ invalidation: ATSInvalidation, now: UInt64, into out: inout EndpointOutput) {
    guard !isFenced else { return }
    guard invalidation.itag < 32 else {
      counters.unexpected += 1
      return
    }
    counters.invalidations += 1
    let range = invalidation.pages
    let bit: UInt32 = 1 << UInt32(invalidation.itag)
    if owed.waiting & bit != 0 {
      // The tag is owed already, so the IOMMU broke its contract: the younger invalidation takes its place.
      counters.unexpected += 1
      for index in slots.indices { slots[index].holds &= ~bit }
    }
    var uses: UInt32 = 0
    for index in slots.indices where slots[index].state != .free && slots[index].access.pasid == invalidation.pasid {
      if slots[index].state == .translating {
        slots[index].noteInvalidation(range, order: invalidation.order)
      } else if slots[index].state == .accessing,
        PageBlock(slots[index].access.page, sizeLog2: slots[index].blockSizeLog2).overlaps(range)
      {
        slots[index].holds |= bit
        uses += 1
      }
    }
    var dropped = 0
    if !configuration.misbehaviour.contains(.keepsUsingAfterCompletion) {
      dropped = atc.invalidate(
        pasid: invalidation.pasid, page: invalidation.firstPage, sizeLog2: invalidation.sizeLog2)
    }
    if dropped > 0 || uses > 0 { counters.invalidationsInUse += 1 }
    guard !configuration.misbehaviour.contains(.neverCompletes) else {
      for index in slots.indices { slots[index].holds &= ~bit }
      return
    }
    if configuration.misbehaviour.contains(.completesEarly) {
      for index in slots.indices { slots[index].holds &= ~bit }
      uses = 0
    }
    owed.take(itag: invalidation.itag, uses: uses, now: now)
  }

  /// A DMA has landed, or was refused: the access ends.
  public mutating func receive(_ result: DMAResult, now: UInt64, into out: inout EndpointOutput) {
    guard let index = slot(of: result.tag, in: .accessing) else { return }
    if !slots[index].access.write { slots[index].value = result.value }
    owed.landed(holds: slots[index].holds)
    slots[index].holds = 0
    switch result.status {
    case .success: end(index, .done, now, &out)
    case .fenced: end(index, .fenced, now, &out)
    case .refused, .blocked, .unsupportedRequest: end(index, .refused, now, &out)
    }
  }

  /// The device was fenced: the ATC is empty, nothing is owed any more, and every access left ends as fenced.
  public mutating func fence(now: UInt64, into out: inout EndpointOutput) {
    guard !isFenced else { return }
    isFenced = true
    atc.removeAll()
    owed.removeAll()
    pages.removeAll()
    for index in slots.indices where slots[index].state != .free { end(index, .fenced, now, &out) }
    while let access = stream.next() {
      counters.accesses += 1
      counters.fenced += 1
      out.finished.append(
        FinishedAccess(
          result: .fenced, access: access, intendedAt: now, endedAt: now, pageRequests: 0, value: 0))
    }
  }

  // MARK: What goes out

  /// Says what can be said now: completions first, then page-request groups, then new accesses.
  public mutating func settle(now: UInt64, into out: inout EndpointOutput) {
    let ready = owed.takeReady()
    if ready != 0 {
      counters.completions += UInt64(ready.nonzeroBitCount)
      var rest = ready
      while rest != 0 {
        out.invalidationNanoseconds.append(now &- owed.arrivedAt[rest.trailingZeroBitCount])
        rest &= rest - 1
      }
      out.messages.append(.complete(itagVector: ready))
      if configuration.misbehaviour.contains(.completesTwice) { out.messages.append(.complete(itagVector: ready)) }
    }
    sendPageRequests(now, &out)
    startAccesses(now, &out)
  }

  private mutating func startAccesses(_ now: UInt64, _ out: inout EndpointOutput) {
    while freeSlot >= 0, arrivals.isClosedLoop ? counters.accesses < startLimit : arrivals.next <= now {
      guard let access = stream.next() else { return }
      let intendedAt = arrivals.isClosedLoop ? now : arrivals.take()
      let index = Int(freeSlot)
      freeSlot = slots[index].next
      active += 1
      counters.accesses += 1
      slots[index].access = access
      slots[index].intendedAt = intendedAt
      slots[index].pageRequests = 0
      slots[index].value = 0
      if let entry = atc.lookup(pasid: access.pasid, page: access.page),
        entry.rights.isSuperset(of: slots[index].rights)
      {
        counters.atcHits += 1
        issue(index, entry.physicalAddress, entry.sizeLog2, &out)
      } else if struggler(for: index) != nil {
        slots[index].state = .parked
      } else {
        translate(index, &out)
      }
    }
  }

  private mutating func translate(_ index: Int, _ out: inout EndpointOutput) {
    slots[index].state = .translating
    slots[index].staleBelow = (0, 0, 0)
    slots[index].generation &+= 1
    counters.translations += 1
    let access = slots[index].access
    out.messages.append(
      .translate(
        ATSRequest(tag: tag(index), pasid: access.pasid, page: access.page, noWrite: !access.write)))
  }

  private mutating func issue(
    _ index: Int, _ physicalAddress: UInt64, _ sizeLog2: UInt8, _ out: inout EndpointOutput
  ) {
    let access = slots[index].access
    slots[index].state = .accessing
    slots[index].blockSizeLog2 = sizeLog2
    slots[index].holds = 0
    slots[index].generation &+= 1
    if access.write {
      stampSequence += 1
      slots[index].value = UInt64(configuration.stampPrefix) << 40 | stampSequence
    }
    counters.dmas += 1
    let block = PageBlock(access.page, sizeLog2: sizeLog2)
    var address = physicalAddress &+ (access.page - block.first) << 12 &+ UInt64(access.offset)
    if configuration.misbehaviour.contains(.forgesAddresses) { address &+= 4096 }
    out.messages.append(
      .dma(
        DMAIssue(
          tag: tag(index), write: access.write, translated: true, pasid: access.pasid, address: address,
          page: access.page, value: slots[index].value)))
  }

  /// A translation was answered "not present", or without the right.
  private mutating func missed(_ index: Int, _ now: UInt64, _ out: inout EndpointOutput) {
    switch priState {
    case .absent: return end(index, .refused, now, &out)
    case .disabled: return abandon(index, now, &out)
    case .enabled: break
    }
    if let struggler = struggler(for: index) {
      slots[index].state = .parked
      if slots[struggler].state == .exhausted { exhaust(struggler, now, &out) }
      return
    }
    slots[index].struggles = true
    if slots[index].attempts > configuration.retryLimit { return exhaust(index, now, &out) }
    slots[index].state = .wantingPage
    slots[index].next = -1
    if pages.waitingTail >= 0 {
      slots[Int(pages.waitingTail)].next = Int32(index)
    } else {
      pages.waitingHead = Int32(index)
    }
    pages.waitingTail = Int32(index)
  }

  /// Gives an access up whose retries are used up, unless an answer is under way that may still bring the page: then
  /// software no longer counts the retries, and would call the device impatient.
  private mutating func exhaust(_ index: Int, _ now: UInt64, _ out: inout EndpointOutput) {
    slots[index].state = .exhausted
    for other in slots.indices where slots[other].state == .translating && isSamePage(other, index) { return }
    abandon(index, now, &out)
  }

  /// The other access of this device that struggles for the same page.
  private func struggler(for index: Int) -> Int? {
    slots.indices.first { $0 != index && slots[$0].struggles && isSamePage($0, index) }
  }

  @inline(__always) private func isSamePage(_ a: Int, _ b: Int) -> Bool {
    slots[a].access.page == slots[b].access.page && slots[a].access.pasid == slots[b].access.pasid
  }

  /// The page was granted, or the struggle for it is lost: who waited for the outcome asks for himself.
  private mutating func endStruggle(_ index: Int, _ out: inout EndpointOutput) {
    slots[index].struggles = false
    slots[index].attempts = 0
    for other in slots.indices where other != index && isSamePage(other, index) {
      slots[other].attempts = 0
      if slots[other].state == .parked || slots[other].state == .exhausted { translate(other, &out) }
    }
  }

  /// Forms groups of neighbours in the queue that share a PASID, as far as credits and indices go.
  private mutating func sendPageRequests(_ now: UInt64, _ out: inout EndpointOutput) {
    while pages.waitingHead >= 0 && pages.freeCount > 0 {
      let credits =
        configuration.misbehaviour.contains(.exceedsCredits) ? configuration.groupMemberLimit : Int(pages.credits)
      let limit = min(credits, configuration.groupMemberLimit)
      guard limit > 0 else { return }
      let head = pages.waitingHead
      let pasid = slots[Int(head)].access.pasid
      var tail = Int(head)
      var memberCount: UInt32 = 1
      while Int(memberCount) < limit, slots[tail].next >= 0, slots[Int(slots[tail].next)].access.pasid == pasid {
        tail = Int(slots[tail].next)
        memberCount += 1
      }
      pages.waitingHead = slots[tail].next
      if pages.waitingHead < 0 { pages.waitingTail = -1 }
      slots[tail].next = -1
      let groupIndex = pages.open(pasid: pasid, head: head, memberCount: memberCount, now: now)
      send(groupIndex, head, &out)
    }
  }

  private mutating func send(_ groupIndex: UInt16, _ head: Int32, _ out: inout EndpointOutput) {
    counters.groups += 1
    var index = Int(head)
    while index >= 0 {
      let next = Int(slots[index].next)
      slots[index].state = .pageRequested
      slots[index].pageRequests += 1
      slots[index].attempts += 1
      counters.pageRequests += 1
      if slots[index].pageRequests > 1 { counters.retries += 1 }
      let access = slots[index].access
      out.messages.append(
        .pageRequest(
          PRIRequest(
            pasid: access.pasid, page: access.page, rights: slots[index].rights, groupIndex: groupIndex,
            last: next < 0)))
      index = next
    }
  }

  /// Gives the access up, and says so: whether that is a verdict is the oracle's business.
  private mutating func abandon(_ index: Int, _ now: UInt64, _ out: inout EndpointOutput) {
    let access = slots[index].access
    out.messages.append(
      .giveUp(Abandonment(pasid: access.pasid, page: access.page, rights: slots[index].rights)))
    end(index, .gaveUp, now, &out)
  }

  private mutating func end(
    _ index: Int, _ result: FinishedAccess.Result, _ now: UInt64, _ out: inout EndpointOutput
  ) {
    let slot = slots[index]
    out.finished.append(
      FinishedAccess(
        result: result, access: slot.access, intendedAt: slot.intendedAt, endedAt: now,
        pageRequests: slot.pageRequests, value: slot.value))
    switch result {
    case .done: counters.done += 1
    case .refused: counters.refused += 1
    case .gaveUp: counters.gaveUp += 1
    case .fenced: counters.fenced += 1
    }
    slots[index].state = .free
    if !isFenced {
      if slots[index].struggles {
        endStruggle(index, &out)
      } else if let struggler = struggler(for: index), slots[struggler].state == .exhausted {
        exhaust(struggler, now, &out)
      }
    }
    slots[index].struggles = false
    slots[index].attempts = 0
    slots[index].holds = 0
    slots[index].next = freeSlot
    freeSlot = Int32(index)
    active -= 1
  }

  /// 31 bits: the API's limit.
  @inline(__always) private func tag(_ index: Int) -> UInt32 {
    UInt32(slots[index].generation & 0x7fff) << 16 | UInt32(index)
  }

  /// The slot that a tag names, if it waits for that kind of answer.
  @inline(__always) private mutating func slot(of tag: UInt32, in state: AccessSlot.State) -> Int? {
    let index = Int(tag & 0xffff)
    guard !isFenced else { return nil }
    guard index < slots.count, slots[index].state == state, slots[index].generation & 0x7fff == UInt16(tag >> 16) else {
      counters.unexpected += 1
      return nil
    }
    return index
  }
}
