// SPDX-License-Identifier: Apache-2.0

/// What a mirror was told, and what it did then.
extension Sightings {
  /// The events that the story of a mirror's verdict needs: the one whose answer the mirror has broken; of an order's
  /// fault, all since it was handed the page.
  var toldEvents: [(event: NotifierEvent, kind: OperationKind)] {
    guard isOfMirror else { return [] }
    let answered = list.filter { if case .answeredEvent(let event, _) = $0.what { event.takesPages } else { false } }
    let kept: [Sighting]
    switch verdict.kind {
    case .mirrorAfterStart, .mirrorAfterRelease:
      kept = answered.filter { $0.operation == verdict.dropped.operation }.suffix(1)
    case .mirrorWithoutRetry: kept = answered.suffix(1)
    case .forgedTranslation: kept = []
    default:
      kept = list.filter {
        if case .told(let event, _) = $0.what { event.takesPages && $0.at >= verdict.grantedAt } else { false }
      }.suffix(2)
    }
    return kept.compactMap { sighting in
      switch sighting.what {
      case .told(let event, let kind), .answeredEvent(let event, let kind): (event, kind)
      default: nil
      }
    }
  }

  /// The operations of those events, for the lanes of the story.
  var tellers: [OperationMark] {
    toldEvents.map { OperationMark(operation: $0.event.operation, kind: $0.kind, at: 0, startedAt: 0, flushedAt: 0) }
  }
}

extension NotifierEvent {
  /// Whether its answer says that the mirror uses the pages no more.
  fileprivate var takesPages: Bool { hook != .end && hook != .young }

  /// The hook, as the contract calls it.
  var name: String {
    switch hook {
    case .start: "START"
    case .invalidate: "INVALIDATE"
    case .finish: "FINISH"
    case .end: "END"
    case .release: "RELEASE"
    case .young: "YOUNG"
    }
  }
}
