// SPDX-License-Identifier: Apache-2.0

/// From what was seen to a chain that is short enough to read.
extension Sightings {
  /// An event, and how much the story needs it; 0 most.
  private struct Draft {
    var event: Explanation.Event
    var need: Int
  }

  func explanation(device: String) -> Explanation {
    var told = self
    told.completeDrop()
    return told.story(device)
  }

  private func story(_ device: String) -> Explanation {
    let words = VerdictWords(verdict, device: device)
    let shown = isStruggle ? Array(blinding.prefix(2)) : []
    let name = strategy.map { strategy in
      Strategy.named.first { $0.strategy == strategy }.map { "strategy \($0.name)" } ?? "a strategy of its own"
    }
    let stage = Stage(verdict, words, strategy: name ?? "", more: shown.map(\.mark))
    var drafts = isStruggle ? struggle(stage, words, shown) : loss(stage, words)
    drafts = drafts.enumerated()
      .sorted { ($0.element.event.at!, $0.offset) < ($1.element.event.at!, $1.offset) }
      .map(\.element)
    while drafts.count >= Explanation.eventLimit, let least = drafts.map(\.need).max(), least > 0 {
      drafts.remove(at: drafts.firstIndex { $0.need == least }!)
    }
    var events = drafts.map(\.event)
    events.append(
      .init(at: verdict.at, kind: .verdict, from: stage.accessor, to: stage.accessor, text: words.access))
    return Explanation(verdict.kind, words.sentence, stage.lanes, events)
  }

  // MARK: A page that was lost

  private func loss(_ stage: Stage, _ words: VerdictWords) -> [Draft] {
    var drafts: [Draft] = []
    func add(
      _ at: Nanoseconds, _ from: Int, to: Int? = nil, _ text: String, need: Int = 0,
      _ kind: Explanation.Event.Kind = .step
    ) {
      drafts.append(Draft(event: .init(at: at, kind: kind, from: from, to: to ?? from, text: text), need: need))
    }
    var toldTags: [UInt8] = []
    for sighting in list {
      let at = sighting.at
      switch sighting.what {
      case .granted: break
      case .filled(let other):
        let whom = other == verdict.device ? "" : " for another device"
        add(at, stage.iommu, "walks for \(words.page)\(whom), and keeps it in the IOTLB")
      case .step(let step): tell(step, at: at, stage, add)
      case .pushed(let itag, let operation):
        // An invalidation that came before the grant explains something only if an operation of the story sent it.
        guard at >= verdict.grantedAt || stage.contains(operation) else { continue }
        toldTags.append(itag)
        add(at, stage.iommu, to: stage.device, "invalidation, ITag \(itag)", need: 1)
      case .ended(let itag, let kind):
        guard let index = toldTags.firstIndex(of: itag) else { continue }
        toldTags.remove(at: index)
        if kind == .completed {
          add(at, stage.device, to: stage.iommu, "completion, ITag \(itag)", need: 1)
        } else {
          add(at, stage.iommu, "no completion of ITag \(itag): \(kind.story)", .missing)
        }
      case .issued where at < max(verdict.dropped.at, verdict.freedForGood ? verdict.freed.at : 0):
        add(at, stage.device, "issues the access")
      case .usedByCPU:
        if verdict.dropped.operation != .none {
          add(at, stage.lane(verdict.dropped.operation), "a CPU uses the page in its new frame")
        }
      case .returned(let operation): add(at, stage.lane(operation), "returns", need: 2)
      case .issued, .notPresent, .requested, .answered: break
      }
    }
    if verdict.grantGeneration > 0 && !verdict.isWalk {
      add(verdict.grantedAt, stage.iommu, to: stage.device, words.grant)
    }
    if verdict.dropped.operation != .none { add(verdict.dropped.at, stage.lane(verdict.dropped.operation), words.drop) }
    if verdict.freedForGood { add(verdict.freed.at, stage.lane(verdict.freed.operation), words.free) }
    conclude(stage, drafts, owed: toldTags, add)
    return drafts
  }

  /// Since when a cache had the translation: an IOTLB may have kept it for the device's grant.
  private var heldSince: Nanoseconds {
    let filled = list.first { if case .filled = $0.what { true } else { false } }
    return min(filled?.at ?? .max, verdict.grantedAt)
  }

  private typealias Add = (Nanoseconds, Int, Int?, String, Int, Explanation.Event.Kind) -> Void

