// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Glibc
import StormKit

/// The main job.
struct StormCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "storm",
    abstract: "A fault storm by device processes, under each invalidation strategy.",
    discussion: """
      Starts a service (or takes the one of --connect), device processes and mutator processes, lets the same accesses \
      and the same memory operations meet under each strategy, and compares the oracle's verdicts with the expected ones.

      Exit codes: 0 every verdict as expected, 1 a verdict differs (in either direction) or the storm broke down, \
      2 usage, 3 service unreachable, 99 a threshold was missed, 130 interrupted.
      """)

  @OptionGroup var shape: StormShape

  @Option(help: ArgumentHelp("A service elsewhere.", valueName: "host:port"))
  var connect: String?
  @Flag(help: "Print the whole result as JSON to standard output.")
  var json = false
  @Option(help: ArgumentHelp("Write each machine's log into this folder.", valueName: "dir"))
  var record: String?
  @Flag(help: "Repeat the storm over several holds; by default under empty-table.")
  var sweepHold = false
  @Option(
    help: ArgumentHelp("The holds of the sweep, machine time, each at least twice the one before.", valueName: "list"))
  var holds: String?
  @Option(
    help: ArgumentHelp(
      "Change an expectation: zero, some or any. Mirrors have mirrors: in place of a strategy. Repeatable.",
      valueName: "strategy:VERDICT=…"))
  var expect: [String] = []
  @Option(
    help: ArgumentHelp(
      "Fail with 99 when a client latency is not below a bound: p99<5ms, invalidation:p99.9<20ms, access:max<1s. "
        + "Without a name it is that of page requests. Repeatable.", valueName: "[metric:]p99<5ms"))
  var threshold: [String] = []
  @Flag(
    help: "One device, one page: a race told step by step, first under flush-at-start, then under invalidate-range.")
  var explainDemo = false

  func run() throws {
    do throws(StormFailure) {
      if explainDemo { return try ExplainDemo.run(service: connect) }
      try runStorm()
    } catch {
      complain("iommulab storm: \(error)")
      throw ExitCode(error.exitCode)
    }
  }

  private func runStorm() throws(StormFailure) {
    var plan = try shape.plan()
    let options = try options(&plan)
    let runner = try StormRunner(plan, options)
    let result: StormResult
    do throws(StormFailure) {
      result = try runner.run()
      runner.stop()
    } catch {
      runner.stop()
      throw error
    }
    StormReport(result, warnings: runner.warnings).print(json: json)
    guard fflush(nil) == 0 else { throw .broken("standard output does not take the result") }
    if !result.differences.isEmpty { return exit(withCode: 1) }
    if !result.missedThresholds.isEmpty { return exit(withCode: 99) }
  }

  private func options(_ plan: inout StormPlan) throws(StormFailure) -> StormOptions {
    var options = StormOptions()
    options.service = connect
    options.recordDirectory = record
    options.dilation = shape.dilation
    options.expected = ExpectedVerdicts(
      misbehaviour: plan.misbehaviour, isKernelOfNow: plan.isKernelOfNow, hasKernelTableBug: plan.hasKernelTableBug)
    options.expected.expectMirrors(of: plan)
    if sweepHold {
      if shape.strategies == nil { plan.strategies = ["empty-table"] }
      options.holds = try sweepPoints(plan.hold)
      // Whether devices give up depends on the hold, which is what a sweep is about.
      options.expected.set("empty-table", "GAVE_UP", .any)
    } else if holds != nil {
      throw .usage("--holds belongs to --sweep-hold")
    }
    for text in expect {
      if let complaint = options.expected.apply(text) { throw .usage("--expect \(complaint)") }
    }
    for text in threshold {
      guard let parsed = Threshold(text) else {
        throw .usage("--threshold '\(text)': write p99<5ms, invalidation:p99.9<20ms or access:max<1s")
      }
      options.thresholds.append(parsed)
    }
    return options
  }

  private func sweepPoints(_ hold: UInt64) throws(StormFailure) -> [UInt64] {
    guard let holds else { return [0, hold / 8, hold / 4, hold / 2, hold, hold * 2] }
    var points: [UInt64] = []
    for text in holds.split(separator: ",") {
      guard let point = DurationText.parse(String(text)) else { throw .usage("--holds: '\(text)' is no duration") }
      if let last = points.last, point < last * 2 || point == last {
        throw .usage("--holds: \(text) is not at least twice the point before it")
      }
      points.append(point)
    }
    if points.isEmpty { throw .usage("--holds: at least one duration") }
    return points
  }

  private func complain(_ text: String) { StormReport.complain(text) }

  private func exit(withCode code: Int32) { Self.exit(withError: ExitCode(code)) }
}

