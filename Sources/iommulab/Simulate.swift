// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import IOMMUModel
import IOMMUSimulation

struct Simulate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run the machine in this process, in virtual time, from a seed.",
    subcommands: [SimulateStorm.self, SimulateCommands.self, SimulateDeferredWindow.self],
    defaultSubcommand: SimulateStorm.self)
}

struct SimulateStorm: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "storm", abstract: "One storm for each strategy, with devices and wires in virtual time.")

  @Option(help: "Everything random follows from it.") var seed: UInt64 = 1
  @Option(help: "Accesses of each device.") var accesses: UInt64 = 2000
  @Option(help: "Devices for each of the two address spaces.") var devices = 4
  @Option(help: "Strategies, separated by commas; all by default.") var strategies: String?
  @Option(help: ArgumentHelp("Write the log of the last strategy's machine into this file.", valueName: "file"))
  var record: String?
  @Option(help: "Undilated machine time between S and the first entry, in nanoseconds.") var hold: UInt64 = 100_000

  func validate() throws {
    // Their page-request allocations share a queue of 256 entries.
    guard (1...128).contains(devices) else { throw ValidationError("--devices must be 1 to 128") }
  }

  func run() throws {
    print("seed \(seed), \(2 * devices) devices, \(accesses) accesses each, hold \(hold) ns")
    let chosen = try strategies.map { list in
      try list.split(separator: ",").map { name in
        guard let strategy = Strategy.named(String(name)) else {
          throw ValidationError(
            "--strategies: '\(name)' is none of \(Strategy.named.map(\.name).joined(separator: ", "))")
        }
        return (name: String(name), strategy: strategy)
      }
    }
    for (name, strategy) in chosen ?? Strategy.named.filter({ $0.name != "none" }) {
      var plan = StormPlan()
      plan.seed = seed
      plan.strategy = strategy
      plan.accessesPerDevice = accesses
      plan.devicesPerSpace = devices
      plan.settings.hold = hold
      var storm = SimulatedStorm(plan)
      guard storm.run() else {
        throw RuntimeError("\(name): somebody waits for ever (seed \(seed))")
      }
      if let record, !FileManager.default.createFile(atPath: record, contents: Data(storm.log.take())) {
        throw RuntimeError("'\(record)' cannot be written")
      }
      var counts = [Int](repeating: 0, count: VerdictKind.allCases.count)
      for verdict in storm.verdicts { counts[Int(verdict.kind.rawValue)] += 1 }
      let verdicts = VerdictKind.allCases.filter { counts[Int($0.rawValue)] > 0 }
        .map { "\($0.name) \(counts[Int($0.rawValue)])" }
      print(
        "\(name): \(verdicts.isEmpty ? "no verdict" : verdicts.joined(separator: ", ")); needed \(storm.counters.neededFaults), needless \(storm.counters.needlessFaults), live hits \(storm.counters.liveHits), state \(String(storm.machine.stateHash(), radix: 16))"
      )
      if let first = storm.verdicts.first {
        let explanation = Explanation(first, device: first.accessor)
        print("  \(explanation.sentence)")
        for line in explanation.chain { print("    \(line)") }
      }
    }
  }
}

struct SimulateCommands: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "commands",
    abstract: "Random commands, valid and invalid, with the whole structure checked after every turn.")

  @Option(help: "First seed; each run takes the next.") var seed: UInt64 = 1
  @Option(help: "Seconds to go on.") var seconds: UInt64 = 10
  @Option(help: "Turns of each run.") var turns = 5000
  @Option(help: ArgumentHelp("Write the log of the first run into this file, and end.", valueName: "file"))
  var record: String?

  func validate() throws {
    guard turns > 0 else { throw ValidationError("--turns must be at least 1") }
  }

  func run() throws {
    let clock = ContinuousClock()
    let end = clock.now + .seconds(seconds)
    var current = seed
    var accepted: UInt64 = 0
    var refused: UInt64 = 0
    var performed: UInt64 = 0
    while clock.now < end {
      // Said before the run, so that a trap has its seed.
      FileHandle.standardError.write(Data("seed \(current)\n".utf8))
      var commands = RandomCommands(seed: current)
      for _ in 0..<turns { commands.step() }
      let log = commands.log.take()
      if let record, !FileManager.default.createFile(atPath: record, contents: Data(log)) {
        throw RuntimeError("'\(record)' cannot be written")
      }
      var replay = try Replay(log)
      try replay.run()
      guard replay.machine.stateHash() == commands.machine.stateHash() else {
        throw RuntimeError("seed \(current): the replay ended in another state")
      }
      accepted += commands.accepted
      refused += commands.refused
      performed += commands.turns
      current += 1
      if record != nil { break }
    }
    print(
      "seeds \(seed)…\(current - 1): \(performed) turns, \(accepted) commands accepted, \(refused) refused, every replay equal"
    )
  }
}

/// Something that went wrong at run time: printed, exit code 1.
struct RuntimeError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
