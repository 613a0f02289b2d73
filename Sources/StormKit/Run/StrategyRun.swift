// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCClient

/// One strategy's run: the processes that make the storm on one machine, and what they report.
final class StrategyRun {
  private enum State { case starting, running, finished, reported }
  private enum Role { case device, mutator, mirror }
  private final class Worker {
    let process: ChildProcess
    let role: Role
    var state = State.starting
    /// Accesses that have ended.
    var progress: UInt64 = 0
    init(_ process: ChildProcess, _ role: Role) {
      self.process = process
      self.role = role
    }
  }

  private let plan: StormPlan
  private let service: ServiceProcess?
  private var workers: [Worker] = []
  private var deviceResults: [(name: String, result: DeviceProcessResult)] = []
  private var mutatorResults: [(name: String, result: MutatorResult)] = []
  /// By the name of the process.
  private var mirrorResults: [String: MirrorProcessResult] = [:]
  private var forwarded: UInt64 = 0
  /// Steps done and steps in all of each mutator's list.
  private var lists: [UInt32: (done: Int, count: Int)] = [:]
  private var limit: UInt64 = 0
  /// How far accesses may be ahead of the slowest list of operations, thousandths of their list.
  private static let lead: UInt64 = 30

  init(plan: StormPlan, service: ServiceProcess?) {
    self.plan = plan
    self.service = service
  }

  /// Starts every process and hands out the work.
  func start(_ machine: StormMachine, address: String, program: String) throws(StormFailure) {
    for index in 0..<plan.processes {
      let first = index * plan.devicesPerProcess
      let configuration = DeviceProcessConfiguration(
        service: address, machine: machine.machine,
        devices: Array(machine.devices[first..<first + plan.devicesPerProcess]))
      try spawn("devices \(index + 1)", program, "device", LineJSON.encode(configuration), .device)
    }
    for index in 0..<plan.mutators {
      let lanes = stride(from: index, to: plan.addressSpaces, by: plan.mutators).map { space in
        MutatorConfiguration.Lane(
          addressSpace: machine.addressSpaces[space], cpu: UInt32(space % 2), own: plan.own(space),
          steps: plan.operations(space).steps)
      }
      for lane in lanes { lists[lane.own.pasid] = (0, lane.steps.count) }
      let configuration = MutatorConfiguration(
        service: address, machine: machine.machine, lanes: lanes, totalAccesses: plan.totalAccesses)
      try spawn("mutator \(index + 1)", program, "mutate", LineJSON.encode(configuration), .mutator)
    }
    for index in plan.mirrors.indices {
      let configuration = plan.mirror(index, service: address, machine.machine, addressSpaces: machine.addressSpaces)
      try spawn(plan.mirrorName(index), program, "mirror", LineJSON.encode(configuration), .mirror)
    }
  }

  private func spawn(
    _ name: String, _ program: String, _ command: String, _ configuration: String, _ role: Role
  ) throws(StormFailure) {
    do {
      let process = try ChildProcess(name: name, program: program, arguments: [command])
      process.send(configuration)
      workers.append(Worker(process, role))
    } catch {
      throw .broken("\(error)")
    }
  }

  /// Runs both lists to their end. `each` is called while it lasts, with the accesses ended so far.
  func run(_ each: (UInt64) -> Void) throws(StormFailure) {
    try wait(for: .running, each)
    holdBack()
    for worker in workers { worker.process.send("go") }
    try wait(for: .finished, each)
  }

  /// Asks for the figures of devices and mirrors; they still answer invalidations. Mirrors go on until their address
  /// spaces are gone, which is what `exit` does. Devices are asked after it: who writes a result that nobody reads yet
  /// answers nothing.
  func collect(_ exit: () throws(StormFailure) -> Void) throws(StormFailure) {
    for worker in workers where worker.role == .mirror { worker.process.send("report") }
    try exit()
    for worker in workers where worker.role == .device { worker.process.send("report") }
    try wait(for: .reported) { _ in }
  }

