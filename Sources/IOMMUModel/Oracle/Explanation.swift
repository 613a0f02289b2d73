// SPDX-License-Identifier: Apache-2.0

/// A verdict in words: one sentence, and the chain of events that led to it, oldest first.
public struct Explanation: Equatable, Sendable {
  public var sentence: String
  public var chain: [String]

  /// - Parameter device: what people call the device of the verdict.
  public init(_ verdict: Verdict, device: String) {
    var events: [(at: Nanoseconds, text: String)] = []
    let page = "page \(Self.hex(verdict.page << 12))"
    let frame = "frame \(Self.hex(UInt64(verdict.frame) << 12))"
    let verb = verdict.write ? "wrote to" : "read"
    func add(_ at: Nanoseconds, _ text: String) {
      if !events.contains(where: { $0.at == at && $0.text == text }) { events.append((at, text)) }
    }

    if verdict.kind == .gaveUp || verdict.kind == .livelock {
      chain = [
        "\(Self.before(verdict.at, verdict.grantedAt))  \(device) found \(page) not present, and asked for it",
        "\(Self.before(verdict.at, verdict.at))  \(verdict.requests) page requests later it still is: \(verdict.kind.name)",
      ]
      sentence = Self.sentence(verdict, device, page, frame, verb)
      return
    }
    if verdict.grantGeneration > 0 {
      let holder = verdict.device.rawValue == 0 ? "a CPU" : device
      let source = verdict.device.rawValue == 0 ? "" : ", from \(verdict.grantedVia.name)"
      add(verdict.grantedAt, "\(holder) was given \(page) → \(frame), life \(verdict.grantGeneration)\(source)")
    }
    for mark in verdict.marks {
      if mark.startedAt > 0 && mark.startedAt <= verdict.at {
        add(mark.startedAt, "\(mark.name): S, its start hook, had returned")
      }
      if mark.flushedAt > 0 { add(mark.flushedAt, "\(mark.name): a flush was complete") }
    }
    if verdict.dropped.operation != .none {
      let what =
        verdict.kind == .writeAfterProtect ? "took the write right of \(page) away" : "P, cleared the entry of \(page)"
      add(verdict.dropped.at, "\(verdict.dropped.name): \(what)")
    }
    if verdict.freed.operation != .none && verdict.frameGeneration != verdict.grantGeneration {
      // A frame remembers who ended its last life; the granted one may have ended earlier.
      add(verdict.freed.at, "\(verdict.freed.name): F, freed \(frame); life \(verdict.frameGeneration &- 1) ended")
    }
    add(
      verdict.at,
      "\(verdict.device.rawValue == 0 ? "a CPU" : device) \(verb) \(frame), now in life \(verdict.frameGeneration), through \(verdict.via.name): \(verdict.kind.name)"
    )

    if let end = events.last { events = events.dropLast().filter { $0.at <= end.at } + [end] }
    // Stable: events of one moment stay in the order of causes.
    chain = events.enumerated()
      .sorted { ($0.element.at, $0.offset) < ($1.element.at, $1.offset) }
      .map { "\(Self.before(verdict.at, $0.element.at))  \($0.element.text)" }
    sentence = Self.sentence(verdict, device, page, frame, verb)
  }

