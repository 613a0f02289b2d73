// SPDX-License-Identifier: Apache-2.0

/// What people are told of a verdict's parts, in one place.
struct VerdictWords {
  private let verdict: Verdict
  let device: String

  init(_ verdict: Verdict, device: String) {
    self.verdict = verdict
    self.device = device
  }

  var page: String { "page \(Explanation.hex(verdict.page << 12))" }
  var frame: String { "frame \(Explanation.hex(UInt64(verdict.frame) << 12))" }

  var grant: String {
    if verdict.isOfMirror { return "a fault answers \(page) → \(frame), life \(verdict.grantGeneration)" }
    let what = verdict.isOfCPU ? "the TLB takes" : "grants"
    return "\(what) \(page) → \(frame), life \(verdict.grantGeneration)"
      + (verdict.isOfCPU ? "" : ", from \(verdict.grantedVia.name)")
  }
  var drop: String {
    if verdict.isOfAnswer { return "has the answer that \(page) is used no more" }
    return verdict.kind == .writeAfterProtect
      ? "P: takes the write right of \(page) away" : "P: clears the entry of \(page)"
  }
  var free: String {
    // A frame remembers who ended its last life; the granted one may have ended earlier.
    verdict.isWalk
      ? "T: frees the page table in \(frame)" : "F: frees \(frame), life \(verdict.frameGeneration &- 1) ends"
  }

  /// The access that earned the verdict.
  var access: String {
    let name = verdict.kind.name
    switch verdict.kind {
    case .gaveUp, .livelock: return "\(verdict.requests) page requests later \(page) is not there: \(name)"
    case .prgUnanswered, .prgTwice, .prgWrongPASID: return name
    case .staleWalk where verdict.isWalk:
      return "walks for \(page) through the freed table in \(frame), from \(verdict.via.name): \(name)"
    case .illegalTranslation: return "\(page) → \(frame): \(name)"
    case .mirrorWithoutRetry: return "installs \(page) → \(frame): \(name)"
    default:
      let life = verdict.grantGeneration > 0 ? ", now in life \(verdict.frameGeneration)," : ""
      return "\(verdict.write ? "writes to" : "reads") \(frame)\(life) through \(verdict.via.name): \(name)"
    }
  }

  var sentence: String {
    let verb = verdict.write ? "wrote to" : "read"
    switch verdict.kind {
    case .staleDMA: return staleDMA(verb)
    case .staleWalk where verdict.isWalk:
      return
        "The IOMMU walked for \(page) through a page table in \(frame) that \(verdict.freed.name) had freed\(ago(verdict.freed))."
    case .staleWalk:
      return "\(device) \(verb) \(frame) through a translation that the IOMMU had read from a freed page table."
    case .staleCPU:
      return "A CPU \(verb) \(frame) through its TLB after \(verdict.freed.name) had freed it\(ago(verdict.freed))."
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
    case .mirrorAfterStart:
      return
        "\(device) \(verb) \(page) after it had answered the start of \(verdict.dropped.name), which takes the page away."
    case .mirrorWithoutRetry:
      return "\(device) installed \(page) from a fault that had met an invalidation, and did not fault again."
    case .mirrorAfterRelease:
      return "\(device) \(verb) \(page) after it had answered the release of its address space."
    case .prgUnanswered: return "A page-request group of \(device) was never answered."
    case .prgTwice: return "A page-request group of \(device) was answered twice."
    case .prgWrongPASID: return "A page-request group of \(device) had members of more than one PASID."
    }
  }

  private func staleDMA(_ verb: String) -> String {
    let flush = verdict.dropped.operation == .none ? "" : missingFlush
    if verdict.freedForGood && verdict.livesSince > 1 {
      let dropped = verdict.dropped.operation == .none ? "an operation long ago" : verdict.dropped.name
      return
        "\(device) \(verb) \(frame) under a grant that \(dropped) had dropped; the frame has been freed \(verdict.livesSince) times since the grant\(flush)."
    }
    if verdict.freedForGood {
      return
        "\(device) \(verb) \(frame) \(Explanation.span(verdict.at - verdict.freed.at)) after \(verdict.freed.name) had freed it\(flush)."
    }
    if verdict.dropped.operation == .none {
      return "\(device) \(verb) \(frame) through \(page), which nothing that its PASID is attached to holds any more."
    }
    return
      "\(device) \(verb) \(frame) through \(page), which its address space no longer holds since \(verdict.dropped.name) returned\(flush)."
  }

  /// Where the flush was missing, when the marks can tell.
  private var missingFlush: String {
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

  private func ago(_ mark: OperationMark) -> String {
    mark.operation == .none ? "" : " \(Explanation.span(verdict.at - mark.at)) before"
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
    case .mirror: "its own table"
    }
  }
}
