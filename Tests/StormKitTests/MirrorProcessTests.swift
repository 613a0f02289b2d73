// SPDX-License-Identifier: Apache-2.0
// Goal: mirrors of every kind, as processes on the network, stay clean through a storm of all operations when they obey,
// and are caught when they do not. Method: the real program as service, as mirrors and as mutator, which does the list of
// `iommulab storm --mutate all` on pages that all of them mirror.
import Foundation
import IOMMUModel
import LabProtocol
import RPCClient
import Testing

@testable import StormKit

@Suite(.serialized) struct MirrorProcessTests {
  static let kinds = StormPlan.mirrorKinds(isKernelOfNow: true)
  static let faults: [(misbehaviour: String, verdict: LabVerdictKind)] = [
    ("ignores-start", .mirrorAfterStart), ("installs-without-retry", .mirrorWithoutRetry),
    ("uses-after-release", .mirrorAfterRelease),
  ]
  /// What mirrors are not beside in this test.
  static let exceptions: [OperationKind: String] = [
    .unmap: "it belongs to PAGING domains, which are no address spaces",
    .detach: "a device leaves, and there is none here",
    .pageRequestGroup: "devices ask for pages, and there is none here; in a storm they do",
    .flushQueue: "it belongs to the bindings of devices, and there is none here",
  ]

  private struct Run {
    var results: [MirrorProcessResult] = []
    var mutator = MutatorResult()
    var verdicts: [LabVerdict] = []
    var statistics = LabStatistics()
    var coverage: OperationCoverage?
  }

  /// One address space of few pages, which everybody meets on; one step at least of each kind in the mix.
  private static func plan(
    _ kinds: [String], _ mix: OperationMix = OperationMix(), isKernelOfNow: Bool = true
  ) -> StormPlan {
    var plan = StormPlan()
    plan.mix = mix
    plan.isKernelOfNow = isKernelOfNow
    plan.mirrors = kinds
    plan.addressSpaces = 1
    plan.mutators = 1
    plan.sharedPages = 16
    plan.accesses = 4096
    return plan
  }

