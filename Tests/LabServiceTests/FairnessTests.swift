// SPDX-License-Identifier: Apache-2.0
// Goal: long work for one caller does not keep the others waiting. Method: two connections to one loop; while the work of
// the first goes on, what the second asks must be answered, and the answers say that the work went on.
import LabProtocol
import LabService
import RPCClient
import Testing

@Suite struct FairnessTests {
  static let pages: UInt64 = 50_000

  @Test("a call of another connection is answered between the turns of a long operation", arguments: [false, true])
  func operation(takesTime: Bool) async throws {
    try await Lab.run { lab in
      let worker = try lab.client()
      // With durations the next turn is mostly due already when the last one ends.
      let bench = try Bench(worker, settings: .with { $0.costs.preset = takesTime ? .measured : .zero })
      try bench.mmap(pages: Self.pages)
      _ = try worker.call(
        .touch,
        LabTouchRequest.with {
          $0.machine = bench.machine
          $0.addressSpace = bench.space
          $0.address = Hex.string(Bench.base)
          $0.byteCount = Hex.string(Self.pages << 12)
          $0.startOnly = true
        }, LabTouchResponse.self)
      let other = try lab.client()
      for _ in 0..<5 {
        let seen: LabGetStatisticsResponse = try other.call(
          .getStatistics, LabGetStatisticsRequest.with { $0.machine = bench.machine })
        #expect(seen.statistics.runningOperations == 1)
      }
    }
  }
}