  /// A letter of an operation of the story.
  private func tell(_ step: OperationStep, at: Nanoseconds, _ stage: Stage, _ add: Add) {
    let lane = stage.lane(step.operation)
    let isAfter = at >= max(heldSince, verdict.dropped.at)
    switch step.letter {
    case .cpuFlush where isAfter && !verdict.isOfCPU: add(at, lane, nil, "C: flushes the CPUs' TLBs", 2, .step)
    case .tablesUnlinked where verdict.isWalk: add(at, lane, nil, "unlinks the page tables", 0, .step)
    case .release: add(at, lane, stage.iommu, "release: cuts the PASID, flushes everything", 1, .step)
    case .start, .flushSite, .end, .invalidatePage, .changePTE, .young:
      guard !verdict.isOfCPU, let strategy, let (site, name) = step.letter.site else { return }
      if strategy.acts(at: site) {
        if strategy.flushesATC || verdict.isWalk {
          add(at, lane, stage.iommu, "\(name): flushes", 1, .step)
        } else if isAfter {
          add(at, lane, nil, "\(name): flushes the IOMMU, never tells the device", 0, .missing)
        }
      } else if isAfter {
        // A CPU flush where a device is told nothing is what it is all about; other hooks only say so too.
        add(at, lane, nil, "\(name): no flush", site == .flushSite ? 0 : 1, .missing)
      }
    default: break
    }
  }

  /// What did not come, where no step of the story says so.
  private func conclude(_ stage: Stage, _ drafts: [Draft], owed: [UInt8], _ add: Add) {
    if verdict.kind == .forgedTranslation {
      return add(verdict.at, stage.iommu, nil, "no translation to this frame was ever given to it", 0, .missing)
    }
    for itag in owed {
      add(verdict.at, stage.device, nil, "ITag \(itag) is not completed yet", 0, .missing)
    }
    let losses: [VerdictKind] = [.staleDMA, .writeAfterProtect, .splitView]
    guard losses.contains(verdict.kind), verdict.dropped.operation != .none || verdict.freedForGood,
      !drafts.contains(where: { $0.event.kind == .missing })
    else { return }
    let since = verdict.dropped.operation != .none ? verdict.dropped.at : verdict.freed.at
    let pushed = list.contains { if case .pushed = $0.what { $0.at >= since } else { false } }
    if !pushed { add(verdict.at, stage.iommu, nil, "no invalidation since the entry was cleared", 0, .missing) }
  }

  // MARK: A struggle for a page

  /// The windows of the empty table that made an answer say "not present".
  private var blinding: [Window] {
    windows.filter { window in
      list.contains { $0.what == .notPresent && $0.at >= window.mark.at && $0.at <= window.until ?? .max }
    }
  }

  private func struggle(_ stage: Stage, _ words: VerdictWords, _ shown: [Window]) -> [Draft] {
    var drafts: [Draft] = []
    func add(_ at: Nanoseconds, _ from: Int, to: Int? = nil, _ text: String, need: Int = 0) {
      drafts.append(Draft(event: .init(at: at, kind: .step, from: from, to: to ?? from, text: text), need: need))
    }
    for window in shown {
      let lane = stage.lane(window.mark.operation)
      add(window.mark.at, lane, to: stage.iommu, "S: the PASID points to an empty table")
      if let until = window.until, until <= verdict.at {
        add(until, lane, to: stage.iommu, "E: the PASID points to the table again", need: 1)
      }
    }
    var round = 0
    var rest = 0
    var restAt: Nanoseconds = 0
    for sighting in list {
      if sighting.what == .requested { round += 1 }
      guard round <= 1 else {
        if sighting.what == .requested {
          rest += 1
          restAt = sighting.at
        }
        continue
      }
      switch sighting.what {
      case .notPresent:
        if !drafts.contains(where: { $0.event.text.hasSuffix("not present") }) {
          add(sighting.at, stage.iommu, to: stage.device, "\(words.page): not present")
        }
      case .requested: add(sighting.at, stage.device, to: stage.iommu, "page request")
      case .answered(let code): add(sighting.at, stage.iommu, to: stage.device, "answer: \(code.story)")
      default: break
      }
    }
    if rest > 0 {
      add(restAt, stage.device, "asks \(rest) more time\(rest == 1 ? "" : "s"), with the same end")
    }
    let others = blinding.count - shown.count
    if others > 0 && rest > 0 {
      add(restAt, stage.iommu, "\(others) more operation\(others == 1 ? "" : "s") emptied the table meanwhile", need: 1)
    }
    return drafts
  }
}

extension Strategy {
  fileprivate func acts(at site: Sites) -> Bool {
    sites.contains(site) || emptyTable != .none && (site == .start || site == .end)
  }
}

extension OperationStep.Letter {
  /// The hook, and what people call it.
  fileprivate var site: (Strategy.Sites, String)? {
    switch self {
    case .start: (.start, "S, start hook")
    case .end: (.end, "E, end hook")
    case .flushSite: (.flushSite, "flush site")
    case .invalidatePage: (.invalidatePage, "invalidate_page")
    case .changePTE: (.changePTE, "change_pte")
    case .young: (.young, "clear_flush_young")
    default: nil
    }
  }
}

extension InvalidationEnd.Kind {
  fileprivate var story: String {
    switch self {
    case .completed: "completed"
    case .timedOut: "it timed out, and the device is fenced"
    case .fenced: "the device is fenced"
    case .removed: "the device went away"
    }
  }
}

extension PageResponse.Code {
  fileprivate var story: String {
    switch self {
    case .success: "Success, the page is there"
    case .invalidRequest: "Invalid Request"
    case .responseFailure: "Response Failure, PRI is off"
    }
  }
}
