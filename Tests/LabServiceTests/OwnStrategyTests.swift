// SPDX-License-Identifier: Apache-2.0
// Goal: a strategy that a caller wrote is as good as one that has a name. Method: machines that differ in nothing but the
// form of the strategy have equal states; every wrong part is named in one refusal.
import IOMMUModel
import LabProtocol
import LabService
import RPCClient
import Testing

@Suite struct OwnStrategyTests {
  /// The hooks of a named strategy, written down.
  private static func written(_ strategy: Strategy) -> LabStrategy {
    .with {
      $0.flushAt = Strategy.hooks.filter { strategy.sites.contains($0.site) }.map(\.name)
      $0.emptyTable = strategy.emptyTable.name
      $0.deferral = strategy.deferral.name
      if strategy.reach.wholeFrom < .max { $0.wholeFromPages = strategy.reach.wholeFrom }
      $0.commandPerPage = strategy.reach.perPage
      $0.atc = strategy.flushesATC
      $0.release = strategy.release
    }
  }

  private func bind(_ bench: Bench, _ device: String, _ configure: (inout LabSvaBinding) -> Void) throws {
    let _: LabBindPasidResponse = try bench.client.call(
      .bindPasid,
      LabBindPasidRequest.with {
        ($0.machine, $0.device, $0.pasid) = (bench.machine, device, 1)
        $0.sva.addressSpace = bench.space
        configure(&$0.sva)
      })
  }

  @Test func `a named strategy that is written down gives the machine the same state`() async throws {
    try await Lab.run { lab in
      for (name, strategy) in Strategy.named {
        var hashes: [String] = []
        for isWritten in [false, true] {
          let bench = try Bench(try lab.client(), pacing: .manual)
          try bind(bench, try bench.register(rid: 8)) {
            if isWritten { $0.ownStrategy = Self.written(strategy) } else { $0.strategy = name }
          }
          hashes.append(try bench.stateHash())
        }
        #expect(hashes[0] == hashes[1], "\(name)")
      }
    }
  }

  @Test func `hooks that flush at S alone are caught, and at the flush site they leave nothing to catch`() async throws
  {
    try await Lab.run { lab in
      for hook in ["start", "flush-site"] {
        let bench = try Bench(try lab.client())
        try bench.mmap()
        let device = try bench.register(rid: 8)
        try bind(bench, device) { $0.ownStrategy.flushAt = [hook] }
        _ = try bench.requestPage(device)
        let before = try bench.translate(device)
        #expect(before.write)
        let started: LabMunmapResponse = try bench.client.call(.munmap, bench.munmap(startOnly: true))
        // The invalidation has been sent: a copy that is taken now is not its concern.
        let refilled = try bench.translate(device)
        #expect(refilled.write == (hook == "start"))
        _ = try bench.complete(device, 0)
        let ended: LabGetOperationResponse = try bench.client.call(
          .getOperation,
          LabGetOperationRequest.with {
            ($0.machine, $0.operation) = (bench.machine, started.operation.operation)
          })
        #expect(ended.operation.done)
        if refilled.write { _ = try bench.dma(device, refilled.physicalAddress, write: 1) }
        let listed: LabListVerdictsResponse = try bench.client.call(
          .listVerdicts, LabListVerdictsRequest.with { $0.machine = bench.machine })
        #expect(listed.verdicts.map(\.kind) == (hook == "start" ? [.staleDma] : []))
      }
    }
  }

  @Test func `every wrong part of a written strategy is named in one refusal`() async throws {
    try await Lab.run { lab in
      let bench = try Bench(try lab.client())
      let device = try bench.register(rid: 8)
      let failure = try bench.client.failure(
        .bindPasid,
        """
        {"machine":"\(bench.machine)","device":"\(device)","pasid":1,"sva":{"addressSpace":"\(bench.space)","ownStrategy":
        {"flushAt":["lunch","start","start"],"emptyTable":"full","deferral":"long","wholeFromPages":0}}}
        """)
      #expect(failure.reason == "UNKNOWN_STRATEGY")
      #expect(
        failure.fields == ["flushAt", "emptyTable", "deferral", "wholeFromPages"].map { "sva.ownStrategy." + $0 })
      #expect(failure.message.contains("'lunch' is none of start, flush-site"))
    }
  }
}