/// The shape of a storm, as options.
struct StormShape: ParsableArguments {
  @Option(help: ArgumentHelp("Strategies, separated by commas.", valueName: "list"))
  var strategies: String?
  @Option(help: "Fixes every choice of every process.")
  var seed: UInt64 = 1
  @Option(help: "Accesses of all devices together, under each strategy.")
  var accesses: UInt64?
  @Option(help: "Device processes.")
  var processes: Int?
  @Option(help: "Devices of one process.")
  var devicesPerProcess: Int?
  @Option(help: "Mutator processes.")
  var mutators: Int?
  @Option(help: "sequential, random or zipf.")
  var pattern: String?
  @Option(help: ArgumentHelp("Share of writes, 0 to 1.", valueName: "share"))
  var writes: Double?
  @Option(help: "closed, constant, poisson or burst.")
  var arrivals: String?
  @Option(help: ArgumentHelp("Accesses per second of all devices together, in an open loop.", valueName: "per-second"))
  var rate: Double?
  @Option(help: ArgumentHelp("Machine time between S's flush and E of every operation: 20us.", valueName: "duration"))
  var hold: String?
  @Option(help: "Factor on every modelled duration; by default the measured round trip over 1 µs.")
  var dilation: Double?
  @Option(help: "Modelled durations: measured (the default) or zero, where the handler's service time is 0 as well.")
  var costs: String?
  @Option(help: "Outstanding page requests of each device; their sum must fit the page-request queue.")
  var priAllocation: UInt32?
  @Option(help: "Memory operations of the mutators: usual, or all that the kernel has.")
  var mutate: String?
  @Option(help: "Whose memory operations: 2014 (the default) or now.")
  var kernel: String?
  @Option(
    help: ArgumentHelp(
      "Mirror processes beside the devices, one for each kind: all that the kernel has, or some of kvm, hmm, interval, "
        + "gntdev, gru, secondary-tlb. Each mirrors every address space, and each mirror does an eighth of a device's "
        + "accesses. None by default.", valueName: "all|list"))
  var mirrors: String?
  @Option(
    help: ArgumentHelp(
      "How page tables of kernel memory are freed: sync (the bug of 2025; Linux 6.6 to 6.18 is --kernel now with "
        + "it) or async; by default as the kernel does it.",
      valueName: "way"))
  var kernelTableFree: String?
  @Option(help: ArgumentHelp("Let one device of each process misbehave: completes-early, forges-addresses, …"))
  var misbehave: String?

  func plan() throws(StormFailure) -> StormPlan {
    var plan = StormPlan()
    plan.seed = seed
    if let strategies { plan.strategies = strategies.split(separator: ",").map(String.init) }
    if let accesses { plan.accesses = accesses }
    if let processes { plan.processes = processes }
    if let devicesPerProcess { plan.devicesPerProcess = devicesPerProcess }
    if let mutators { plan.mutators = mutators }
    if let pattern { plan.pattern = try Self.named(pattern, "--pattern", ["sequential", "random", "zipf"]) }
    if let writes {
      guard (0...1).contains(writes) else { throw .usage("--writes: a share from 0 to 1") }
      plan.writePermille = UInt32((writes * 1000).rounded())
    }
    if let arrivals {
      let names = DeviceSpec.Arrivals.Kind.allCases.map(\.rawValue)
      plan.arrivals = DeviceSpec.Arrivals.Kind(rawValue: try Self.named(arrivals, "--arrivals", names))!
    }
    if let rate {
      if arrivals == nil { plan.arrivals = .poisson }
      plan.rate = rate
    }
    if let hold {
      guard let nanoseconds = DurationText.parse(hold) else {
        throw .usage("--hold: '\(hold)' is no duration like 20us")
      }
      plan.hold = nanoseconds
    }
    if let dilation, !(dilation > 0 && dilation <= 1_000_000) { throw .usage("--dilation: above 0, up to 1,000,000") }
    if let costs { plan.zeroCosts = try Self.named(costs, "--costs", ["measured", "zero"]) == "zero" }
    if let priAllocation { plan.priAllocation = priAllocation }
    if let kernel { plan.isKernelOfNow = try Self.named(kernel, "--kernel", ["2014", "now"]) == "now" }
    if let kernelTableFree {
      plan.freesKernelTablesAtOnce =
        try Self.named(kernelTableFree, "--kernel-table-free", ["sync", "async"]) == "sync"
    }
    if let mutate, try Self.named(mutate, "--mutate", ["usual", "all"]) == "all" { plan.mix = .all }
    if let mirrors {
      plan.mirrors =
        mirrors == "all"
        ? StormPlan.mirrorKinds(isKernelOfNow: plan.isKernelOfNow)
        : mirrors.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    }
    plan.misbehaviour = misbehave
    if let complaint = plan.complaint { throw .usage(complaint) }
    return plan
  }

  private static func named(_ text: String, _ option: String, _ names: [String]) throws(StormFailure) -> String {
    guard names.contains(text) else { throw .usage("\(option) '\(text)': one of \(names.joined(separator: ", "))") }
    return text
  }
}
