// SPDX-License-Identifier: Apache-2.0

/// The runs of pages that a mirror has a table for, side by side in it: what overlaps a range of addresses is one range
/// of places, whatever lies between the runs.
struct MirrorPlaces: Sendable {
  private let runs: [MirrorRange]
  let count: Int

  /// - Parameter runs: in ascending order, disjoint, none of them empty.
  init(_ runs: [MirrorRange]) {
    self.runs = runs
    count = Int(runs.reduce(0) { $0 + $1.count })
  }

  /// Places of the pages below.
  private func countBelow(_ page: UInt64) -> Int {
    Int(runs.reduce(0) { $0 + min(max(page, $1.first) - $1.first, $1.count) })
  }

  /// The place of a page of one of the runs.
  func place(of page: UInt64) -> Int { countBelow(page) }

  func page(at place: Int) -> UInt64 {
    var rest = UInt64(place)
    for run in runs {
      if rest < run.count { return run.first + rest }
      rest -= run.count
    }
    preconditionFailure("place \(place) of \(count)")
  }

  func clip(_ range: MirrorRange) -> Range<Int> { countBelow(range.first)..<countBelow(range.end) }

  /// The aligned block of so many pages around a page of a run, as far as it lies inside the run.
  func block(_ pageCount: UInt64, around page: UInt64) -> MirrorRange {
    let run = runs.first { page < $0.end }!
    let start = page / pageCount * pageCount
    let first = max(start, run.first)
    return MirrorRange(first: first, count: min(start + pageCount, run.end) - first)
  }
}
