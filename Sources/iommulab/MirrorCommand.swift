// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import StormKit

/// A mirror of an address space, as KVM, gntdev, GRU and HMM drivers are.
struct MirrorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mirror",
    abstract: "A mirror of an address space, over the public API.",
    discussion: """
      Reads its configuration as one line of JSON from standard input: service, machine, addressSpace, kind (kvm, hmm, \
      interval, gntdev, gru, secondary-tlb), seed, firstPage, pageCount, accesses, concurrency, misbehaviour \
      (ignores-start, installs-without-retry, uses-after-release, never-answers). Says "ready" when it has subscribed, \
      runs at "go", and at "report" prints its result as JSON. Ends when its input ends.
      """)

  func run() throws { MirrorProcess.run() }
}
