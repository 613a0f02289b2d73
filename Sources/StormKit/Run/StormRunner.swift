// SPDX-License-Identifier: Apache-2.0
import Foundation
import LabProtocol
import RPCClient

/// Runs the storm under each strategy, one after the other, each on a fresh machine.
public final class StormRunner {
  private let plan: StormPlan
  private let options: StormOptions
  private let client: LabClient
  private let service: ServiceProcess?
  private let address: String
  private var progress = ProgressLine()
  /// Things that a reader of the table must know.
  public private(set) var warnings: [String] = []

  /// Connects to the service, or starts one.
  public init(_ plan: StormPlan, _ options: StormOptions) throws(StormFailure) {
    if let complaint = plan.complaint { throw .usage(complaint) }
    // Not after minutes of storm.
    if let directory = options.recordDirectory { try Self.prepare(directory) }
    Interrupt.install()
    self.plan = plan
    self.options = options
    if let elsewhere = options.service {
      service = nil
      address = elsewhere
    } else {
      let started = try ServiceProcess(program: options.program)
      service = started
      address = started.address
    }
    client = try LabClient(address)
  }

  /// Stops the service, if it is the storm's own.
  public func stop() {
    progress.clear()
    client.rpc.close()
    service?.stop()
  }

  public func run() throws(StormFailure) -> StormResult {
    let roundTrip = try client.roundTrip()
    let dilation = options.dilation ?? max(1, (Double(roundTrip) / 1000).rounded())
    var result = StormResult(
      seed: plan.seed, dilation: dilation, roundTripNanoseconds: roundTrip, deviceProcesses: plan.processes,
      devices: plan.devices, mutatorProcesses: plan.mutators, mirrors: plan.mirrors.isEmpty ? nil : plan.mirrors)
    progress.clear()
    announce(result)
    if options.holds.isEmpty {
      result.strategies = try strategies(hold: plan.hold, dilation: dilation, &result)
    } else {
      result.sweep = []
      for hold in options.holds {
        let strategies = try strategies(hold: hold, dilation: dilation, &result)
        result.sweep!.append(SweepPoint(holdNanoseconds: hold, strategies: strategies))
      }
      result.strategies = result.sweep!.last?.strategies ?? []
    }
    return result
  }

  private func announce(_ result: StormResult) {
    let dilation = DurationText.decimal(result.dilation, places: 0)
    let source =
      options.dilation == nil
      ? "round trip \(DurationText.format(result.roundTripNanoseconds)) over 1 µs of PCIe" : "given"
    var lines = [
      "seed \(plan.seed) · \(plan.processes) device processes × \(plan.devicesPerProcess) devices · "
        + "\(plan.mutators) mutator processes · \(plan.addressSpaces) address spaces",
      "\(DurationText.grouped(plan.totalAccesses)) accesses per strategy, \(plan.pattern), "
        + "\(plan.arrivals == .closed ? "closed loop" : "open loop (\(plan.arrivals.rawValue))") · "
        + "hold \(DurationText.format(plan.hold)) · dilation \(dilation) (\(source))",
      "workload \(plan.workloadHash)",
    ]
    if !plan.mirrors.isEmpty {
      lines.insert(
        "\(plan.mirrors.count) mirror processes (\(plan.mirrors.joined(separator: ", "))), each with a mirror of every "
          + "address space and \(DurationText.grouped(plan.accessesPerMirror)) accesses in each", at: 1)
    }
    FileHandle.standardError.write(Data((lines.joined(separator: "\n") + "\n").utf8))
  }

  private func strategies(
    hold: UInt64, dilation: Double, _ result: inout StormResult
  ) throws(StormFailure) -> [StrategyResult] {
    var strategies: [StrategyResult] = []
    for strategy in plan.strategies {
      let (one, histograms) = try run(strategy, hold: hold, dilation: dilation)
      result.differences += options.expected.differences(strategy, one.verdicts)
      if let mirrors = one.mirrors { result.differences += options.expected.differences(mirrors, strategy) }
      result.missedThresholds += missed(strategy, histograms)
      strategies.append(one)
    }
    return strategies
  }

