// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import StormKit

/// A mirror of an address space, as KVM, gntdev, GRU and HMM drivers are.
struct MirrorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mirror",
    abstract: "A mirror of an address space, over the public API.",
    discussion: """
      Reads its configuration as one line of JSON from standard input: service, machine, kind (kvm, hmm, interval, gntdev, \
      gru, secondary-tlb), mirrors (addressSpace and seed of each), runs (firstPage and pageCount of each, ascending), \
      accesses of each mirror, concurrency, misbehaviour (ignores-start, installs-without-retry, uses-after-release, \
      never-answers). Says "ready" when it has subscribed, runs at "go", says "progress N" and "finished", and at "report" \
      goes on until the address spaces have exited and prints its result as JSON. Ends when its input ends.
      """)

  func run() throws { MirrorProcess.run() }
}
