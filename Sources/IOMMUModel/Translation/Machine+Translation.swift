// SPDX-License-Identifier: Apache-2.0

/// What the IOMMU found for a page. `rights` empty: not present, or nothing is allowed.
struct IOMMUAnswer {
  var status: TranslationAnswer.Status
  var frame: FrameNumber = 0
  var generation: UInt32 = 0
  var level: UInt8 = 0
  var rights: Rights = []
  var via: Verdict.Via = .walk
  var throughFreedTable = false
  var binding: BindingID?

  static let unsupported = IOMMUAnswer(status: .unsupportedRequest)
}

extension Device {
  /// Gives the answer its order, and records the grant if it is one.
  @inline(__always)
  mutating func note(_ answer: IOMMUAnswer, _ request: TranslationRequest, at time: Nanoseconds) -> Order {
    order &+= 1
    if !answer.rights.isEmpty && !grants.renew(answer, order: order, at: time, pasid: request.pasid, page: request.page)
    {
      grants.issue(
        Grant(
          frame: answer.frame, generation: answer.generation, level: answer.level, rights: answer.rights,
          via: answer.via, throughFreedTable: answer.throughFreedTable, order: order, at: time),
        pasid: request.pasid, page: request.page)
    }
    return order
  }
}

/// The IOMMU's side of a translation: context, PASID, IOTLB, walk cache, walk. One turn, and the order of the answer is
/// given in it.
extension Machine {
  /// Answers an ATS Translation Request, and records the grant.
  @inline(__always)
  mutating func answerTranslation(
    _ id: DeviceID, _ request: TranslationRequest, _ effects: inout Effects
  ) throws(Refusal) {
    guard let position = devices.position(id) else { throw Refusal(.unknownDevice, .device) }
    try require(request.pasid)
    guard devices[position: position].profile.ats else { throw Refusal(.atsDisabled, .device) }
    let source = source(id, position)
    answer(source, request, &effects)
  }

  /// The device of translation requests, looked up once.
  struct Source {
    let id: DeviceID
    let position: Int
    let rid: UInt16
    let isFenced: Bool
  }

  /// Looks a device up, and sees to it that the device-context cache knows whose its requester id is.
  @inline(__always)
  mutating func source(_ id: DeviceID, _ position: Int) -> Source {
    let source = Source(
      id: id, position: position, rid: devices[position: position].profile.rid,
      isFenced: devices[position: position].fenced)
    if !source.isFenced { cacheContext(source.rid, id) }
    return source
  }

  @inline(__always)
  mutating func cacheContext(_ rid: UInt16, _ id: DeviceID) {
    let key = BoundedCache<IOMMUCaches.Context>.Key(owner: UInt64(rid), page: 0)
    if !caches.contexts.contains(key) { caches.contexts.insert(key, .init(device: id)) }
  }

  /// - Returns: where the answer came from.
  @inline(__always) @discardableResult
  mutating func answer(
    _ source: Source, _ request: TranslationRequest, _ effects: inout Effects
  ) -> Verdict.Via {
    effects.counters.translations &+= 1
    let answer =
      source.isFenced
      ? .unsupported
      : translate(
        source.id, rid: source.rid, request.pasid, request.page, wantsWrite: !request.noWrite, &effects)
    let wanted: Rights = request.noWrite ? .read : .readWrite
    let order = devices[position: source.position].note(answer, request, at: time)
    if devices[position: source.position].attempts.count > 0 || !answer.rights.isSuperset(of: wanted) {
      noteAnswer(source.id, request, answer, wanted)
    }
    effects.append(
      .translation(
        source.id,
        TranslationAnswer(
          page: request.page, physicalAddress: UInt64(answer.frame) << 12, order: order, tag: request.tag,
          pasid: request.pasid, status: answer.status, sizeLog2: PageTableFormat.spanLog2(level: answer.level),
          rights: answer.rights)))
    return answer.via
  }

