// SPDX-License-Identifier: Apache-2.0
// Goal: what a hostile reading found wrong with explanations stays right: who is named, what is told, and in which order.
@testable import IOMMUModel
import Testing

@Suite struct ExplanationRegressionTests {
  private let range = PageRange(first: 0x100, count: 4)

  /// Where the first event of a chain stands whose text begins so.
  private func place(_ text: String, _ explanation: Explanation) throws -> Int {
    try #require(explanation.events.firstIndex { $0.text.hasPrefix(text) }, "\(text) in \(explanation.text)")
  }

  private func expect(_ texts: [String], inOrderIn explanation: Explanation) throws {
    let places = try texts.map { try place($0, explanation) }
    #expect(places == places.sorted(), "\(explanation.text)")
  }

  @Test func `without costs an operation returned before it had cleared the entry and freed the frame`() throws {
    var (bench, space, device) = try Bench.shared(.none)
    let answer = try bench.grant(device, 0x100)
    let munmap = try bench.start(.munmap(space, range))
    bench.settle()
    #expect(bench.outcome(munmap)?.nanoseconds == 0)
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress, write: 1)
    let explanation = try bench.explain()
    #expect(explanation.kind == .staleDMA)
    try expect(["grants page", "P: clears", "C: flushes", "F: frees", "returns"], inOrderIn: explanation)
  }

  @Test func `a verdict of a mirror was told as a CPU's, or as device 0's`() throws {
    var (bench, space, id) = try Bench.mirrored(.kvmLike)
    let address = try bench.mirror(id, 0x100)
    try bench.start(.munmap(space, range))
    bench.settle()
    try bench.answerAll([id])
    try bench.use(id, 0x100, address)
    let verdict = bench.verdicts[0]
    #expect(verdict.accessor == "mirror \(id.slot)")
    #expect(
      verdict.accessor { _ in
        "d"
      } subscriber: {
        "sub-\($0.slot)"
      } == "mirror sub-\(id.slot)")
    var other = verdict
    other.subscriber = SubscriberID(rawValue: 0)
    #expect(other.accessor == "a CPU")
    other.device = DeviceID(slot: 7, generation: 1)
    #expect(other.accessor == "device 7")
  }

  @Test(arguments: SubscriberKind.allCases)
  func `the chain of a mirror's verdict had no event, no answer and no install`(_ kind: SubscriberKind) throws {
    var (bench, space, id) = try Bench.mirrored(kind)
    let address = try bench.mirror(id, 0x100)
    let munmap = try bench.start(.munmap(space, range))
    bench.settle()
    try bench.answerAll([id])
    try bench.use(id, 0x100, address)
    let explanation = try bench.explain()
    #expect(explanation.kind == .mirrorAfterStart)
    let event = try #require(bench.told.first)
    try expect(
      [
        "a fault answers page 0x100000", "installs page 0x100000 of fault 1", "\(event.name), event 1",
        "answers event 1",
      ],
      inOrderIn: explanation)
    #expect(explanation.lanes.map(\.name) == ["munmap #\(munmap.number)", "mirror \(id.slot)"], "\(explanation.text)")
    let told = explanation.events[try place("\(event.name), event 1", explanation)]
    #expect(told.from == 0 && told.to == 1)
    // What a secondary TLB is told follows the entry; everybody else has answered before it goes.
    let order = ["answers event 1", "P: changes"]
    try expect(kind == .secondaryTLB ? order.reversed() : order, inOrderIn: explanation)
    try expect(["answers event 1", "F: frees", "returns"], inOrderIn: explanation)
  }

  @Test func `the install of a fault that met an invalidation was told without that invalidation`() throws {
    var (bench, space, id) = try Bench.mirrored(.interval)
    let answer = try #require(try bench.fault(id, 0x100))
    let operation = try bench.start(.mprotect(space, range, .read))
    bench.settle()
    try bench.answerAll([id])
    try bench.install(id, answer)
    let explanation = try bench.explain()
    try expect(
      ["a fault answers page", "INVALIDATE, event 1", "answers event 1", "installs page"], inOrderIn: explanation)
    #expect(explanation.lanes.contains { $0.name == "mprotect #\(operation.number)" })
    #expect(explanation.events.count { $0.text.hasPrefix("installs page") } == 1)
  }

  @Test func `use after the release is told with the release and its answer`() throws {
    var (bench, space, id) = try Bench.mirrored(.gruLike)
    let address = try bench.mirror(id, 0x100)
    try bench.start(.exit(space))
    bench.settle()
    try bench.answerAll([id])
    try bench.use(id, 0x100, address)
    let explanation = try bench.explain()
    #expect(explanation.kind == .mirrorAfterRelease)
    try expect(
      ["a fault answers page", "installs page", "RELEASE, event 1", "answers event 1"], inOrderIn: explanation)
  }

  @Test func `an order without S is told with the event that never came`() throws {
    var (bench, space, id) = try Bench.mirrored(.kvmLike) {
      $0.orders = [try! UserOrder(.dontNeed, .now, letters: ["P", "C", "I", "F"], batch: ["C", "I", "F"])]
    }
    let address = try bench.mirror(id, 0x100)
    try bench.start(.dontNeed(space, range))
    bench.settle()
    try bench.use(id, 0x100, address)
    let explanation = try bench.explain()
    try expect(
      ["a fault answers", "installs page", "P: clears", "F: frees", "no event has told it"], inOrderIn: explanation)
    #expect(explanation.events.last { $0.kind == .missing }?.text == "no event has told it of the page")
  }
}
