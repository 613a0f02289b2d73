// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import IOMMUModel
import IOMMUSimulation

struct Simulate: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run the machine in this process, in virtual time, from a seed.",
    subcommands: [SimulateStorm.self, SimulateCommands.self], defaultSubcommand: SimulateStorm.self)
}

struct SimulateStorm: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "storm", abstract: "One storm for each strategy, with devices and wires in virtual time.")

  @Option(help: "Everything random follows from it.") var seed: UInt64 = 1
  @Option(help: "Accesses of each device.") var accesses: UInt64 = 2000
  @Option(help: "Devices for each of the two address spaces.") var devices = 4
  @Option(help: "Undilated machine time between S and the first entry, in nanoseconds.") var hold: UInt64 = 100_000

  func run() throws {
    print("seed \(seed), \(2 * devices) devices, \(accesses) accesses each, hold \(hold) ns")
    for (name, strategy) in Strategy.named where name != "none" {
      var plan = StormPlan()
      plan.seed = seed
      plan.strategy = strategy
      plan.accessesPerDevice = accesses
      plan.devicesPerSpace = devices
      plan.settings.hold = hold
      var storm = SimulatedStorm(plan)
      guard storm.run() else { throw CleanExit.message("\(name): somebody waits for ever (seed \(seed))") }
      var counts = [Int](repeating: 0, count: VerdictKind.allCases.count)
      for verdict in storm.verdicts { counts[Int(verdict.kind.rawValue)] += 1 }
      let verdicts = VerdictKind.allCases.filter { counts[Int($0.rawValue)] > 0 }
        .map { "\($0.name) \(counts[Int($0.rawValue)])" }
      print(
        "\(name): \(verdicts.isEmpty ? "no verdict" : verdicts.joined(separator: ", ")); needed \(storm.counters.neededFaults), needless \(storm.counters.needlessFaults), live hits \(storm.counters.liveHits), state \(String(storm.machine.stateHash(), radix: 16))"
      )
      if let first = storm.verdicts.first {
        let explanation = Explanation(first, device: "device \(first.device.slot)")
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

  func run() throws {
    let clock = ContinuousClock()
    let end = clock.now + .seconds(seconds)
    var current = seed
    var accepted: UInt64 = 0
    var refused: UInt64 = 0
    var performed: UInt64 = 0
    while clock.now < end {
      var commands = RandomCommands(seed: current)
      for _ in 0..<turns { commands.step() }
      var replay = try Replay(commands.log.take())
      try replay.run()
      guard replay.machine.stateHash() == commands.machine.stateHash() else {
        throw ValidationError("seed \(current): the replay ended in another state")
      }
      accepted += commands.accepted
      refused += commands.refused
      performed += commands.turns
      current += 1
    }
    print("seeds \(seed)…\(current - 1): \(performed) turns, \(accepted) commands accepted, \(refused) refused, every replay equal")
  }
}