  /// Translates a page for a device whose context is cached. Caches what it finds; never what it does not (`iommu-hardware.md` A3, rule 6).
  @inline(__always)
  mutating func translate(
    _ id: DeviceID, rid: UInt16, _ pasid: PASID, _ page: PageNumber, wantsWrite: Bool, _ effects: inout Effects
  ) -> IOMMUAnswer {
    guard let entry = pasidEntry(id, rid, pasid) else { return .unsupported }
    switch entry.kind {
    case .blocked: return .unsupported
    case .identity:
      guard page < UInt64(settings.frameCount) else { return IOMMUAnswer(status: .success, binding: entry.binding) }
      let frame = FrameNumber(page)
      return IOMMUAnswer(
        status: .success, frame: frame, generation: memory.generation(frame), rights: .readWrite,
        binding: entry.binding)
    case .table:
      guard entry.root != 0, page < PageRange.all.end || PageRange.kernel.contains(page) else {
        return IOMMUAnswer(status: .success, binding: entry.binding)
      }
      let owner = IOMMUCaches.owner(tag: entry.tag, pasid)
      if let hit = findTranslation(owner, page),
        hit.0.satisfies(wantsWrite: wantsWrite) || settings.cachesRights && hit.0.withholdsWrite
      {
        effects.counters.iotlbHits &+= 1
        return IOMMUAnswer(
          status: .success, frame: hit.0.frame, generation: hit.0.generation, level: hit.level,
          rights: hit.0.rights, via: .iotlb, throughFreedTable: hit.0.throughFreedTable, binding: entry.binding)
      }
      return walk(id, entry, owner, pasid, page, wantsWrite: wantsWrite, &effects)
    }
  }

  /// The PASID's entry, from its cache or from the table.
  @inline(__always)
  private mutating func pasidEntry(_ id: DeviceID, _ rid: UInt16, _ pasid: PASID) -> IOMMUCaches.PASIDEntry? {
    if let entry = cachedPASIDEntry(rid, pasid) { return entry }
    guard let bindingID = devices[id].bindings.first(where: { bindings[$0].pasid == pasid }) else { return nil }
    let binding = bindings[bindingID]
    var kind = IOMMUCaches.PASIDEntry.Kind.table
    if case .domain(let domain) = binding.target {
      switch domains[domain].kind {
      case .paging: break
      case .identity: kind = .identity
      case .blocked: kind = .blocked
      }
    }
    let entry = IOMMUCaches.PASIDEntry(
      kind: binding.table == .cut && kind != .table ? .blocked : kind, binding: bindingID,
      tag: Self.tag(binding.target), root: binding.table == .real ? binding.root : 0,
      rootGeneration: binding.rootGeneration)
    caches.pasids.insert(.init(owner: UInt64(rid), page: UInt64(pasid)), entry)
    return entry
  }

  @inline(__always)
  func cachedPASIDEntry(_ rid: UInt16, _ pasid: PASID) -> IOMMUCaches.PASIDEntry? {
    caches.pasids.find(.init(owner: UInt64(rid), page: UInt64(pasid)))
  }

  @inline(__always)
  private func findTranslation(_ owner: UInt64, _ page: PageNumber) -> (IOMMUCaches.Translation, level: UInt8)? {
    if let hit = caches.translations.find(IOMMUCaches.key(owner, page, level: 0)) { return (hit, 0) }
    guard caches.hasLargeTranslations else { return nil }
    for level in UInt8(1)...2 {
      if let hit = caches.translations.find(IOMMUCaches.key(owner, page, level: level)) { return (hit, level) }
    }
    return nil
  }

  /// Walks from the deepest table that the walk cache knows; if that leads to less than was asked, once more from the
  /// root (design §4).
  private mutating func walk(
    _ id: DeviceID, _ entry: IOMMUCaches.PASIDEntry, _ owner: UInt64, _ pasid: PASID, _ page: PageNumber,
    wantsWrite: Bool, _ effects: inout Effects
  ) -> IOMMUAnswer {
    effects.counters.walks &+= 1
    if let (start, generation, marked) = cachedPosition(owner, page) {
      let answer = walk(
        id, entry, owner, pasid, page, from: start, generation, marked: marked, via: .walkCache,
        wantsWrite: wantsWrite, &effects)
      if answer.rights.isSuperset(of: wantsWrite ? .readWrite : .read) { return answer }
    }
    let root = WalkPosition(table: entry.root, level: walker.format.levelCount - 1, writable: true)
    return walk(
      id, entry, owner, pasid, page, from: root, entry.rootGeneration, marked: false, via: .walk,
      wantsWrite: wantsWrite, &effects)
  }

