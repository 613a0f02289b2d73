// SPDX-License-Identifier: Apache-2.0
// Goal: a live machine's verdict is explained from its log, and where that cannot be, the error says which of the reasons
// it is. Method: a stale access over the network, on one loop and on two.
import LabProtocol
import LabService
import Testing

@Suite struct ExplainTests {
  /// A machine on which `count` stale accesses have earned a verdict each.
  private func bench(_ client: LabClient, record: Bool = true, count: Int = 1) throws -> Bench {
    let bench = try Bench(client, record: record)
    let device = try bench.register(rid: 1)
    try bench.bind(device, strategy: "none")
    for _ in 0..<count { try stale(bench, device) }
    return bench
  }

  private func stale(_ bench: Bench, _ device: String) throws {
    try bench.mmap(pages: 1)
    _ = try bench.requestPage(device)
    let translation = try bench.translate(device)
    _ = try bench.client.call(.munmap, bench.munmap(), LabMunmapResponse.self)
    _ = try bench.dma(device, translation.physicalAddress, write: 1)
  }

  private func explain(_ bench: Bench, _ seq: UInt64, _ format: LabExplanationFormat) throws
    -> LabExplainVerdictResponse
  {
    try bench.client.call(
      .explainVerdict,
      LabExplainVerdictRequest.with {
        $0.machine = bench.machine
        $0.seq = seq
        $0.format = format
      })
  }

  private func failure(_ bench: Bench, _ seq: UInt64) throws -> [String?] {
    let failure = try bench.client.failure(.explainVerdict, "{\"machine\":\"\(bench.machine)\",\"seq\":\"\(seq)\"}")
    return [failure.code, failure.reason]
  }

  @Test("every form of every verdict, with few entries in each pass", arguments: [1, 2])
  func forms(loops: Int) async throws {
    var limits = ServiceLimits()
    limits.turnsPerPass = 3
    try await Lab.run(loops: loops, limits: limits) { lab in
      let bench = try bench(try lab.client(), count: 3)
      for seq in UInt64(1)...3 {
        let text = try explain(bench, seq, .unspecified)
        #expect(text.explanation.kind == .staleDma && (3...14).contains(text.explanation.events.count))
        #expect(text.explanation.events.contains { $0.text.hasPrefix("F: frees") })
        #expect(text.rendering.hasPrefix(text.explanation.sentence))
        #expect(try explain(bench, seq, .mermaid).rendering.hasPrefix("sequenceDiagram"))
        let svg = try explain(bench, seq, .svg)
        #expect(svg.rendering.hasPrefix("<svg ") && svg.explanation == text.explanation)
      }
    }
  }

  @Test("a verdict that there is not, and a machine without a log")
  func unknown() async throws {
    try await Lab.run { lab in
      let client = try lab.client()
      let recorded = try bench(client)
      for seq in [UInt64(0), 2, .max] { #expect(try failure(recorded, seq) == ["not_found", "UNKNOWN_VERDICT"]) }
      let unrecorded = try bench(client, record: false)
      #expect(try failure(unrecorded, 1) == ["failed_precondition", "NOT_RECORDING"])
    }
  }

  @Test("a verdict of a mirror names the mirror, as ListVerdicts does")
  func mirror() async throws {
    try await Lab.run { lab in
      let bench = try Bench(try lab.client(), record: true, settings: Bench.kernelOfNow)
      try bench.mmap()
      let id = try bench.subscribe(.interval).subscriber
      let fault = try bench.fault(id)
      try bench.install(id, fault.fault)
      _ = try bench.startMunmap()
      try bench.answer(id, 1)
      _ = try bench.access(id, fault.pages[0].physicalAddress)
      let explained = try explain(bench, 1, .text)
      let listed = try #require(try bench.verdicts().first)
      #expect(explained.explanation.kind == .mirrorAfterStart)
      #expect(explained.explanation.sentence == listed.explanation, "\(explained.rendering)")
      #expect(explained.explanation.lanes.contains { $0.name == "mirror \(id)" })
      #expect(explained.rendering.contains("INVALIDATE, event 1"))
    }
  }

  @Test("a log that ends before the verdict, and one that is too long")
  func logs() async throws {
    var limits = ServiceLimits()
    // The log is full with the first piece that is taken out of it.
    limits.logBytes = 1
    try await Lab.run(limits: limits) { lab in
      let bench = try Bench(try lab.client(), record: true)
      let device = try bench.register(rid: 1)
      try bench.bind(device, strategy: "none")
      try stale(bench, device)
      #expect(try explain(bench, 1, .text).explanation.kind == .staleDma)
      try stale(bench, device)
      #expect(try failure(bench, 2) == ["data_loss", "LOG_FULL"])
    }
    limits = ServiceLimits()
    limits.explainedLogBytes = 10
    try await Lab.run(limits: limits) { lab in
      let bench = try bench(try lab.client())
      #expect(try failure(bench, 1) == ["resource_exhausted", "LIMIT_REACHED"])
    }
  }
}
