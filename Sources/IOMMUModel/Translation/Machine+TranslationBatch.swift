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
    devices[position: source.position].note(hits.span, count, requests, from: first, at: self.time)
    finishTurn(&effects)
    return count
  }
}

extension Device {
  /// Gives hits of the IOTLB their orders, and records the grants.
  @inline(__always)
  fileprivate mutating func note(
    _ hits: Span<IOMMUCaches.Translation>, _ count: Int, _ requests: Span<TranslationRequest>, from first: Int,
    at time: Nanoseconds
  ) {
    for index in 0..<count {
      let hit = hits[index]
      let answer = IOMMUAnswer(
        status: .success, frame: hit.frame, generation: hit.generation, rights: hit.rights, via: .iotlb,
        throughFreedTable: hit.throughFreedTable)
      _ = note(answer, requests[first &+ index], at: time)
    }
  }
}
