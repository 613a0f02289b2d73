// SPDX-License-Identifier: Apache-2.0

/// Several translation requests of one device at once, as they arrive in one message of its stream. Each is a turn of
/// its own, and nobody can tell from effects, state or log that they came together: only the look-ups are shared.
extension Machine {
  /// Hits that are looked up together, before their grants are recorded together.
  private static let runLimit = 32

  /// Performs translation requests of one device, exactly as `apply` would one after the other at this time.
  /// - Returns: requests performed. The one behind them, if there is one, would be refused: `apply` says why.
  public mutating func translate(
    _ device: DeviceID, _ requests: Span<TranslationRequest>, at time: Nanoseconds, into effects: inout Effects
  ) -> Int {
    // Nothing may change, not even the device-context cache, when the first is refused.
    guard let position = devices.position(device), devices[position: position].profile.ats, requests.count > 0,
      requests[0].pasid <= Page.maximumPASID
    else { return 0 }
    let source = source(device, position)
    var index = 0
    // Hits come in runs; while there are none, nothing is looked up twice.
    var expectsHit = !source.isFenced
    while index < requests.count {
      if expectsHit {
        index &+= answerHits(source, requests, from: index, at: time, &effects)
        if index == requests.count { break }
      }
      let request = requests[index]
      guard request.pasid <= Page.maximumPASID else { break }
      begin(at: time)
      expectsHit = answer(source, request, &effects) == .iotlb
      finishTurn(&effects)
      index &+= 1
    }
    return index
  }

  /// Performs the requests from `first` on that the IOTLB answers whole: nothing changes then but grants and orders.
  /// - Returns: how many.
  @inline(never)
  private mutating func answerHits(
    _ source: Source, _ requests: Span<TranslationRequest>, from first: Int, at time: Nanoseconds,
    _ effects: inout Effects
  ) -> Int {
    let limit = min(requests.count &- first, Self.runLimit)
    // As many as `runLimit`.
    var hits = InlineArray<32, IOMMUCaches.Translation>(repeating: .none)
    var found = hits.mutableSpan
    var count = 0
    let order = devices[position: source.position].order
    let struggles = devices[position: source.position].attempts.count > 0
    effects.list.append(addingCapacity: limit) { list in
      while count < limit {
        let request = requests[first &+ count]
        guard request.pasid <= Page.maximumPASID, let entry = cachedPASIDEntry(source.rid, request.pasid),
          entry.kind == .table, entry.root != 0, request.page < PageRange.all.end,
          let hit = caches.translations.find(
            IOMMUCaches.key(IOMMUCaches.owner(tag: entry.tag, request.pasid), request.page, level: 0)),
          hit.satisfies(wantsWrite: !request.noWrite),
          !struggles
            || devices[position: source.position].attempts.find(
              PageKey(owner: request.pasid, page: request.page)) == nil
        else { return }
        found[count] = hit
        count &+= 1
        list.append(
          .translation(
            source.id,
            TranslationAnswer(
              page: request.page, physicalAddress: UInt64(hit.frame) << 12, order: order &+ UInt64(count),
              tag: request.tag, pasid: request.pasid, status: .success, sizeLog2: Page.sizeLog2, rights: hit.rights)))
      }
    }
    if count == 0 { return 0 }
    begin(at: time)
    turn &+= UInt64(count &- 1)
    effects.counters.translations &+= UInt64(count)
    effects.counters.iotlbHits &+= UInt64(count)
    note(source, hits.span.extracting(first: count), requests.extracting(first..<first &+ count))
    finishTurn(&effects)
    return count
  }

  /// Gives hits of the IOTLB their orders, and records the grants.
  @inline(__always)
  private mutating func note(
    _ source: Source, _ hits: Span<IOMMUCaches.Translation>, _ requests: Span<TranslationRequest>
  ) {
    var index = 0
    while true {
      index &+= devices[position: source.position].renew(
        hits.extracting(index..<hits.count), of: requests.extracting(index..<hits.count), at: time)
      if index == hits.count { return }
      _ = devices[position: source.position].note(hits[index].answer, requests[index], at: time)
      guessSlot(source, requests[index])
      index &+= 1
    }
  }

  /// Remembers beside a translation where its grant lies, so that it need not be looked for the next time.
  @inline(never)
  private mutating func guessSlot(_ source: Source, _ request: TranslationRequest) {
    guard let slot = devices[position: source.position].grants.slot(request.pasid, request.page),
      let entry = cachedPASIDEntry(source.rid, request.pasid)
    else { return }
    let owner = IOMMUCaches.owner(tag: entry.tag, request.pasid)
    caches.translations.change(IOMMUCaches.key(owner, request.page, level: 0)) {
      $0.grantSlot = UInt32(truncatingIfNeeded: slot)
    }
  }
}

extension Device {
  /// Gives hits of the IOTLB their orders, as long as their grants are where they are guessed to be.
  @inline(__always)
  fileprivate mutating func renew(
    _ hits: Span<IOMMUCaches.Translation>, of requests: Span<TranslationRequest>, at time: Nanoseconds
  ) -> Int {
    let count = grants.renew(hits, of: requests, after: order, at: time)
    order &+= UInt64(count)
    return count
  }
}

extension IOMMUCaches.Translation {
  /// What a hit on a 4 KiB page answers.
  @inline(__always)
  var answer: IOMMUAnswer {
    IOMMUAnswer(
      status: .success, frame: frame, generation: generation, rights: rights, via: .iotlb,
      throughFreedTable: throughFreedTable)
  }
}