  /// Ends the processes: their input ends, and so do they.
  func stop() {
    for worker in workers { worker.process.closeInput() }
    for worker in workers { worker.process.wait() }
    workers = []
  }

  /// Waits until every process is in that state, or beyond.
  private func wait(for state: State, _ each: (UInt64) -> Void) throws(StormFailure) {
    do throws(StormFailure) {
      try follow(until: state, each)
    } catch {
      // Ctrl-C reaches the children as well, and they may be seen to end first.
      if Interrupt.hasHappened { throw .interrupted }
      throw error
    }
  }

  private func follow(until state: State, _ each: (UInt64) -> Void) throws(StormFailure) {
    while workers.contains(where: { !Self.has($0.state, reached: state) }) {
      if Interrupt.hasHappened { throw .interrupted }
      let processes = workers.map(\.process) + (service.map { [$0.child] } ?? [])
      waitForOutput(processes, milliseconds: 200)
      try service?.check()
      for worker in workers {
        for line in worker.process.lines() { try take(line, worker) }
        if worker.process.outputEnded, worker.process.hasEnded() {
          throw .broken("\(worker.process.name) ended with \(worker.process.ending)")
        }
      }
      let progress = workers.reduce(0) { $0 + ($1.role == .device ? $1.progress : 0) }
      if progress != forwarded {
        forwarded = progress
        for worker in workers where worker.role == .mutator { worker.process.send("progress \(progress)") }
      }
      holdBack()
      each(progress)
    }
  }

  /// Keeps the lists in step: mutators wait for accesses of devices, and in the closed loop these wait for mutators and for
  /// mirrors.
  private func holdBack() {
    var slowest = lists.values.map { $0.count == 0 ? 1000 : UInt64($0.done * 1000 / $0.count) }.min() ?? 1000
    let ofMirrors = plan.accessesPerMirror * UInt64(plan.addressSpaces)
    for worker in workers where worker.role == .mirror { slowest = min(slowest, worker.progress * 1000 / ofMirrors) }
    let allowed = min(1000, slowest + Self.lead)
    guard allowed > limit else { return }
    limit = allowed
    for worker in workers where worker.role != .mutator { worker.process.send("limit \(allowed)") }
  }

  private static func has(_ state: State, reached wanted: State) -> Bool {
    let order: [State] = [.starting, .running, .finished, .reported]
    return order.firstIndex(of: state)! >= order.firstIndex(of: wanted)!
  }

  private func take(_ line: String, _ worker: Worker) throws(StormFailure) {
    let name = worker.process.name
    let payload = line.firstIndex(of: " ").map { String(line[line.index(after: $0)...]) } ?? ""
    switch line.prefix(while: { $0 != " " }) {
    case "ready": worker.state = .running
    case "progress": worker.progress = UInt64(payload) ?? worker.progress
    case "steps":
      let figures = payload.split(separator: " ").compactMap { Int($0) }
      if figures.count == 2 { lists[UInt32(figures[0])]?.done = figures[1] }
    case "finished": worker.state = .finished
    case "result":
      worker.state = .reported
      switch worker.role {
      case .device: deviceResults.append((name, try LineJSON.decode(DeviceProcessResult.self, payload)))
      case .mutator: mutatorResults.append((name, try LineJSON.decode(MutatorResult.self, payload)))
      case .mirror: mirrorResults[name] = try LineJSON.decode(MirrorProcessResult.self, payload)
      }
    case "error": throw .broken("\(name): \(try LineJSON.decode(String.self, payload))")
    default: throw .broken("\(name) said '\(line.prefix(80))'")
    }
  }

  // MARK: - Figures

  /// Client wall time of the whole run, for thresholds and for the table.
  struct Histograms {
    var pageRequests = LatencyHistogram()
    var invalidations = LatencyHistogram()
    var accesses = LatencyHistogram()
    var operations = LatencyHistogram()
  }

