// SPDX-License-Identifier: Apache-2.0
// Goal: the storm works as its users start it. Method: the real program, with its own service, device processes and
// mutator processes, at a small size; what it prints and its exit code are the contract.
import Foundation
import LabProtocol
import Testing

@testable import StormKit

@Suite(.serialized) struct StormProcessTests {
  /// The program that was built beside the tests.
  static var program: String {
    let build = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
    let beside = build.appendingPathComponent("iommulab").path
    if FileManager.default.isExecutableFile(atPath: beside) { return beside }
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    return root.appendingPathComponent(".build/debug/iommulab").path
  }

  /// Runs the program to its end; what it printed, and how it ended.
  static func run(_ arguments: [String], capturesError: Bool = false) throws -> (text: String, ending: String) {
    let child = try ChildProcess(
      name: "iommulab", program: program, arguments: arguments, capturesError: capturesError)
    var lines: [String] = []
    while !child.outputEnded {
      waitForOutput([child], milliseconds: 1000)
      lines += child.lines()
    }
    child.wait()
    return (lines.joined(separator: "\n"), child.ending)
  }

  /// How a run ends; on its own, so that a test that fails shows it.
  static func ending(_ arguments: [String]) throws -> String { try run(arguments, capturesError: true).ending }

  static let small = [
    "storm", "--processes", "2", "--devices-per-process", "4", "--accesses", "8000", "--dilation", "20", "--json",
  ]

  @Test func `A small storm tells an unsafe strategy from a safe one, with the same workload`() throws {
    let (text, ending) = try Self.run(Self.small + ["--strategies", "invalidate-range-without-atc,invalidate-range"])
    #expect(ending == "exit code 0")
    let result = try LineJSON.decode(StormResult.self, text)
    #expect(result.strategies.count == 2)
    #expect(result.strategies[0].verdicts["STALE_DMA"]! > 0)
    #expect(result.strategies[0].firstStaleAccess?.explanation.isEmpty == false)
    let safe = result.strategies[1]
    #expect(safe.verdicts.values.allSatisfy { $0 == 0 })
    #expect(safe.needlessFaults == 0 && safe.fenced == 0 && safe.timeouts == 0 && safe.cpuMismatches == 0)
    #expect(safe.accesses == 8000 && safe.done + safe.refused + safe.gaveUp + safe.fencedAccesses == 8000)
    #expect(safe.refusedMessages == 0)
    #expect(safe.completions == safe.invalidations)
    #expect(safe.invalidationsThatHitALiveGrant > 0 && safe.fullBatches > 0)
    #expect(Set(result.strategies.map(\.workloadHash)).count == 1)
    #expect(result.strategies.allSatisfy { $0.unexplainedCorruptions == 0 })
  }

  @Test(arguments: ["2014", "now"])
  func `Mirrors of every kind that the kernel has stay clean through every operation, beside devices`(
    _ kernel: String
  ) throws {
    let (text, ending) = try Self.run([
      "storm", "--processes", "1", "--devices-per-process", "4", "--accesses", "2000", "--dilation", "5", "--json",
      "--strategies", "invalidate-range", "--mutate", "all", "--mirrors", "all", "--kernel", kernel,
    ])
    #expect(ending == "exit code 0", "\(text)")
    let result = try LineJSON.decode(StormResult.self, text)
    let mirrors = try #require(result.strategies[0].mirrors)
    #expect(result.mirrors == StormPlan.mirrorKinds(isKernelOfNow: kernel == "now"))
    #expect(mirrors.processes.map(\.kind) == result.mirrors)
    for process in mirrors.processes {
      #expect(process.lost == 0 && process.released == 4 && process.mirrors == 4, "\(process)")
      #expect(process.uses + process.refusedUses >= 4 * 62, "\(process): its whole list")
      #expect(process.events > 0 && process.installs > 0 && process.faults > 0, "\(process)")
    }
    #expect(result.strategies[0].unexplainedCorruptions == 0 && result.strategies[0].cpuMismatches == 0)
    #expect(result.strategies[0].pageRequests > 0 && result.strategies[0].fenced == 0)
    guard kernel == "now" else { return }
    #expect(mirrors.verdicts.values.allSatisfy { $0 == 0 } && mirrors.expected.values.allSatisfy { $0 == .zero })
  }

  @Test func `A mirror process that dies ends the storm with its name, and nothing hangs`() throws {
    let child = try ChildProcess(
      name: "storm", program: Self.program,
      arguments: [
        "storm", "--processes", "1", "--devices-per-process", "4", "--accesses", "100000", "--dilation", "5",
        "--strategies", "invalidate-range", "--mirrors", "kvm",
      ], capturesError: true)
    var mirrors: [pid_t] = []
    while mirrors.isEmpty && !child.outputEnded { mirrors = Self.children(of: child.pid, command: "mirror") }
    for mirror in mirrors { kill(mirror, SIGKILL) }
    var lines: [String] = []
    while !child.outputEnded {
      waitForOutput([child], milliseconds: 1000)
      lines += child.lines()
    }
    child.wait()
    #expect(child.ending == "exit code 1", "\(lines)")
    #expect(lines.contains { $0.contains("mirror kvm ended with signal 9") }, "\(lines)")
  }

