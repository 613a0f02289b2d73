// SPDX-License-Identifier: Apache-2.0
// Goal: an order that somebody wrote is judged as the machine would perform it. Method: random orders, judged and tried
// as CellTests does with the built-in ones; and the orders of the 2014 debate, by hand.
import IOMMUModel
import IOMMUSimulation
import Testing

@Suite struct UserOrderTests {
  func judged(
    _ kind: OperationKind, _ letters: String, batch: String = "C I F", _ strategy: Strategy,
    size: Cell.Size = .small, column: KernelColumn = .now
  ) throws -> VerdictSet {
    let order = try UserOrder(
      kind, column, letters: letters.split(separator: " ").map(String.init),
      batch: batch.split(separator: " ").map(String.init))
    let cell = Cell(kind, size, column, strategy, order: order)
    let verdicts = StepJudge(cell).verdicts
    let trials = [CellTrial(cell, usesCPU: false), CellTrial(cell, usesCPU: true)]
    for trial in trials { #expect(trial.isDone, "\(letters): \(String(describing: trial.outcome))") }
    let tried = trials[0].verdicts.union(trials[1].verdicts)
    #expect(
      tried == verdicts, "\(kind.name) \(size.name) \(letters) (\(batch)): tried \(tried.text), judged \(verdicts.text)"
    )
    return verdicts
  }

  @Test func `I between P and F is safe, I before P and I after F are not, whatever stands beside`() throws {
    #expect(try judged(.dontNeed, "S P C I F E", .secondaryTLB) == [])
    #expect(try judged(.dontNeed, "P C I F", .secondaryTLB) == [])
    #expect(try judged(.dontNeed, "S I P C F E", .secondaryTLB).contains(.staleDMA))
    #expect(try judged(.dontNeed, "S P C F I E", .secondaryTLB).contains(.staleDMA))
    #expect(try judged(.dontNeed, "P I F C", .secondaryTLB).contains(.staleCPU))
    #expect(try judged(.munmap, "S P E C I unlink F", .secondaryTLB).contains(.staleWalk))
    #expect(try judged(.munmap, "S P E unlink C I F", .secondaryTLB) == [])
    #expect(try judged(.dontNeed, "S P C I F E", batch: "C F", .secondaryTLB, size: .fullBatch).contains(.staleDMA))
    #expect(try judged(.mprotect, "S P E C", .secondaryTLB).contains(.writeAfterProtect))
  }

  @Test func `a frame that is freed before E makes an end-only flush unsafe, one after E does not`() throws {
    #expect(try judged(.dontNeed, "S P C F E", .flushAtEnd).contains(.staleDMA))
    #expect(try judged(.dontNeed, "S P C E F", .flushAtEnd) == [])
  }

  @Test func `every mistake is named at once`() {
    let mistake = #expect(throws: UserOrder.Mistake.self) {
      try UserOrder(.dontNeed, .now, letters: ["E", "X", "S", "F"], batch: ["C"])
    }
    #expect(mistake!.text.split(separator: "\n").count == 4, "\(mistake!.text)")
    #expect(throws: UserOrder.Mistake.self) { try UserOrder(.fork, .now, letters: ["S", "P", "E"]) }
    #expect(throws: UserOrder.Mistake.self) { try UserOrder(.oomReap, .linux2014, letters: ["P", "F"]) }
    #expect(throws: UserOrder.Mistake.self) { try UserOrder(.munmap, .now, letters: ["P", "F", "unlink"]) }
  }

  @Test(arguments: [3, 4, 5, 6] as [UInt64])
  func `random orders earn what the judge says`(seed: UInt64) throws {
    print("random orders, seed \(seed)")
    var generator = SeededGenerator(seed: seed, purpose: "orders")
    func pick(_ count: Int) -> Int { Int(generator.next(below: UInt64(count))) }
    var tried = 0
    while tried < 25 {
      let kind = UserOrder.kinds[pick(UserOrder.kinds.count)]
      let column = KernelColumn.allCases[pick(2)]
      let letters = (0..<(3 + pick(6))).map { _ in ["S", "P", "E", "C", "I", "I", "F", "unlink", "C"][pick(9)] }
      let batch = (0..<pick(4)).map { _ in ["C", "I", "F"][pick(3)] } + ["F"]
      guard (try? UserOrder(kind, column, letters: letters, batch: batch)) != nil else { continue }
      tried += 1
      let sizes = Cell.sizes(kind)
      _ = try judged(
        kind, letters.joined(separator: " "), batch: batch.joined(separator: " "),
        Strategy.named[pick(Strategy.named.count)].strategy, size: sizes[pick(sizes.count)], column: column)
    }
  }
}