  private func run(
    _ strategy: String, hold: UInt64, dilation: Double
  ) throws(StormFailure) -> (StrategyResult, StrategyRun.Histograms) {
    progress.say("\(strategy): setting up")
    var machine = try StormMachine(
      client, plan: plan, hold: hold, dilation: dilation, record: options.recordDirectory != nil)
    let run = StrategyRun(plan: plan, service: service)
    defer { run.stop() }
    do throws(StormFailure) {
      try machine.populate(client, plan: plan, strategy: strategy)
      try run.start(machine, address: address, program: options.program)
      var result = StrategyResult(strategy: strategy, workloadHash: plan.workloadHash)
      if !plan.mirrors.isEmpty { result.mirrors = MirrorsResult() }
      let waitBefore = service.map { SchedulerWait(pid: $0.child.pid) }
      let start = monotonicNow()
      try run.run { done in
        let now = monotonicNow()
        progress.draw(strategy, done: done, of: plan.totalAccesses, elapsed: now - start, now: now)
      }
      let elapsed = monotonicNow() - start
      result.seconds = Double(elapsed) / 1e9
      let waitAfter = service.map { SchedulerWait(pid: $0.child.pid) }
      try run.collect { () throws(StormFailure) in
        if !plan.mirrors.isEmpty { try machine.exit(client, isKernelOfNow: plan.isKernelOfNow) }
      }
      result.take(try machine.statistics(client))
      if let before = waitBefore, let after = waitAfter {
        let wait = CPUWait(waited: after.longest(since: before), elapsed: elapsed)
        result.cpuWaitShares.append(ProcessWait(process: "service", share: wait.share))
      }
      let histograms = run.report(into: &result)
      for name in ExpectedVerdicts.names {
        result.expected[name] = options.expected.expectation(strategy, name)
        result.mirrors?.expected[name] = options.expected.mirrorExpectation(name)
      }
      result.firstStaleAccess = try machine.firstStaleAccess(client)
      result.log = try record(machine, strategy, hold)
      note(result, run.firstRefusal)
      run.stop()
      try machine.delete(client)
      return (result, histograms)
    } catch {
      run.stop()
      try? machine.delete(client)
      throw error
    }
  }

  private func note(_ result: StrategyResult, _ firstRefusal: String?) {
    for wait in result.cpuWaitShares where wait.share > 0.2 {
      warnings.append(
        "\(result.strategy): \(wait.process) waited \(DurationText.decimal(wait.share * 100, places: 0)) % of the time "
          + "for a CPU; client wall times are not the service's alone")
    }
    if result.refusedMessages > 0 {
      warnings.append(
        "\(result.strategy): \(result.refusedMessages) messages of devices were refused or dropped"
          + (firstRefusal.map { " (the first: \($0))" } ?? ""))
    }
    for mirror in result.mirrors?.processes ?? [] where mirror.lost > 0 {
      warnings.append(
        "\(result.strategy): \(mirror.lost) of \(mirror.mirrors) \(mirror.kind) mirrors did not answer in time and were "
          + "fenced: nobody waited for them any more")
    }
    if result.unexplainedCorruptions > 0 {
      warnings.append("\(result.strategy): corrupted frames without a verdict: the oracle missed something")
    }
    if result.cpuMismatches > 0 && (result.verdicts["STALE_DMA"] ?? 0) == 0 {
      warnings.append("\(result.strategy): a CPU read foreign data, and there is no STALE_DMA")
    }
  }

  private func missed(_ strategy: String, _ histograms: StrategyRun.Histograms) -> [String] {
    options.thresholds.compactMap { threshold in
      let histogram =
        switch threshold.metric {
        case .pageRequest: histograms.pageRequests
        case .invalidation: histograms.invalidations
        case .access: histograms.accesses
        }
      let value = histogram.percentile(threshold.percentile)
      guard value >= threshold.bound else { return nil }
      return "\(strategy): \(threshold.metric.rawValue) \(threshold.text) missed, it is \(DurationText.format(value))"
    }
  }

  private static func prepare(_ directory: String) throws(StormFailure) {
    do {
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    } catch {
      throw .usage("--record: cannot make \(directory): \(error.localizedDescription)")
    }
    guard access(directory, W_OK) == 0 else { throw .usage("--record: cannot write into \(directory)") }
  }

  /// Writes the machine's log; answers its path.
  private func record(_ machine: StormMachine, _ strategy: String, _ hold: UInt64) throws(StormFailure) -> String? {
    guard let directory = options.recordDirectory else { return nil }
    let name = options.holds.isEmpty ? "\(strategy).log" : "\(strategy)-hold-\(hold)ns.log"
    let path = directory + "/" + name
    guard let file = fopen(path, "wb") else {
      throw .broken("cannot write \(path): \(String(cString: strerror(errno)))")
    }
    defer { fclose(file) }
    var request = LabGetLogRequest()
    request.machine = machine.machine
    try client.stream(.getLog, request) { (response: LabGetLogResponse) throws(StormFailure) in
      let written = response.chunk.withUnsafeBytes { fwrite($0.baseAddress, 1, $0.count, file) }
      guard written == response.chunk.count else { throw .broken("cannot write \(path): is the disk full?") }
    }
    return path
  }
}
