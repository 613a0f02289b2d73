// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import StormKit

struct IOMMULab: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "iommulab",
    abstract: "Simulated machines with an IOMMU, as a network service.",
    subcommands: [
      Serve.self, StormCommand.self, DeviceCommand.self, MutatorCommand.self, Simulate.self,
      ReplayCommand.self, ExplainCommand.self, JudgeCommand.self, StrategyCommand.self, MirrorCommand.self,
      CostCommand.self, CalibrateCommand.self,
    ])

  /// As the library's own, but wrong usage ends with 2, as the documented exit codes say.
  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
      StormReport.complain(fullMessage(for: error))
      exit(withError: ExitCode(StormExit.usage))
    }
  }
}
