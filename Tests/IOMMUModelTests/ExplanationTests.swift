// SPDX-License-Identifier: Apache-2.0
@testable import IOMMUModel
import Testing

@Suite struct ExplanationTests {
  @Test func `a stale write under flush-at-start is told as a refill between the flush and the entry`() throws {
    var bench = Bench { $0.hold = 1000 }
    // Not at time 0, which marks read as "never".
    try bench.apply(.createDomain(.blocked), at: 1000)
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, .flushAtStart)))
    try bench.map(space, 0x100, 16)
    _ = try bench.request(device, 5, 0x100)
    _ = try bench.translate(device, 5, 0x100)
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
    bench.settle()
    try bench.completeAll(device)
    try bench.apply(.translate(device, TranslationRequest(tag: 1, pasid: 5, page: 0x100, noWrite: false)), at: bench.machine.time + 100)
    guard case .translation(_, let answer)? = bench.seen.last else { throw Surprise() }
    bench.run(until: bench.machine.time + 10_000)
    try bench.apply(
      .dma(device, DMARequest(tag: 1, write: true, translated: true, pasid: 5, address: answer.physicalAddress, page: 0x100, value: 1)),
      at: bench.machine.time + 5_000)
    bench.settle()
    let verdict = try #require(bench.verdicts.first)
    let explanation = Explanation(verdict, device: "dev")
    #expect(explanation.sentence.contains("filled its cache again"), "\(explanation.sentence)")
    #expect(explanation.sentence.contains("munmap #"))
    #expect(explanation.chain.last?.contains("STALE_DMA") == true)
    #expect(explanation.chain.contains { $0.contains("F: frees") })
    #expect(explanation.chain.count >= 5, "\(explanation.chain)")
  }

  @Test func `a duration is shown with three digits and its unit`() {
    #expect(Explanation.span(999) == "999 ns")
    #expect(Explanation.span(1_000) == "1.00 µs")
    #expect(Explanation.span(12_345) == "12.3 µs")
    #expect(Explanation.span(123_456) == "123 µs")
    #expect(Explanation.span(1_234_567_890) == "1.23 s")
  }
}