  @inline(__always)
  private func cachedPosition(_ owner: UInt64, _ page: PageNumber) -> (WalkPosition, UInt32, Bool)? {
    for level in UInt8(0)..<walker.format.levelCount - 1 {
      if let cached = caches.walks.find(IOMMUCaches.walkKey(owner, page, tableLevel: level)) {
        return (
          WalkPosition(table: cached.table, level: level, writable: cached.writable), cached.generation,
          cached.throughFreedTable
        )
      }
    }
    return nil
  }

  private mutating func walk(
    _ id: DeviceID, _ entry: IOMMUCaches.PASIDEntry, _ owner: UInt64, _ pasid: PASID, _ page: PageNumber,
    from start: WalkPosition, _ generation: UInt32, marked: Bool, via: Verdict.Via, wantsWrite: Bool,
    _ effects: inout Effects
  ) -> IOMMUAnswer {
    let (result, suspect) = caches.walk(
      walker, &memory, owner, from: start, generation, marked: marked, page: page,
      access: wantsWrite ? [.updateBits, .writeIfAllowed] : .updateBits)
    if let suspect { bookStaleWalk(id, pasid, page, suspect.table, suspect.generation, via, &effects) }
    let stale = marked || suspect != nil
    if stale { explainStaleTables(from: start, page, downTo: result.level) }
    guard case .leaf(let leaf) = result else { return IOMMUAnswer(status: .success, via: via, binding: entry.binding) }
    let dirty = wantsWrite && leaf.rights.contains(.write)
    let life = memory.generation(leaf.frame)
    caches.translations.insert(
      IOMMUCaches.key(owner, page, level: leaf.level),
      .init(frame: leaf.frame, generation: life, rights: leaf.rights, dirty: dirty, throughFreedTable: stale))
    if leaf.level > 0 { caches.hasLargeTranslations = true }
    return IOMMUAnswer(
      status: .success, frame: leaf.frame, generation: life, level: leaf.level, rights: leaf.rights, via: via,
      throughFreedTable: stale, binding: entry.binding)
  }

  /// Accessed and Dirty bits may have been written into every table on a stale way: the verdict stands for all.
  private mutating func explainStaleTables(from start: WalkPosition, _ page: PageNumber, downTo last: UInt8) {
    var table = start.table
    var level = start.level
    while true {
      if memory.isStaleTable(table) { memory.explain(table) }
      if level == last { return }
      table = PageTableEntry(bits: memory.load(table, walker.format.index(page, level: level))).frame
      level -= 1
    }
  }
}

extension IOMMUCaches {
  /// Walks, and puts the tables on the way into the walk cache, whether or not they lead to a page: the entries that
  /// point to them are present (Intel SDM vol. 3, 4.10.3).
  /// - Parameters:
  ///   - generation: the life in which the first table is expected.
  ///   - marked: what led to the first table had been freed.
  /// - Returns: the first table that is another than the walk takes it for, with the life that was expected, if known.
  @inline(__always)
  fileprivate mutating func walk(
    _ walker: PageWalker, _ memory: inout PhysicalMemory, _ owner: UInt64, from start: WalkPosition,
    _ generation: UInt32, marked: Bool, page: PageNumber, access: WalkAccess
  ) -> (WalkResult, suspect: (table: FrameNumber, generation: UInt32)?) {
    var suspect: (table: FrameNumber, generation: UInt32)?
    let result = walker.walk(&memory, from: start, page: page, access: access) { step in
      if step.position.level == start.level {
        if step.isStale || step.generation != generation { suspect = (step.position.table, generation) }
      } else {
        if step.isStale && suspect == nil { suspect = (step.position.table, 0) }
        walks.insert(
          Self.walkKey(owner, page, tableLevel: step.position.level),
          .init(
            table: step.position.table, generation: step.generation, writable: step.position.writable,
            throughFreedTable: marked || suspect != nil))
      }
    }
    if suspect != nil && !marked {
      // The tables above it led to it: they are marked like those below.
      for level in result.level..<start.level {
        walks.change(Self.walkKey(owner, page, tableLevel: level)) { $0.throughFreedTable = true }
      }
    }
    return (result, suspect)
  }
}
