// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import StormKit

@Suite struct StormPlanTests {
  @Test func `The default plan is large enough for what the storm must show`() {
    let plan = StormPlan()
    #expect(plan.complaint == nil)
    #expect(plan.processes >= 4 && plan.devices >= 32 && plan.totalAccesses >= 100_000)
    let lists = (0..<plan.addressSpaces).map { plan.operations($0).steps }
    let large = lists.joined().filter { $0.kind != .recycle && $0.kind != .verify && $0.pageCount > 8 }
    let fullBatches = large.reduce(0) { $0 + $1.pageCount / UInt64(plan.gatherBatch) }
    #expect(fullBatches >= 200, "twice as many as needed, because not every page of a range is mapped")
    for kind in [MutatorStep.Kind.dontNeed, .remap, .forkAndWrite, .recycle, .verify] {
      #expect(lists.joined().contains { $0.kind == kind }, "\(kind)")
    }
  }

  @Test func `All operations means all that the kernel has`() {
    var plan = StormPlan()
    plan.mix = .all
    let today: [MutatorStep.Kind] = [
      .reap, .userfaultMove, .madviseFree, .deviceMigrate, .deviceExclusive, .userfaultProtect,
    ]
    for isKernelOfNow in [false, true] {
      plan.isKernelOfNow = isKernelOfNow
      let steps = (0..<plan.addressSpaces).flatMap { plan.operations($0).steps }
      for kind in MutatorStep.Kind.allCases {
        #expect(steps.contains { $0.kind == kind } == (isKernelOfNow || !today.contains(kind)), "\(kind)")
      }
    }
  }

  @Test func `Steps stay inside the range that devices use, or inside the mutator's own`() {
    for seed in UInt64(1)...20 {
      var plan = StormPlan()
      plan.seed = seed
      for space in 0..<plan.addressSpaces {
        for step in plan.operations(space).steps {
          let isOwn = step.kind == .recycle || step.kind == .verify
          let range = isOwn ? plan.own(space) : plan.shared(space)
          #expect(step.pageCount > 0 && step.firstPage >= range.firstPage, "seed \(seed)")
          #expect(step.firstPage + step.pageCount <= range.firstPage + range.pageCount, "seed \(seed)")
        }
      }
    }
  }

  @Test func `The workload hash follows from the seed and the shape, and not from the strategies or the costs`() {
    let plan = StormPlan()
    var other = plan
    other.strategies = ["none"]
    other.zeroCosts = true
    #expect(plan.workloadHash == other.workloadHash)
    other.seed = 2
    #expect(plan.workloadHash != other.workloadHash)
    other = plan
    other.mix.forks += 1
    #expect(plan.workloadHash != other.workloadHash)
  }

  @Test func `Every device has a stream of its own and a prefix of its own for its stamps`() {
    let plan = StormPlan()
    let devices = (0..<plan.devices).map(plan.device)
    #expect(Set(devices.map(\.seed)).count == plan.devices)
    #expect(Set(devices.map(\.stampPrefix)).count == plan.devices)
    #expect(devices.allSatisfy { $0.misbehaviour == 0 && !$0.targets.isEmpty })
  }

  @Test func `Page-request allocations beyond the queue are refused with the figure that fits`() {
    var plan = StormPlan()
    plan.priAllocation = 17
    #expect(plan.complaint?.contains("--pri-allocation 16") == true)
    plan.priAllocation = 16
    #expect(plan.complaint == nil)
    plan.misbehaviour = "sulks"
    #expect(plan.complaint?.contains("completes-early") == true)
  }
}

@Suite struct MirrorPlanTests {
  @Test func `Mirrors are those that the kernel has, and others are refused with the way out`() {
    var plan = StormPlan()
    plan.mirrors = StormPlan.mirrorKinds(isKernelOfNow: false)
    #expect(plan.mirrors == ["kvm", "gru", "secondary-tlb"] && plan.complaint == nil)
    plan.mirrors = ["kvm", "hmm"]
    #expect(plan.complaint?.contains("--kernel now") == true)
    plan.isKernelOfNow = true
    #expect(plan.complaint == nil)
    plan.mirrors = ["vfio"]
    #expect(plan.complaint?.contains("secondary-tlb") == true)
  }

