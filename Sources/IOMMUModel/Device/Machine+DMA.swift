// SPDX-License-Identifier: Apache-2.0

/// DMA in two turns: issue and landing. Verdicts are decided at the landing.
extension Machine {
  /// Issues a DMA; an untranslated one passes the IOMMU now.
  mutating func issue(_ id: DeviceID, _ request: DMARequest, _ effects: inout Effects) throws(Refusal) {
    try require(id)
    try require(request.pasid)
    guard request.address % 8 == 0 else { throw Refusal(.misaligned, .address, figure: 8) }
    guard !request.translated || devices[id].profile.ats else { throw Refusal(.atsDisabled, .device) }
    guard devices[id].dmaInFlight < settings.limits.dmaInFlightPerDevice else {
      throw Refusal(.limitReached, .device, figure: UInt64(settings.limits.dmaInFlightPerDevice))
    }
    var request = request
    if !request.translated { request.page = request.address >> 12 }
    var dma = InFlightDMA(request: request, physicalAddress: request.address, landsAt: 0, translation: nil)
    if !request.translated && !devices[id].fenced {
      let right: Rights = request.write ? .write : .read
      let rid = devices[id].profile.rid
      cacheContext(rid, id)
      let answer = translate(
        id, rid: rid, request.pasid, request.page, wantsWrite: request.write, &effects)
      if answer.rights.isSuperset(of: right) {
        let span = UInt64(1) << (9 * UInt64(answer.level))
        dma.physicalAddress = (UInt64(answer.frame) + request.page % span) << 12 | request.address & 0xfff
        dma.translation = Grant(
          frame: answer.frame, generation: answer.generation, level: answer.level, rights: answer.rights,
          via: answer.via, throughFreedTable: answer.throughFreedTable, order: devices[id].order, at: time)
      }
    }
    dma.landsAt = max(devices[id].lastLanding, time + cost(settings.costs.dmaLanding))
    devices[id].lastLanding = dma.landsAt
    devices[id].dmaInFlight += 1
    devices[id].posted.append(.dma(dma))
    _ = pending.schedule(.landing(id), at: dma.landsAt)
  }

  /// Lands the oldest DMA of a device, and applies the completions that were posted behind it.
  mutating func land(_ id: DeviceID, _ effects: inout Effects) {
    guard case .dma(let dma)? = devices[id].posted.popFirst() else { preconditionFailure("a landing has its DMA") }
    devices[id].dmaInFlight -= 1
    finish(id, dma, &effects)
    while let next = devices[id].posted.first {
      switch next {
      case .dma: return
      case .completion(let vector):
        devices[id].posted.removeFirst()
        devices[id].completionsPosted -= 1
        complete(id, vector, &effects)
      case .drain(let operation):
        devices[id].posted.removeFirst()
        settle(operation)
      }
    }
  }

  private mutating func finish(_ id: DeviceID, _ dma: InFlightDMA, _ effects: inout Effects) {
    let request = dma.request
    var answer = DMAAnswer(tag: request.tag, status: .success, write: request.write, value: 0)
    let frame = FrameNumber(truncatingIfNeeded: dma.physicalAddress >> 12)
    if devices[id].fenced {
      answer.status = .fenced
    } else if !request.translated && dma.translation == nil {
      answer.status = .refused
    } else if request.translated && isBlocked(id, request.pasid) {
      answer.status = .refused
    } else if dma.physicalAddress >> 12 >= UInt64(settings.frameCount) || frame == 0 {
      answer.status = .unsupportedRequest
      // No translation leads to where no memory is, so the device made the address up.
      if request.translated {
        effects.counters.dmaChecked += 1
        effects.append(
          verdict(
            .forgedTranslation, .atc, id, request.pasid, request.page,
            frame: FrameNumber(clamping: dma.physicalAddress >> 12), write: request.write))
      }
    } else {
      effects.counters.dmaChecked += 1
      let found = judge(id, dma, frame)
      reach(frame, Int(dma.physicalAddress & 0xfff) >> 3, writes: request.value, found, &answer, &effects)
    }
    effects.append(.dma(id, answer))
  }

  /// Performs an access that was judged, blocks or poisons it, as the settings say.
  @inline(__always)
  mutating func reach(
    _ frame: FrameNumber, _ word: Int, writes value: UInt64, _ found: Verdict?, _ answer: inout DMAAnswer,
    _ effects: inout Effects
  ) {
    if let found {
      effects.append(found)
      switch settings.oracleAction {
      case .block: answer.status = .blocked
      case _ where protectsItself(answer.write, frame): answer.status = .blocked
      case .poison: answer.value = answer.write ? 0 : 0xdead_beef_dead_beef
      case .perform:
        if answer.write {
          memory.storeUnaccounted(frame, word, value)
          memory.explain(frame)
        } else {
          answer.value = memory.load(frame, word)
        }
      }
    } else if protectsItself(answer.write, frame) {
      answer.status = .blocked
    } else if answer.write {
      memory.store(frame, word, value)
    } else {
      answer.value = memory.load(frame, word)
    }
  }

  /// A device never writes into a page table of the machine's own software, right or wrong: the access is recorded and
  /// explained, but the simulation does not let itself be corrupted (design §5).
  @inline(__always)
  private func protectsItself(_ write: Bool, _ frame: FrameNumber) -> Bool {
    write && Int(frame) < memory.createdFrameCount && memory[frame].use == .table
  }

  /// A PASID that is attached to a `BLOCKED` domain refuses translated requests as well.
  @inline(__always)
  private func isBlocked(_ id: DeviceID, _ pasid: PASID) -> Bool {
    guard let binding = devices[id].bindings.first(where: { bindings[$0].pasid == pasid }),
      case .domain(let domain) = bindings[binding].target
    else { return false }
    return domains[domain].kind == .blocked
  }
}
