// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import StormKit

/// Started by `iommulab storm`: some devices in a process of their own.
struct DeviceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "device",
    abstract: "Some devices of a storm, over the public API.",
    discussion: """
      Reads its configuration as one line of JSON from standard input, says "ready", runs at "go", reports progress, and \
      at "report" prints its result as JSON. Ends when its input ends.
      """)

  func run() throws { DeviceProcess.run() }
}