  @Test func `Each mirror process has a name and a list of its own for every address space, beside what devices use`() {
    var plan = StormPlan()
    let without = plan.workloadHash
    plan.mirrors = ["kvm", "gru", "kvm"]
    #expect(plan.workloadHash != without)
    #expect(plan.mirrors.indices.map(plan.mirrorName) == ["mirror kvm", "mirror gru", "mirror kvm 2"])
    let spaces = (0..<plan.addressSpaces).map(String.init)
    let processes = plan.mirrors.indices.map { plan.mirror($0, service: "", "", addressSpaces: spaces) }
    #expect(Set(processes.flatMap { $0.mirrors.map(\.seed) }).count == 12)
    for process in processes {
      #expect(process.mirrors.map(\.addressSpace) == spaces)
      let covered = process.runs.flatMap { Array($0.firstPage..<$0.firstPage + $0.pageCount) }
      let shared = plan.shared(0)
      #expect(Set(covered).isSuperset(of: shared.firstPage..<shared.firstPage + shared.pageCount))
      #expect(covered.contains(StormPlan.spareFirstPage) && !covered.contains(plan.own(0).firstPage))
      #expect(!covered.contains(StormPlan.hugetlbFirstPage))
    }
    plan.mix = .all
    let last = plan.mirror(0, service: "", "", addressSpaces: spaces).runs.last
    #expect(last?.firstPage == StormPlan.hugetlbFirstPage, "where there is hugetlbfs")
  }

  @Test func `Mirrors earn nothing, but in 2014 what the order leaves them`() {
    var plan = StormPlan()
    plan.mirrors = ["kvm"]
    func expected(_ verdict: String) -> StormKit.Expectation {
      var expected = ExpectedVerdicts(isKernelOfNow: plan.isKernelOfNow)
      expected.expectMirrors(of: plan)
      return expected.mirrorExpectation(verdict)
    }
    for verdict in ExpectedVerdicts.names { #expect(expected(verdict) == .zero) }
    plan.mix = .all
    #expect(expected("STALE_DMA") == .any && expected("MIRROR_AFTER_START") == .zero)
    plan.mix = OperationMix()
    plan.mirrors = ["secondary-tlb"]
    #expect(expected("WRITE_AFTER_PROTECT") == .any && expected("MIRROR_WITHOUT_RETRY") == .zero)
    plan.isKernelOfNow = true
    plan.mix = .all
    for verdict in ExpectedVerdicts.names { #expect(expected(verdict) == .zero) }
  }

  @Test func `A mirror's verdict is told apart from a device's, and can be expected by hand`() {
    var expected = ExpectedVerdicts()
    var mirrors = MirrorsResult()
    mirrors.verdicts["MIRROR_AFTER_START"] = 2
    #expect(
      expected.differences(mirrors, "invalidate-range")
        == ["invalidate-range: MIRROR_AFTER_START of mirrors is 2, expected zero"])
    #expect(expected.apply("mirrors:MIRROR_AFTER_START=some") == nil)
    #expect(expected.differences(mirrors, "invalidate-range").isEmpty)
    #expect(expected.expectation("invalidate-range", "MIRROR_AFTER_START") == .zero)
  }
}

@Suite struct ExpectedVerdictsTests {
  @Test func `The table is the design's`() {
    let expected = ExpectedVerdicts()
    #expect(expected.expectation("flush-at-start", "STALE_DMA") == .some)
    #expect(expected.expectation("flush-at-end", "STALE_DMA") == .some)
    #expect(expected.expectation("empty-table", "STALE_DMA") == .zero)
    #expect(expected.expectation("empty-table", "GAVE_UP") == .some)
    #expect(expected.expectation("invalidate-range-without-atc", "STALE_DMA") == .some)
    for verdict in ExpectedVerdicts.names { #expect(expected.expectation("invalidate-range", verdict) == .zero) }
  }

  @Test func `A verdict that differs is named, in either direction`() {
    let expected = ExpectedVerdicts()
    #expect(expected.differences("invalidate-range", ["STALE_DMA": 1]).count == 1)
    #expect(expected.differences("invalidate-range", [:]).isEmpty)
    #expect(expected.differences("flush-at-start", [:]) == ["flush-at-start: STALE_DMA is 0, expected some"])
  }

  @Test func `An expectation can be changed, and nonsense is refused with the way out`() {
    var expected = ExpectedVerdicts()
    #expect(expected.apply("empty-table:GAVE_UP=zero") == nil)
    #expect(expected.expectation("empty-table", "GAVE_UP") == .zero)
    for text in ["empty-table", "a:B", "a:STALE_DMA=few", "a:STALE=zero", ":STALE_DMA=zero", "a:STALE_DMA=zero=some"] {
      #expect(expected.apply(text) != nil, "\(text)")
    }
  }

  @Test func `A misbehaving device adds its own verdict to a strategy that is clean`() {
    let expected = ExpectedVerdicts(misbehaviour: "forges-addresses")
    #expect(expected.expectation("invalidate-range", "FORGED_TRANSLATION") == .some)
    #expect(expected.expectation("invalidate-range", "GAVE_UP") == .zero)
  }
}

@Suite struct TextTests {
  @Test(arguments: [
    ("0", 0), ("250ns", 250), ("10us", 10_000), ("10µs", 10_000), ("1.5ms", 1_500_000), ("2s", 2_000_000_000),
  ])
  func `A duration is read with its unit`(text: String, nanoseconds: UInt64) {
    #expect(DurationText.parse(text) == nanoseconds)
  }

