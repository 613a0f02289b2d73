// SPDX-License-Identifier: Apache-2.0
// Goal: mirrors of every kind, as processes on the network, stay clean through a storm of operations when they obey, and
// are caught when they do not. Method: the real program as service and as mirror, this process as the mutator.
import Foundation
import LabProtocol
import RPCClient
import Testing

@testable import StormKit

@Suite(.serialized) struct MirrorProcessTests {
  static let kinds = ["kvm", "hmm", "interval", "gntdev", "gru", "secondary-tlb"]
  static let faults: [(misbehaviour: String, verdict: LabVerdictKind)] = [
    ("ignores-start", .mirrorAfterStart), ("installs-without-retry", .mirrorWithoutRetry),
    ("uses-after-release", .mirrorAfterRelease),
  ]

  private struct Run {
    var results: [MirrorProcessResult] = []
    var verdicts: [LabVerdict] = []
    var statistics = LabStatistics()
  }

  private static let firstPage: UInt64 = 0x7f000
  private static let pageCount: UInt64 = 16

  /// Runs mirrors beside a list of operations that ends with the exit; the first mirror may misbehave, and is then given
  /// the time to be caught.
  private func run(
    _ kinds: [String], misbehaviour: String? = nil, until expected: LabVerdictKind? = nil, rounds: Int
  ) throws -> Run {
    let service = try ServiceProcess(program: StormProcessTests.program)
    defer { service.stop() }
    let client = try LabClient(service.address)
    let created: LabCreateMachineResponse = try client.call(
      .createMachine,
      LabCreateMachineRequest.with {
        $0.settings.kernel = .now
        $0.settings.gatherBatchPages = 4
        $0.settings.notifierTimeoutNanoseconds = misbehaviour == "never-answers" ? 100_000_000 : 60_000_000_000
        // Windows stay open for as long as a message takes, and longer.
        $0.settings.holdNanoseconds = 2_000_000
      })
    let machine = created.machine.machine
    let space: LabCreateAddressSpaceResponse = try client.call(
      .createAddressSpace, LabCreateAddressSpaceRequest.with { $0.machine = machine })
    let operations = MemoryOperations(client, machine: machine, addressSpace: space.addressSpace, cpu: 0)
    try operations.mmap(Self.firstPage, Self.pageCount)
    let children = try kinds.enumerated().map { index, kind in
      let child = try ChildProcess(
        name: "mirror \(kind)", program: StormProcessTests.program, arguments: ["mirror"], capturesError: true)
      let configuration = MirrorProcessConfiguration(
        service: service.address, machine: machine, addressSpace: space.addressSpace, kind: kind,
        seed: UInt64(index + 1), firstPage: Self.firstPage, pageCount: Self.pageCount,
        misbehaviour: index == 0 ? misbehaviour : nil)
      child.send(LineJSON.encode(configuration))
      return child
    }
    for child in children { #expect(try line(of: child) == "ready") }
    for child in children { child.send("go") }
    for round in 0..<rounds { try operate(operations, round) }
    if let expected, expected != .mirrorAfterRelease {
      // What is to be caught is a race: the storm goes on until it has been lost.
      var round = rounds
      while round < 300, try !verdicts(client, machine).contains(where: { $0.kind == expected }) {
        try operate(operations, round)
        round += 1
      }
    }
    try operations.exit(child: space.addressSpace)
    var run = Run()
    if expected == .mirrorAfterRelease {
      // It goes on by itself; the service tells when it has.
      while try verdicts(client, machine).isEmpty {}
    }
    for child in children {
      child.send("report")
      let text = try line(of: child)
      #expect(text.hasPrefix("result "), "\(text)")
      run.results.append(try LineJSON.decode(MirrorProcessResult.self, String(text.dropFirst(7))))
    }
    run.verdicts = try verdicts(client, machine)
    run.statistics =
      (try client.call(.getStatistics, LabGetStatisticsRequest.with { $0.machine = machine })
      as LabGetStatisticsResponse).statistics
    return run
  }

  private func verdicts(_ client: LabClient, _ machine: String) throws -> [LabVerdict] {
    let response: LabListVerdictsResponse = try client.call(
      .listVerdicts, LabListVerdictsRequest.with { $0.machine = machine })
    return response.verdicts
  }

  private func line(of child: ChildProcess) throws -> String {
    var lines: [String] = []
    while lines.isEmpty && !child.outputEnded {
      waitForOutput([child], milliseconds: 1000)
      lines += child.lines()
    }
    return try #require(lines.first, "\(child.name) ended with \(child.ending)")
  }

  /// What a process does to its memory, and what is done to it; the whole range is there again at the end of a round.
  private func operate(_ operations: MemoryOperations, _ round: Int) throws {
    let first = Self.firstPage + UInt64(round % 8)
    let spare: UInt64 = 0x8f000
    try operations.store(first << 12, UInt64(round))
    try operations.dontNeed(first, 6)
    try operations.mprotect(first, 4, write: false)
    try operations.mprotect(first, 4, write: true)
    try operations.numaHint(first, 6)
    try operations.clearSoftDirty()
    try operations.clearYoung(first, 6)
    try operations.migrate(first, 6)
    try operations.ksmWriteProtect(first, 6)
    let child = try operations.fork()
    try operations.store(first << 12, UInt64(round))
    try operations.exit(child: child)
    try operations.mmap(spare, 4)
    try operations.uffdioMove(first, 4, to: spare)
    try operations.uffdioMove(spare, 4, to: first)
    try operations.munmap(spare, 4)
    try operations.mremap(first, 2, to: spare)
    try operations.mremap(spare, 2, to: first)
    try operations.munmap(first, 5)
    try operations.mmap(first, 5)
  }

  @Test func `correct mirrors of every kind stay clean beside each other, and see the release`() throws {
    let run = try run(Self.kinds, rounds: 4)
    #expect(run.verdicts.isEmpty, "\(run.verdicts.first?.explanation ?? "")")
    for (kind, result) in zip(Self.kinds, run.results) {
      #expect(result.isReleased && !result.isFenced, "\(kind)")
      #expect(result.done > 100 && result.faults > 20, "\(kind): \(result)")
    }
    #expect(run.statistics.counters.lostSubscribers == 0)
    #expect(run.statistics.counters.notifierAnswers == run.statistics.counters.notifierEvents)
    #expect(run.statistics.counters.unexplainedCorruptions == 0)
  }

  @Test(arguments: kinds, faults.indices) func `a mirror process that breaks a rule is caught by name`(
    _ kind: String, _ fault: Int
  ) throws {
    let (misbehaviour, verdict) = Self.faults[fault]
    let run = try run([kind, "kvm"], misbehaviour: misbehaviour, until: verdict, rounds: 3)
    #expect(run.verdicts.contains { $0.kind == verdict }, "\(run.verdicts.map(\.kind))")
    #expect(run.verdicts.allSatisfy { $0.subscriber == run.results[0].subscriber })
  }

  @Test func `a mirror process that never answers is lost, and the process that it mirrors goes on`() throws {
    let run = try run(["gru"], misbehaviour: "never-answers", rounds: 1)
    #expect(run.results[0].isFenced)
    #expect(run.statistics.counters.lostSubscribers == 1)
    #expect(run.verdicts.isEmpty)
  }
}
