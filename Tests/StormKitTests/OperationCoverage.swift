// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import Testing

@testable import StormKit

/// Which kinds of operation a recorded machine has performed, as its log tells: the machine's own list of kinds is what
/// they are compared with, so that a new one cannot be forgotten.
struct OperationCoverage {
  private var performed: Set<OperationKind> = []

  init(log: [UInt8]) throws {
    var replay = try Replay(log)
    while let effects = try replay.step() {
      for case .operation(let outcome) in effects.list { performed.insert(outcome.kind) }
    }
  }

  /// The log of a machine that records.
  init(_ client: LabClient, machine: String) throws {
    var bytes: [UInt8] = []
    try client.stream(.getLog, LabGetLogRequest.with { $0.machine = machine }) { (response: LabGetLogResponse) in
      bytes += response.chunk
    }
    try self.init(log: bytes)
  }

  /// Expects that every kind was performed at least once, short of those that are named with the reason. Whether it found
  /// a page to take may depend on the mirrors; what fails ends the mutator.
  func expectAll(except exceptions: [OperationKind: String]) {
    for kind in OperationKind.allCases {
      if let reason = exceptions[kind] {
        #expect(!performed.contains(kind), "\(kind.name) is no exception any more: \(reason)")
      } else {
        #expect(performed.contains(kind), "\(kind.name) was never performed beside the mirrors")
      }
    }
  }
}