  /// Adds what the processes have reported.
  func report(into result: inout StrategyResult) -> Histograms {
    var histograms = Histograms()
    for (name, devices) in deviceResults.sorted(by: { $0.name < $1.name }) {
      result.accesses += devices.accesses
      result.done += devices.done
      result.refused += devices.refused
      result.gaveUp += devices.gaveUp
      result.fencedAccesses += devices.fenced
      result.atcHits += devices.atcHits
      result.translations += devices.translations
      result.discardedAnswers += devices.discardedAnswers
      result.retries += devices.retries
      result.refusedMessages += devices.faults.refused + devices.faults.ignored
      histograms.pageRequests.merge(devices.pageRequests)
      histograms.invalidations.merge(devices.invalidations)
      histograms.accesses.merge(devices.accessLatency)
      result.cpuWaitShares.append(ProcessWait(process: name, share: devices.wait.share))
    }
    for (name, mutator) in mutatorResults.sorted(by: { $0.name < $1.name }) {
      result.operations += mutator.operations
      result.cpuLoadsVerified += mutator.loadsVerified
      result.cpuMismatches += mutator.mismatches
      histograms.operations.merge(mutator.operationLatency)
      result.cpuWaitShares.append(ProcessWait(process: name, share: mutator.wait.share))
    }
    for index in plan.mirrors.indices {
      let name = plan.mirrorName(index)
      guard let mirror = mirrorResults[name] else { continue }
      result.mirrors?.processes.append(MirrorFigures(plan.mirrors[index], mirror))
      result.cpuWaitShares.append(ProcessWait(process: name, share: mirror.wait.share))
    }
    result.latency.pageRequestService.client = histograms.pageRequests.summary
    result.latency.invalidateToCompletion.client = histograms.invalidations.summary
    result.latency.access = histograms.accesses.summary
    result.latency.operation = histograms.operations.summary
    return histograms
  }

  /// Why messages of devices were refused, if any were.
  var firstRefusal: String? { deviceResults.compactMap(\.result.faults.firstReason).first }
}

extension StrategyResult {
  /// Takes over what the machine has counted.
  mutating func take(_ statistics: LabStatistics) {
    let counters = statistics.counters
    machineNanoseconds = statistics.timeNanoseconds
    pageRequests = counters.membersServed
    neededFaults = counters.neededFaults
    needlessFaults = counters.needlessFaults
    duplicateFaults = counters.duplicateFaults
    refusedFaults = counters.refusedFaults
    fullBatches = counters.fullBatches
    interrupts = counters.faultInterrupts
    dmasChecked = counters.dmaChecked
    invalidations = counters.invalidations
    completions = counters.completions
    invalidationsThatHitALiveGrant = counters.liveHits
    fenced = counters.fenced
    timeouts = counters.timeouts
    queueOverflows = counters.queueOverflows
    corruptedFrames = counters.corruptedFrames
    unexplainedCorruptions = counters.unexplainedCorruptions
    for name in ExpectedVerdicts.names {
      verdicts[name] = 0
      mirrors?.verdicts[name] = 0
    }
    for verdict in statistics.verdicts {
      let name = verdict.kind.storyName
      verdicts[name, default: 0] += verdict.count - verdict.mirrorCount
      mirrors?.verdicts[name, default: 0] += verdict.mirrorCount
    }
    latency.pageRequestService.machine = LatencySummary(statistics.pageRequestService)
    latency.invalidateToCompletion.machine = LatencySummary(statistics.invalidationCompletion)
  }
}

extension LatencySummary {
  init(_ latency: LabLatency) {
    self.init(
      count: latency.count, p50: latency.p50Nanoseconds, p99: latency.p99Nanoseconds, p999: latency.p999Nanoseconds,
      max: latency.maxNanoseconds)
  }
}