  @Test(arguments: ["", "10", "us", "-1us", "1h", "1 x", "nanus"])
  func `What is no duration is refused`(text: String) { #expect(DurationText.parse(text) == nil) }

  @Test func `Durations and counts are written for people`() {
    #expect(DurationText.format(0) == "0 ns")
    #expect(DurationText.format(999) == "999 ns")
    #expect(DurationText.format(12_345) == "12.3 µs")
    #expect(DurationText.format(1_500_000) == "1.50 ms")
    #expect(DurationText.format(123_456_789) == "123 ms")
    #expect(DurationText.grouped(1_234_567) == "1,234,567")
    #expect(DurationText.decimal(0.095, places: 2) == "0.10")
  }

  @Test func `A threshold names metric, percentile and bound`() {
    #expect(
      Threshold("p99<5ms")
        == Threshold("page-request:p99<5ms").map {
          var t = $0; t.text = "p99<5ms"; return t
        })
    #expect(Threshold("access:p99.9<20ms")?.percentile == 99.9)
    #expect(Threshold("invalidation:max<1s")?.bound == 1_000_000_000)
    for text in ["p99", "p0<1ms", "p101<1ms", "q99<1ms", "p99<5", "page:p99<5ms"] { #expect(Threshold(text) == nil) }
  }
}

@Suite struct LatencyHistogramTests {
  @Test func `Merged histograms equal one histogram of all samples, also after a trip through JSON`() throws {
    var whole = LatencyHistogram()
    var parts = [LatencyHistogram(), LatencyHistogram()]
    for index in UInt64(0)..<5000 {
      let sample = index * index
      whole.record(sample)
      parts[Int(index % 2)].record(sample)
    }
    let far = try LineJSON.decode(LatencyHistogram.self, LineJSON.encode(parts[1]))
    parts[0].merge(far)
    #expect(parts[0].summary.count == whole.summary.count)
    for percentile in [50, 99, 99.9, 100] {
      let (a, b) = (Double(parts[0].percentile(percentile)), Double(whole.percentile(percentile)))
      #expect(abs(a - b) <= b * 0.002, "p\(percentile)")
    }
  }

  @Test func `Without samples every percentile is 0`() { #expect(LatencyHistogram().summary == LatencySummary()) }
}

@Suite struct ReportTests {
  static func result(_ strategy: String, staleDMA: UInt64) -> StrategyResult {
    var result = StrategyResult(strategy: strategy, workloadHash: "0123456789abcdef")
    let expected = ExpectedVerdicts()
    for name in ExpectedVerdicts.names {
      result.verdicts[name] = 0
      result.expected[name] = expected.expectation(strategy, name)
    }
    result.verdicts["STALE_DMA"] = staleDMA
    return result
  }

  @Test func `A verdict that is not as expected is marked in the table`() {
    let text = StormTable.text(
      [Self.result("flush-at-start", staleDMA: 12), Self.result("invalidate-range", staleDMA: 1)], colour: false)
    let line = text.split(separator: "\n").first { $0.hasPrefix("STALE_DMA") }
    #expect(line?.contains("12 (+)") == true)
    #expect(line?.contains("! 1 (0)") == true)
  }

