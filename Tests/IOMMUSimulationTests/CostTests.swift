// SPDX-License-Identifier: Apache-2.0
// Goal: what an operation costs follows from its step list, its strategy and the cost model, and nothing else. Method:
// relations that the step lists demand, and the committed tables against what the commands give. What breaks it: a letter
// that gets a price twice, a wait that is booked under a lock that is not held, a draw that is not seeded.
import Foundation
import IOMMUModel
import IOMMUSimulation
import Testing

@Suite struct CostTests {
  static func committed(_ name: String) throws -> String {
    let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("docs/\(name)")
    return try String(contentsOf: file, encoding: .utf8)
  }

  /// A cost model in which every duration has one value: then differences are exact.
  static let flat: CostModel = {
    var costs = CostModel.zero
    costs.start = .constant(100)
    costs.end = .constant(200)
    costs.iotlbFlush = .constant(1000)
    return costs
  }()

  @Test func `a notifier that needs nothing costs S and E when it is called, and nothing when the calls are skipped`() {
    for (kind, size) in Cell.rows where kind != .pageRequestGroup && kind != .cpuAccess {
      let idle = Cell(kind, size, .now, Strategy(sites: [], release: false))
      guard idle.exists else { continue }
      let bare = CellCost(idle, sharers: 0, callsHooks: false, costs: Self.flat, runs: 1)
      let skipped = CellCost(idle, sharers: 1, callsHooks: false, costs: Self.flat, runs: 1)
      let called = CellCost(idle, sharers: 1, costs: Self.flat, runs: 1)
      #expect(bare.nanoseconds == 0 && skipped.nanoseconds == 0, "\(kind.name)")
      #expect(called.nanoseconds.truncatingRemainder(dividingBy: 300) == 0, "\(kind.name): \(called.nanoseconds)")
      #expect(called.waiting.mean == 0 && called.invalidations == 0, "\(kind.name)")
    }
  }

  @Test func `one I is one flush of the IOMMU and one invalidation for each device`() {
    let cell = Cell(.dontNeed, .small, .now, .secondaryTLB)
    for sharers in [1, 8, 64] {
      let cost = CellCost(cell, sharers: sharers, costs: Self.flat, runs: 5)
      #expect(cost.invalidations == Double(sharers))
      #expect(cost.waiting.mean >= 1000 && cost.nanoseconds == cost.waiting.mean + 300)
    }
  }

  @Test func `a full batch waits for I under the page-table lock, a small range only under the mmap lock`() {
    let small = CellCost(Cell(.dontNeed, .small, .now, .secondaryTLB), runs: 5)
    #expect(small.underPageTableLock.longest == 0 && small.sleepable == small.waiting.mean)
    #expect(small.underMmapLock.mean == small.waiting.mean)
    let full = CellCost(Cell(.dontNeed, .fullBatch, .now, .secondaryTLB), runs: 5)
    #expect(full.underPageTableLock.longest > 0 && full.sleepable < full.waiting.mean)
    // E of 2014 flushes once more, under neither.
    let reclaim = CellCost(Cell(.migratePages, .small, .now, .flushAtEnd), runs: 5)
    #expect(reclaim.underMmapLock.longest == 0 && reclaim.waiting.longest > 0)
  }

  @Test func `the same seeds give the same costs, and more devices wait no less`() {
    let cell = Cell(.munmap, .fullBatch, .linux2014, .invalidateRange)
    let costs = [1, 8, 64].map { CellCost(cell, sharers: $0, runs: 10) }
    #expect(costs[1].nanoseconds == CellCost(cell, sharers: 8, runs: 10).nanoseconds)
    #expect(costs[0].waiting.mean < costs[1].waiting.mean && costs[1].waiting.mean < costs[2].waiting.mean)
  }

  /// Cells of the committed table by column, a row each.
  static func committedRows(_ column: KernelColumn) throws -> [[String]] {
    let sections = try committed("operation-costs.md").components(separatedBy: "\n## ")
    let section = try #require(sections.first { $0.hasPrefix(column.title) }).components(separatedBy: "\n### ")[0]
    return section.split(separator: "\n").filter { $0.hasPrefix("|") }.map { line in
      line.dropFirst().dropLast().components(separatedBy: "|").map { $0.trimmingCharacters(in: .whitespaces) }
    }
  }

  @Test(arguments: KernelColumn.allCases)
  func `the committed costs have every operation and strategy, and every tenth row is the one that the command gives`(
    column: KernelColumn
  ) throws {
    let advice: Comment = "write it anew with: iommulab cost > docs/operation-costs.md"
    let committed = try Self.committedRows(column)
    #expect(Array(try #require(committed.first).dropFirst(4)) == CostTable.strategies.map(\.name), advice)
    let rows = Cell.rows.filter { Cell($0.kind, $0.size, column, .none).exists }
    #expect(committed.count == rows.count + 2, advice)
    // The whole is compared in release, where it takes seconds (scripts/committed-figures).
    for (index, row) in rows.enumerated() where index % 10 == 1 {
      #expect(committed[index + 2] == CostTable.Row(row.kind, row.size, column, runs: CostTable.runs).cells, advice)
    }
  }

  // MARK: Calibration

  static let calibration = Calibration(withWindows: false)

  @Test func `every bucket of an input comes out within two points, and no value outside of all`() {
    for input in Self.calibration.inputs {
      #expect(input.distance <= Calibration.tolerance, "\(input.figure.row): \(input.shares)")
      #expect(input.outside == 0, "\(input.figure.row)")
      if let greatest = input.figure.greatest { #expect(input.greatest <= Nanoseconds(greatest)) }
      if let mean = input.figure.mean { #expect(abs(input.mean / Double(mean) - 1) < 0.05, "\(input.mean)") }
    }
  }

  @Test func `a serial handler serves about 110,000 faults a second, and waits as queueing theory says`() throws {
    let rate = try #require(Self.calibration.checks.first)
    #expect((105_000...117_000).contains(rate.simulated), "\(rate)")
    for check in Self.calibration.checks { #expect(abs(check.deviation) < 5, "\(check)") }
    for check in Self.calibration.load { #expect(abs(check.deviation) < 15, "\(check)") }
  }

  @Test func `a lean moves the mean of its buckets, not their shares`() {
    for lean in [UInt32(0), 500, 1000] {
      var generator = SeededGenerator(seed: 1)
      let distribution = Distribution(.init(upTo: 600, 0, 1000), .init(upTo: 1000, 1000, 2000), lean: lean)
      let values = (0..<20_000).map { _ in distribution.draw(&generator) }
      let share = Double(values.count { $0 < 1000 }) / 20_000
      let place = Double(values.reduce(0) { $0 + $1 % 1000 }) / 20_000_000
      #expect(abs(share - 0.6) < 0.02)
      #expect(abs(place - (0.5 - Double(lean) / 6000)) < 0.01, "\(place)")
    }
  }

  @Test func `the committed calibration is the one that the command gives`() throws {
    // The deferred windows at its end are compared in release, where they take seconds (scripts/committed-figures).
    #expect(
      try Self.committed("calibration.md").hasPrefix(Self.calibration.markdown),
      "write it anew with: iommulab calibrate > docs/calibration.md")
  }
}