  private static func sentence(
    _ verdict: Verdict, _ device: String, _ page: String, _ frame: String, _ verb: String
  ) -> String {
    switch verdict.kind {
    case .staleDMA:
      let freed = verdict.freed.operation != .none && verdict.frameGeneration != verdict.grantGeneration
      let flush = verdict.dropped.operation == .none ? "" : Self.missingFlush(verdict)
      if freed && verdict.livesSince > 1 {
        let dropped = verdict.dropped.operation == .none ? "an operation long ago" : verdict.dropped.name
        return
          "\(device) \(verb) \(frame) under a grant that \(dropped) had dropped; the frame has been freed \(verdict.livesSince) times since the grant\(flush)."
      }
      if freed {
        return
          "\(device) \(verb) \(frame) \(span(verdict.at - verdict.freed.at)) after \(verdict.freed.name) had freed it\(flush)."
      }
      if verdict.dropped.operation == .none {
        return "\(device) \(verb) \(frame) through \(page), which nothing that its PASID is attached to holds any more."
      }
      return
        "\(device) \(verb) \(frame) through \(page), which its address space no longer holds since \(verdict.dropped.name) returned\(flush)."
    case .staleWalk:
      return
        "The IOMMU walked for \(page) through a page table in \(frame) that \(verdict.freed.name) had freed\(ago(verdict, verdict.freed))."
    case .staleCPU:
      return
        "A CPU \(verb) \(frame) through its TLB after \(verdict.freed.name) had freed it\(ago(verdict, verdict.freed))."
    case .writeAfterProtect:
      return "\(device) wrote to \(page) after \(verdict.dropped.name) had taken the write right away and returned."
    case .splitView:
      return
        "\(device) \(verb) the old \(frame) of \(page) after a CPU had used the page that \(verdict.dropped.name) put in its place."
    case .usedAfterCompletion:
      return "\(device) \(verb) \(page) with a translation that it had itself completed away: the device is at fault."
    case .forgedTranslation:
      return "\(device) \(verb) \(frame) with a translated address that it was never given, or not with this right."
    case .illegalTranslation:
      return "\(device) was given a translation of \(page) that was not valid at any time since the last invalidation."
    case .gaveUp:
      return
        "\(device) gave up \(page) after \(verdict.requests) page requests, although its area was there all the time."
    case .livelock:
      return "\(device) was told Success \(verdict.requests) times for \(page), and the page never changed."
    case .prgUnanswered: return "A page-request group of \(device) was never answered."
    case .prgTwice: return "A page-request group of \(device) was answered twice."
    case .prgWrongPASID: return "A page-request group of \(device) had members of more than one PASID."
    }
  }

  /// Where the flush was missing, when the marks can tell.
  private static func missingFlush(_ verdict: Verdict) -> String {
    let last = max(
      verdict.dropped.flushedAt, verdict.freed.operation == verdict.dropped.operation ? verdict.freed.flushedAt : 0)
    if last == 0 { return "; nothing had flushed the device before" }
    if last <= verdict.dropped.at {
      return verdict.grantedAt >= last
        ? "; the flush came before the entry was cleared, and the device had filled its cache again since"
        : "; the last flush came before the entry was cleared"
    }
    return "; the flush that followed did not reach this cache"
  }

  private static func ago(_ verdict: Verdict, _ mark: OperationMark) -> String {
    mark.operation == .none ? "" : " \(span(verdict.at - mark.at)) before"
  }

  private static func before(_ end: Nanoseconds, _ at: Nanoseconds) -> String {
    at >= end ? "        now" : pad("−" + span(end - at), to: 11)
  }

  private static func pad(_ text: String, to width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }

  /// A duration with three digits.
  static func span(_ nanoseconds: Nanoseconds) -> String {
    if nanoseconds < 1000 { return "\(nanoseconds) ns" }
    for (unit, size) in [("µs", UInt64(1000)), ("ms", 1_000_000), ("s", 1_000_000_000)]
    where nanoseconds < size * 1000 || unit == "s" {
      let hundredths = nanoseconds / (size / 100)
      let whole = hundredths / 100
      if whole >= 100 { return "\(whole) \(unit)" }
      if whole >= 10 { return "\(whole).\(hundredths / 10 % 10) \(unit)" }
      let rest = hundredths % 100
      return "\(whole).\(rest < 10 ? "0" : "")\(rest) \(unit)"
    }
    return "\(nanoseconds) ns"
  }

  /// Lower case, without leading zeros, with 0x.
  public static func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
}

extension Verdict {
  /// Lives of the frame that ended between the grant and the access.
  fileprivate var livesSince: UInt32 { frameGeneration &- grantGeneration }

  /// The operations that had a part in it, each once.
  fileprivate var marks: [OperationMark] {
    var marks = dropped.operation == .none ? [] : [dropped]
    if freed.operation != .none && freed.operation != dropped.operation && frameGeneration != grantGeneration {
      marks.append(freed)
    } else if freed.operation == dropped.operation && freed.flushedAt != dropped.flushedAt {
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

extension Verdict.Via {
  public var name: String {
    switch self {
    case .atc: "its ATC"
    case .iotlb: "the IOTLB"
    case .walkCache: "the walk cache"
    case .pasidCache: "the PASID cache"
    case .walk: "a walk from the root"
    case .cpuTLB: "its TLB"
    }
  }
}
