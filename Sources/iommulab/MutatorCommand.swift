// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import StormKit

/// Started by `iommulab storm`: memory operations on the address spaces that devices use.
struct MutatorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mutate",
    abstract: "The memory operations of a storm, over the public API.",
    discussion: """
      Reads its configuration as one line of JSON from standard input, says "ready", runs at "go" as fast as "progress" \
      lines allow, and prints its result as JSON. Ends when its input ends.
      """)

  func run() throws { MutatorProcess.run() }
}
