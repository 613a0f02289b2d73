// SPDX-License-Identifier: Apache-2.0

/// From what was seen to a chain that is short enough to read.
extension Sightings {
  /// An event, and how much the story needs it; 0 most.
  private struct Draft {
    var moment: Moment
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
    let stage = Stage(verdict, words, strategy: name ?? "", more: shown.map(\.mark) + tellers)
    var drafts = isStruggle ? struggle(stage, words, shown) : loss(stage, words)
    // Stable: events of one moment stay as they were told.
    drafts = drafts.enumerated()
      .sorted { ($0.element.moment, $0.offset) < ($1.element.moment, $1.offset) }
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
      _ moment: Moment, _ from: Int, to: Int? = nil, _ text: String, need: Int = 0,
      _ kind: Explanation.Event.Kind = .step
    ) {
      let event = Explanation.Event(at: moment.at, kind: kind, from: from, to: to ?? from, text: text)
      drafts.append(Draft(moment: moment, event: event, need: need))
    }
    var toldTags: [UInt8] = []
    let toldEvents = toldEvents.map(\.event)
    for sighting in list {
      let at = sighting.moment
      switch sighting.what {
      case .granted: break
      case .filled(let other):
        let whom = other == verdict.device ? "" : " for another device"
        add(at, stage.iommu, "walks for \(words.page)\(whom), and keeps it in the IOTLB")
      case .step(let step): tell(step, at: at, stage, add)
      case .pushed(let itag, let operation):
        // An invalidation that came before the grant explains something only if an operation of the story sent it.
        guard at.at >= verdict.grantedAt || stage.contains(operation) else { continue }
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
      case .issued where at.at < max(verdict.dropped.at, verdict.freedForGood ? verdict.freed.at : 0):
        add(at, stage.device, "issues the access")
      case .usedByCPU:
        if verdict.dropped.operation != .none {
          add(at, stage.lane(verdict.dropped.operation), "a CPU uses the page in its new frame")
        }
      case .returned(let operation): add(at, stage.lane(operation), "returns", need: 2)
      case .told(let event, _) where toldEvents.contains(event):
        add(at, stage.lane(event.operation), to: stage.device, "\(event.name), event \(event.number)")
      case .answeredEvent(let event, _) where toldEvents.contains(event):
        add(at, stage.device, to: stage.lane(event.operation), "answers event \(event.number)")
      case .installed(let fault) where at.at >= verdict.grantedAt:
        add(at, stage.device, "installs \(words.page) of fault \(fault)", need: 1)
      case .told, .answeredEvent, .installed: break
      case .issued, .notPresent, .requested, .answered: break
      }
    }
    if verdict.grantGeneration > 0 && !verdict.isWalk {
      add(moment(verdict.grantedAt) { $0 == .granted }, stage.iommu, to: stage.device, words.grant)
    }
    // What a mirror has answered was told with its event.
    if verdict.dropped.operation != .none && !(verdict.isOfAnswer && !toldEvents.isEmpty) {
      add(moment(verdict.dropped, .entries), stage.lane(verdict.dropped.operation), words.drop)
    }
    if verdict.freedForGood {
      let letter: OperationStep.Letter = verdict.isWalk ? .tablesFreed : .framesFreed
      add(moment(verdict.freed, letter), stage.lane(verdict.freed.operation), words.free)
    }
    conclude(stage, drafts, owed: toldTags, add)
    return drafts
  }

  /// When something was seen that a mark of the verdict has the time of.
  private func moment(_ at: Nanoseconds, _ what: (What) -> Bool) -> Moment {
    list.first { $0.at == at && what($0.what) }?.moment ?? Moment(at: at)
  }

  /// When an operation did what a mark of it tells; where that was not seen, with its last step of that time.
  private func moment(_ mark: OperationMark, _ letter: OperationStep.Letter) -> Moment {
    var last = Moment(at: mark.at)
    for sighting in list where sighting.at == mark.at {
      guard case .step(let step) = sighting.what, step.operation == mark.operation else { continue }
      last = sighting.moment
      if step.letter == letter { break }
    }
    return last
  }

  /// Since when a cache had the translation: an IOTLB may have kept it for the device's grant.
  private var heldSince: Nanoseconds {
    let filled = list.first { if case .filled = $0.what { true } else { false } }
    return min(filled?.at ?? .max, verdict.grantedAt)
  }

  private typealias Add = (Moment, Int, Int?, String, Int, Explanation.Event.Kind) -> Void

  /// A letter of an operation of the story.
  private func tell(_ step: OperationStep, at: Moment, _ stage: Stage, _ add: Add) {
    let lane = stage.lane(step.operation)
    let isAfter = at.at >= max(heldSince, verdict.dropped.at)
    switch step.letter {
    case .cpuFlush where isAfter && !verdict.isOfCPU: add(at, lane, nil, "C: flushes the CPUs' TLBs", 2, .step)
    case .entries where verdict.isOfAnswer: add(at, lane, nil, "P: changes the entry", 1, .step)
    case .tablesUnlinked where verdict.isWalk: add(at, lane, nil, "unlinks the page tables", 0, .step)
    case .release where !isOfMirror:
      add(at, lane, stage.iommu, "release: cuts the PASID, flushes everything", 1, .step)
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
    let end = Moment(at: verdict.at, order: .max)
    if verdict.kind == .forgedTranslation {
      return add(end, stage.iommu, nil, "no translation to this frame was ever given to it", 0, .missing)
    }
    for itag in owed {
      add(end, stage.device, nil, "ITag \(itag) is not completed yet", 0, .missing)
    }
    let losses: [VerdictKind] = [.staleDMA, .writeAfterProtect, .splitView]
    guard losses.contains(verdict.kind), verdict.dropped.operation != .none || verdict.freedForGood,
      !drafts.contains(where: { $0.event.kind == .missing })
    else { return }
    let since = verdict.dropped.operation != .none ? verdict.dropped.at : verdict.freed.at
    let pushed = list.contains { if case .pushed = $0.what { $0.at >= since } else { false } }
    if isOfMirror {
      if toldEvents.isEmpty { add(end, stage.device, nil, "no event has told it of the page", 0, .missing) }
    } else if !pushed {
      add(end, stage.iommu, nil, "no invalidation since the entry was cleared", 0, .missing)
    }
  }

  // MARK: A struggle for a page

  /// The windows of the empty table that made an answer say "not present".
  private var blinding: [Window] {
    windows.filter { window in
      list.contains { $0.what == .notPresent && $0.at >= window.since.at && $0.at <= window.until?.at ?? .max }
    }
  }

  private func struggle(_ stage: Stage, _ words: VerdictWords, _ shown: [Window]) -> [Draft] {
    var drafts: [Draft] = []
    func add(_ moment: Moment, _ from: Int, to: Int? = nil, _ text: String, need: Int = 0) {
      let event = Explanation.Event(at: moment.at, kind: .step, from: from, to: to ?? from, text: text)
      drafts.append(Draft(moment: moment, event: event, need: need))
    }
    for window in shown {
      let lane = stage.lane(window.mark.operation)
      add(window.since, lane, to: stage.iommu, "S: the PASID points to an empty table")
      if let until = window.until, until.at <= verdict.at {
        add(until, lane, to: stage.iommu, "E: the PASID points to the table again", need: 1)
      }
    }
    var round = 0
    var rest = 0
    var restAt = Moment(at: 0)
    for sighting in list {
      if sighting.what == .requested { round += 1 }
      guard round <= 1 else {
        if sighting.what == .requested {
          rest += 1
          restAt = sighting.moment
        }
        continue
      }
      switch sighting.what {
      case .notPresent:
        if !drafts.contains(where: { $0.event.text.hasSuffix("not present") }) {
          add(sighting.moment, stage.iommu, to: stage.device, "\(words.page): not present")
        }
      case .requested: add(sighting.moment, stage.device, to: stage.iommu, "page request")
      case .answered(let code): add(sighting.moment, stage.iommu, to: stage.device, "answer: \(code.story)")
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