  /// Processes that a process has started with this command.
  private static func children(of parent: pid_t, command: String) -> [pid_t] {
    let listed = (try? String(contentsOfFile: "/proc/\(parent)/task/\(parent)/children", encoding: .utf8)) ?? ""
    return listed.split(separator: " ").compactMap { pid_t($0) }.filter { pid in
      let line = (try? String(contentsOfFile: "/proc/\(pid)/cmdline", encoding: .utf8)) ?? ""
      return line.split(separator: "\0").last.map(String.init) == command
    }
  }

  @Test func `An expectation that is not met ends with 1, a missed threshold with 99`() throws {
    let safe = Self.small + ["--strategies", "invalidate-range", "--accesses", "800"]
    #expect(try Self.run(safe + ["--expect", "invalidate-range:STALE_DMA=some"]).ending == "exit code 1")
    #expect(try Self.run(safe + ["--threshold", "p50<1ns"]).ending == "exit code 99")
  }

  @Test func `A device that forges addresses is caught by name`() throws {
    let (text, ending) = try Self.run(
      Self.small + ["--strategies", "invalidate-range", "--accesses", "800", "--misbehave", "forges-addresses"])
    #expect(ending == "exit code 0")
    let result = try LineJSON.decode(StormResult.self, text)
    #expect(result.strategies[0].verdicts["FORGED_TRANSLATION"]! > 0)
  }

  @Test func `Wrong usage ends with 2, and an unreachable service with 3`() throws {
    let endings = [
      ["storm", "--pattern", "spiral"], ["storm", "--no-such-option"], ["storm", "--pri-allocation", "99"],
      ["storm", "--accesses", "\(UInt64.max)"], ["storm", "--record", "/dev/null/logs"],
      ["simulate", "storm", "--devices", "0"], ["simulate", "storm", "--devices", "100000"],
      ["storm", "--connect", "127.0.0.1:1"], ["storm", "--mirrors", "hmm"], ["storm", "--mirrors", ""],
    ].map { arguments in (arguments, try? Self.ending(arguments)) }
    for (arguments, ending) in endings {
      #expect(ending == (arguments.contains("--connect") ? "exit code 3" : "exit code 2"), "\(arguments)")
    }
    let (said, unknown) = try Self.run(["storm", "--strategies", "hope"], capturesError: true)
    #expect(unknown == "exit code 2" && said.contains("invalidate-range"), "\(said)")
    let (bounds, long) = try Self.run(["storm", "--hold", "90s"], capturesError: true)
    #expect(long == "exit code 2" && bounds.contains("holdNanoseconds"), "\(bounds)")
  }

  @Test func `The demo goes wrong under flush-at-start and right under invalidate-range`() throws {
    let (text, ending) = try Self.run(["storm", "--explain-demo"])
    #expect(ending == "exit code 0")
    let halves = text.components(separatedBy: "── invalidate-range")
    #expect(halves.count == 2)
    #expect(halves[0].contains("STALE_DMA") && halves[0].contains("B reads its page: 0xbad"))
    #expect(halves[1].contains("no verdict") && halves[1].contains("B reads its page: 0x5ec2e7"))
    #expect(text.components(separatedBy: "\n").count <= 60, "two screens")
  }

  @Test func `A list that fails is told of at once, while another one waits for progress`() throws {
    let service = try ServiceProcess(program: Self.program)
    defer { service.stop() }
    let client = try LabClient(service.address)
    let created: LabCreateMachineResponse = try client.call(.createMachine, LabCreateMachineRequest())
    let machine = created.machine.machine
    let space: LabCreateAddressSpaceResponse = try client.call(
      .createAddressSpace, LabCreateAddressSpaceRequest.with { $0.machine = machine })
    let child = try ChildProcess(
      name: "mutator", program: Self.program, arguments: ["mutate"], capturesError: true)
    // Nothing is mapped: a madvise fails. The first list waits for accesses that nobody does.
    let step = MutatorStep(kind: .dontNeed, firstPage: 1, pageCount: 1)
    func lane(_ steps: [MutatorStep]) -> MutatorConfiguration.Lane {
      MutatorConfiguration.Lane(
        addressSpace: space.addressSpace, cpu: 0, own: DeviceSpec.Target(pasid: 1, firstPage: 1, pageCount: 1),
        steps: steps)
    }
    let waits = MutatorStep(kind: .verify, firstPage: 1, pageCount: 1)
    let configuration = MutatorConfiguration(
      service: service.address, machine: machine, lanes: [lane([waits, waits]), lane([step])], totalAccesses: 100)
    child.send(LineJSON.encode(configuration))
    child.send("go")
    var said: [String] = []
    while !said.contains(where: { $0.hasPrefix("error ") }), !child.outputEnded {
      waitForOutput([child], milliseconds: 1000)
      said += child.lines()
    }
    #expect(said.contains { $0.hasPrefix("error ") && $0.contains("MadviseDontNeed") }, "\(said)")
    child.closeInput()
    child.wait()
  }
}
