// SPDX-License-Identifier: Apache-2.0

/// From the marks that a verdict carries: what a machine without a log can tell.
extension Explanation {
  /// - Parameter device: what people call whoever made the access (`Verdict.accessor`).
  public init(_ verdict: Verdict, device: String) {
    let words = VerdictWords(verdict, device: device)
    let stage = Stage(verdict, words, strategy: "")
    var events: [Event] = []
    func add(_ at: Nanoseconds, _ lane: Int, to: Int? = nil, _ text: String) {
      let event = Event(at: at, kind: .step, from: lane, to: to ?? lane, text: text)
      if at <= verdict.at && !events.contains(event) { events.append(event) }
    }

    if verdict.kind == .gaveUp || verdict.kind == .livelock {
      add(verdict.grantedAt, stage.device, to: stage.iommu, "asks for \(words.page), which it found not present")
    } else {
      if verdict.grantGeneration > 0 && !verdict.isWalk {
        add(verdict.grantedAt, stage.iommu, to: stage.device, words.grant)
      }
      for mark in verdict.marks {
        let lane = stage.lane(mark.operation)
        if mark.startedAt > 0 { add(mark.startedAt, lane, "S: the start hook has returned") }
        if mark.flushedAt > 0 { add(mark.flushedAt, lane, "I: a flush is complete") }
      }
      if verdict.dropped.operation != .none {
        add(verdict.dropped.at, stage.lane(verdict.dropped.operation), words.drop)
      }
      if verdict.freedForGood {
        add(verdict.freed.at, stage.lane(verdict.freed.operation), words.free)
      }
    }
    // Stable: events of one moment stay in the order of causes.
    events = events.enumerated()
      .sorted { ($0.element.at!, $0.offset) < ($1.element.at!, $1.offset) }
      .map(\.element)
    events.append(
      Event(at: verdict.at, kind: .verdict, from: stage.accessor, to: stage.accessor, text: words.access))
    self.init(verdict.kind, words.sentence, stage.lanes, events)
  }
}

/// The lanes of a verdict: the operations that had a part in it, the IOMMU, and who made the access.
struct Stage {
  private(set) var lanes: [Explanation.Lane] = []
  private var operations: [OperationID] = []
  /// For a CPU's access there is neither IOMMU nor device, for a mirror's no IOMMU: both are the lane of the access.
  let iommu: Int
  let device: Int
  /// The lane of the access that was judged: a walk is the IOMMU's own.
  let accessor: Int

  init(_ verdict: Verdict, _ words: VerdictWords, strategy: String, more: [OperationMark] = []) {
    for mark in verdict.marks + more where !operations.contains(mark.operation) {
      operations.append(mark.operation)
      lanes.append(.init(.operation, mark.name))
    }
    if verdict.isOfCPU {
      lanes.append(.init(.cpu, "a CPU", detail: "with its TLB"))
      iommu = lanes.count - 1
    } else if verdict.isOfMirror {
      lanes.append(.init(.device, words.device, detail: "through a table of its own"))
      iommu = lanes.count - 1
    } else {
      lanes.append(.init(.iommu, "the IOMMU", detail: strategy))
      iommu = lanes.count - 1
      lanes.append(.init(.device, words.device, detail: verdict.pasid > 0 ? "PASID \(verdict.pasid)" : ""))
    }
    device = lanes.count - 1
    accessor = verdict.isWalk ? iommu : device
  }

  func lane(_ operation: OperationID) -> Int { operations.firstIndex(of: operation)! }
  func contains(_ operation: OperationID) -> Bool { operations.contains(operation) }
}

extension Verdict {
  var isOfMirror: Bool { subscriber.rawValue != 0 }
  var isOfCPU: Bool { device.rawValue == 0 && !isOfMirror }

  /// What ended the grant is an answer of the mirror's own.
  var isOfAnswer: Bool { kind == .mirrorAfterStart || kind == .mirrorAfterRelease }

  /// The walk itself earned it; otherwise an access with what such a walk had answered.
  var isWalk: Bool { kind == .staleWalk && grantedAt == 0 }

  /// The granted life of the frame is over, and it is known who ended one.
  var freedForGood: Bool { freed.operation != .none && frameGeneration != grantGeneration }

  /// Lives of the frame that ended between the grant and the access.
  var livesSince: UInt32 { frameGeneration &- grantGeneration }

  /// The operations that had a part in it, each once, with its last flush.
  var marks: [OperationMark] {
    var marks = dropped.operation == .none ? [] : [dropped]
    if freed.operation != dropped.operation {
      if freedForGood { marks.append(freed) }
    } else if freed.flushedAt != dropped.flushedAt {
      marks.append(freed)
    }
    return marks
  }
}

extension OperationMark {
  /// What people are shown: the kernel's name and the operation's number.
  public var name: String {
    operation == .none ? "an operation long ago" : "\(kind.name) #\(operation.number)"
  }
}