  /// Runs mirrors beside the list of operations, then the OOM reaper and the exit. The first mirror may misbehave: then
  /// lists follow each other until it is caught.
  private func run(
    _ plan: StormPlan, misbehaviour: String? = nil, until expected: LabVerdictKind? = nil, records: Bool = false
  ) throws -> Run {
    let service = try ServiceProcess(program: StormProcessTests.program)
    defer { service.stop() }
    let client = try LabClient(service.address)
    let created: LabCreateMachineResponse = try client.call(
      .createMachine,
      LabCreateMachineRequest.with {
        $0.settings.kernel = plan.isKernelOfNow ? .now : .kernel2014
        $0.settings.gatherBatchPages = 4
        $0.settings.notifierTimeoutNanoseconds = misbehaviour == "never-answers" ? 100_000_000 : 60_000_000_000
        // Windows stay open for as long as a message takes, and longer.
        $0.settings.holdNanoseconds = 2_000_000
        $0.record = records
      })
    let machine = created.machine.machine
    let space: LabCreateAddressSpaceResponse = try client.call(
      .createAddressSpace, LabCreateAddressSpaceRequest.with { $0.machine = machine })
    let operations = MemoryOperations(client, machine: machine, addressSpace: space.addressSpace, cpu: 0)
    for target in [plan.shared(0), plan.own(0)] { try operations.mmap(target.firstPage, target.pageCount) }
    let children = try plan.mirrors.indices.map { index in
      let child = try ChildProcess(
        name: plan.mirrorName(index), program: StormProcessTests.program, arguments: ["mirror"], capturesError: true)
      var configuration = plan.mirror(
        index, service: service.address, machine, addressSpaces: [space.addressSpace])
      configuration.accesses = .max
      configuration.misbehaviour = index == 0 ? misbehaviour : nil
      child.send(LineJSON.encode(configuration))
      return child
    }
    for child in children { #expect(try line(of: child) == "ready") }
    for child in children { child.send("go") }
    var run = Run()
    run.mutator = try mutate(plan, service.address, machine, space.addressSpace)
    if let expected, expected != .mirrorAfterRelease {
      // What is to be caught is a race: the storm goes on until it has been lost.
      var plan = plan
      while plan.seed < 100, try !verdicts(client, machine).contains(where: { $0.kind == expected }) {
        plan.seed += 1
        _ = try mutate(plan, service.address, machine, space.addressSpace)
      }
    }
    // A mirror has nothing left to use where the reaper has been.
    if misbehaviour == nil && plan.isKernelOfNow { try operations.oomReap(space.addressSpace) }
    try operations.exit(child: space.addressSpace)
    if expected == .mirrorAfterRelease {
      // It goes on by itself; the service tells when it has.
      while try verdicts(client, machine).isEmpty {}
    }
    for child in children {
      child.send("report")
      run.results.append(try result(of: child))
    }
    run.verdicts = try verdicts(client, machine)
    run.statistics =
      (try client.call(.getStatistics, LabGetStatisticsRequest.with { $0.machine = machine })
      as LabGetStatisticsResponse).statistics
    if records { run.coverage = try OperationCoverage(client, machine: machine) }
    return run
  }

  /// Runs a mutator process through the plan's list.
  private func mutate(
    _ plan: StormPlan, _ service: String, _ machine: String, _ addressSpace: String
  ) throws -> MutatorResult {
    let child = try ChildProcess(
      name: "mutator", program: StormProcessTests.program, arguments: ["mutate"], capturesError: true)
    let lane = MutatorConfiguration.Lane(
      addressSpace: addressSpace, cpu: 0, own: plan.own(0), steps: plan.operations(0).steps)
    child.send(
      LineJSON.encode(
        MutatorConfiguration(service: service, machine: machine, lanes: [lane], totalAccesses: 0)))
    child.send("go")
    return try result(of: child)
  }

  private func verdicts(_ client: LabClient, _ machine: String) throws -> [LabVerdict] {
    let response: LabListVerdictsResponse = try client.call(
      .listVerdicts, LabListVerdictsRequest.with { $0.machine = machine })
    return response.verdicts
  }

  private func line(
    of child: ChildProcess, _ isWanted: @escaping (String) -> Bool = { _ in true }
  ) throws -> String {
    var lines: [String] = []
    while !lines.contains(where: isWanted) && !child.outputEnded {
      waitForOutput([child], milliseconds: 1000)
      lines += child.lines()
    }
    return try #require(lines.first(where: isWanted), "\(child.name) ended with \(child.ending): \(lines)")
  }

  /// What a child reports at last, after it has told of its progress.
  private func result<Result: Decodable>(of child: ChildProcess) throws -> Result {
    let text = try line(of: child) { $0.hasPrefix("result ") || $0.hasPrefix("error ") }
    #expect(text.hasPrefix("result "), "\(child.name): \(text)")
    return try LineJSON.decode(Result.self, String(text.dropFirst(7)))
  }

  @Test(arguments: [true, false])
  func `correct mirrors of every kind stay clean beside every operation, and see the release`(
    _ isKernelOfNow: Bool
  ) throws {
    let kinds = isKernelOfNow ? Self.kinds : ["kvm", "gru"]
    var plan = Self.plan(kinds, .all, isKernelOfNow: isKernelOfNow)
    // The lists of 2014 retract a file's tables without telling anybody.
    if !isKernelOfNow { plan.mix.files = 0 }
    let run = try run(plan, records: isKernelOfNow)
    #expect(run.verdicts.isEmpty, "\(run.verdicts.first?.explanation ?? "")")
    for (kind, result) in zip(kinds, run.results) {
      #expect(result.released == 1 && result.lost == 0, "\(kind)")
      #expect(result.done > 100 && result.faults > 20, "\(kind): \(result)")
    }
    #expect(run.mutator.loadsVerified > 10 && run.mutator.mismatches == 0)
    #expect(run.statistics.counters.lostSubscribers == 0)
    #expect(run.statistics.counters.notifierAnswers == run.statistics.counters.notifierEvents)
    #expect(run.statistics.counters.unexplainedCorruptions == 0)
    run.coverage?.expectAll(except: Self.exceptions)
  }

  @Test(arguments: kinds, faults.indices) func `a mirror process that breaks a rule is caught by name`(
    _ kind: String, _ fault: Int
  ) throws {
    let (misbehaviour, verdict) = Self.faults[fault]
    let run = try run(Self.plan([kind, "kvm"]), misbehaviour: misbehaviour, until: verdict)
    #expect(run.verdicts.contains { $0.kind == verdict }, "\(run.verdicts.map(\.kind))")
    #expect(run.verdicts.allSatisfy { $0.subscriber == run.results[0].subscribers[0] })
    #expect(run.statistics.verdicts.allSatisfy { $0.mirrorCount == $0.count }, "nobody else is at fault")
  }

  @Test func `a mirror process that never answers is lost, and the process that it mirrors goes on`() throws {
    let run = try run(Self.plan(["gru"]), misbehaviour: "never-answers")
    #expect(run.results[0].lost == 1)
    #expect(run.statistics.counters.lostSubscribers == 1)
    #expect(run.verdicts.isEmpty)
  }
}