  @Test func `What mirrors did stands in the table and in the JSON result, and is absent without them`() throws {
    var result = Self.result("invalidate-range", staleDMA: 0)
    #expect(!StormTable.text([result], colour: false).contains("irror"))
    #expect(!LineJSON.encode(result).contains("mirrors"))
    var mirrors = MirrorsResult()
    for kind in ["kvm", "gru"] {
      mirrors.processes.append(
        MirrorFigures(
          kind: kind, mirrors: 4, events: 700, refusals: 0, faults: 30, retries: 2, installs: 25, uses: 500,
          refusedUses: 3, fencedUses: 0, released: 4, lost: 0))
    }
    for name in ExpectedVerdicts.names { (mirrors.verdicts[name], mirrors.expected[name]) = (0, .zero) }
    mirrors.verdicts["MIRROR_AFTER_START"] = 7
    result.mirrors = mirrors
    let text = StormTable.text([result], colour: false)
    let lines = text.split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") }
    for line in ["Mirrors", "events answered 1,400", "uses 1,000", "mirrors released 8", "MIRROR_AFTER_START ! 7 (0)"] {
      #expect(lines.contains(line), "\(line)")
    }
    let copy = try LineJSON.decode(StrategyResult.self, LineJSON.encode(result))
    #expect(copy.mirrors?.processes.map(\.kind) == ["kvm", "gru"] && copy.mirrors?.sum(\.faults) == 60)
  }

  @Test func `The table of five strategies fits 120 columns`() {
    let results = StormPlan().strategies.map { name in
      var result = Self.result(name, staleDMA: 1_234_567)
      result.latency.pageRequestService.machine = LatencySummary(
        count: 1, p50: 123_456, p99: 1_234_567, p999: 99_999_999, max: 999_999_999)
      result.latency.pageRequestService.client = result.latency.pageRequestService.machine
      return result
    }
    let longest =
      [StormTable.text(results, colour: false), LatencyTable.text(results, colour: false)]
      .flatMap { $0.split(separator: "\n") }.map(\.count).max() ?? 0
    #expect(longest <= 120)
  }

  @Test func `The JSON result has every field that readers rely on`() {
    let result = StormResult(
      seed: 1, dilation: 64, roundTripNanoseconds: 64_000, deviceProcesses: 4, devices: 32, mutatorProcesses: 2,
      strategies: [Self.result("invalidate-range", staleDMA: 0)])
    let text = LineJSON.encode(result)
    let fields = [
      "version", "seed", "dilation", "deviceProcesses", "devices", "strategies", "strategy", "workloadHash", "accesses",
      "pageRequests", "neededFaults", "needlessFaults", "duplicateFaults", "fullBatches", "interrupts", "atcHits",
      "invalidations", "completions", "invalidationsThatHitALiveGrant", "fenced", "timeouts", "refused", "gaveUp",
      "verdicts", "latency",
    ]
    for field in fields { #expect(text.contains("\"\(field)\":"), "\(field)") }
  }

  @Test func `The progress line says where the run is`() {
    let line = ProgressLine.line("invalidate-range", done: 51_200, of: 102_400, elapsed: 2_000_000_000, colour: false)
    #expect(line.contains("[############............] 51,200/102,400"))
    #expect(line.contains("25,600/s") && line.contains("ETA 2 s"))
  }
}

@Suite struct ChildProcessTests {
  @Test func `A child hears lines, answers lines, and ends when its input ends`() throws {
    let child = try ChildProcess(name: "cat", program: "/bin/cat", arguments: [])
    child.send("one")
    child.send("two")
    child.closeInput()
    var lines: [String] = []
    while !child.outputEnded {
      waitForOutput([child], milliseconds: 1000)
      lines += child.lines()
    }
    child.wait()
    #expect(lines == ["one", "two"])
    #expect(child.ending == "exit code 0")
  }

  @Test func `A program that is not there is reported by name`() {
    #expect(throws: ChildProcess.Failure.self) {
      try ChildProcess(name: "nobody", program: "/nonexistent/program", arguments: [])
    }
  }
}
