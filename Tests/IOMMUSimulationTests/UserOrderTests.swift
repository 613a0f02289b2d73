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
    let trials = CellTrial.all(cell)
    for trial in trials { #expect(trial.isDone, "\(letters): \(String(describing: trial.outcome))") }
    let tried = trials.reduce(into: VerdictSet()) { $0.formUnion($1.verdicts) }
    #expect(
      tried == verdicts,
      "\(kind.name) \(size.name) \(column.name) \(letters) (\(batch)), \(Strategy.named.first { $0.strategy == strategy }?.name ?? ""): tried \(tried.text), judged \(verdicts.text)"
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
    #expect(throws: UserOrder.Mistake.self) { try UserOrder(.mremap, .now, letters: ["S", "P", "E"]) }
    #expect(throws: UserOrder.Mistake.self) { try UserOrder(.oomReap, .linux2014, letters: ["P", "F"]) }
    #expect(throws: UserOrder.Mistake.self) { try UserOrder(.munmap, .now, letters: ["P", "F", "unlink"]) }
  }

  @Test(arguments: KernelColumn.allCases)
  func `a kernel's own order, written down, earns what the kernel's own list earns`(column: KernelColumn) throws {
    var written = 0
    for (kind, size) in Cell.rows {
      guard let order = try? UserOrder(ownOf: kind, column) else { continue }
      written += 1
      for (name, strategy) in Strategy.named {
        let own = StepJudge(Cell(kind, size, column, strategy)).verdicts
        let again = StepJudge(Cell(kind, size, column, strategy, order: order)).verdicts
        #expect(own == again, "\(kind.name) \(size.name), \(name): \(own.text), written \(again.text)")
      }
    }
    #expect(written >= (column == .now ? 35 : 29))
  }

  @Test func `a frame that KSM or migration frees before I is caught, and one that goes behind it is not`() throws {
    #expect(try judged(.ksmReplacePage, "S clear C I set F E", .secondaryTLB).kinds == [])
    #expect(try judged(.ksmReplacePage, "S clear C set F unlock I E", .secondaryTLB).kinds == [.staleDMA, .splitView])
    #expect(try judged(.migratePages, "S clear C I set E copy remap F", .secondaryTLB).kinds == [])
    #expect(try judged(.migratePages, "S clear C set E copy remap I F", .secondaryTLB).kinds == [.splitView])
    #expect(try judged(.reclaim, "S clear set E next C I write F", .secondaryTLB).kinds == [])
    #expect(try judged(.reclaim, "S clear set E next C write F I", .secondaryTLB).kinds == [.staleDMA])
    #expect(try judged(.fork, "S P E next C", .secondaryTLB).kinds == [.writeAfterProtect])
    #expect(try judged(.cpuAccess, "S clear C set I E F", .secondaryTLB).kinds == [.splitView])
    // CVE-2022-48991, and its fix.
    #expect(try judged(.retractTables, "P C unlock F", .secondaryTLB).contains(.staleWalk))
    #expect(try judged(.retractTables, "S P C I unlock E F", .secondaryTLB).kinds == [])
  }

  @Test func `a lock that is kept too long, and an E that sleeps under it, are refused`() {
    for (kind, letters, word) in [
      (OperationKind.migratePages, "clear C I set copy remap unlock F", "takes the lock itself"),
      (.ksmReplacePage, "S clear C E I set F", "may sleep"), (.ksmReplacePage, "unlock clear set F", "unlock comes"),
      (.reclaim, "S clear C I set next E write F", "before next"), (.fork, "S P next next E", "next stands"),
      (.fork, "S E P", "E comes after P"), (.fork, "P S E", "S comes before P"),
      (.ksmReplacePage, "clear F C I set F", "F comes after set"),
      (.writeback, "set clear write", "set comes after clear"),
      (.migratePages, "clear set copy F remap", "F must come"),
    ] {
      let mistake = #expect(throws: UserOrder.Mistake.self, "\(letters)") {
        try UserOrder(kind, .now, letters: letters.split(separator: " ").map(String.init))
      }
      #expect(mistake?.text.contains(word) == true, "\(letters): \(mistake?.text ?? "")")
    }
  }

  @Test(arguments: [3, 4, 5, 6] as [UInt64])
  func `random orders earn what the judge says`(seed: UInt64) throws {
    print("random orders, seed \(seed)")
    var generator = SeededGenerator(seed: seed, purpose: "orders")
    func pick(_ count: Int) -> Int { Int(generator.next(below: UInt64(count))) }
    var tried = 0
    while tried < 40 {
      let kind = UserOrder.kinds[pick(UserOrder.kinds.count)]
      let column = KernelColumn.allCases[pick(2)]
      guard let own = try? UserOrder(ownOf: kind, column) else { continue }
      var letters = own.letters
      let alphabet = UserOrder.alphabet(kind, column)
      for _ in 0...pick(5) {
        switch pick(3) {
        case 0: letters.remove(at: pick(letters.count))
        case 1: letters.insert(alphabet[pick(alphabet.count)], at: pick(letters.count + 1))
        default: letters.swapAt(pick(letters.count), pick(letters.count))
        }
        if letters.isEmpty { break }
      }
      let batch = (0..<pick(4)).map { _ in ["C", "I", "F"][pick(3)] } + ["F"]
      guard !letters.isEmpty, (try? UserOrder(kind, column, letters: letters, batch: batch)) != nil else { continue }
      tried += 1
      let sizes = Cell.sizes(kind)
      _ = try judged(
        kind, letters.joined(separator: " "), batch: batch.joined(separator: " "),
        Strategy.named[pick(Strategy.named.count)].strategy, size: sizes[pick(sizes.count)], column: column)
    }
  }
}
