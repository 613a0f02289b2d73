// SPDX-License-Identifier: Apache-2.0

/// An order of letters that somebody wrote, in the place of an operation's own: what a patch would make of it.
///
/// Locks and areas stay as the column has them; between them stand the letters, each once unless it is said otherwise:
/// `S` and `E` (both or neither, S first), `P`, `C` and `I` (any number), `F` (frees the pages and the tables that were
/// gathered), `unlink` (page tables, where the operation unlinks them).
public struct UserOrder: Equatable, Sendable {
  public let kind: OperationKind
  public let column: KernelColumn
  /// The letters as they were written.
  public let letters: [String]
  public let batch: [String]
  let steps: [Step]

  /// What is wrong with an order; the texts say what is allowed.
  public struct Mistake: Error, Equatable, Sendable {
    public var text: String
  }

  /// Operations whose letters can be put in another order: those that take a range at once.
  public static let kinds: [OperationKind] = [
    .munmap, .dontNeed, .mprotect, .numaHint, .clearSoftDirty, .oomReap, .exit,
  ]
  static let letterLimit = 64
  private static let zaps: [OperationKind] = [.munmap, .dontNeed, .oomReap, .exit]
  private static let unlinks: [OperationKind] = [.munmap, .exit]

  /// - Parameters:
  ///   - letters: from the first letter to the last.
  ///   - batch: what a full gather batch runs before the zap goes on: C, I and F.
  /// - Throws: every mistake at once.
  public init(
    _ kind: OperationKind, _ column: KernelColumn, letters: [String], batch: [String] = ["C", "I", "F"]
  ) throws(Mistake) {
    self.kind = kind
    self.column = column
    self.letters = letters
    self.batch = batch
    var mistakes: [String] = []
    if letters.count + batch.count > Self.letterLimit {
      mistakes.append("order: \(letters.count + batch.count) letters; the most are \(Self.letterLimit)")
    }
    let own = StepLists.list(kind, column)
    if !Self.kinds.contains(kind) {
      mistakes.append(
        "operation: '\(kind.identifier)' has a fixed order; there are \(Self.kinds.map(\.identifier).joined(separator: ", "))"
      )
    } else if own.isEmpty {
      mistakes.append("operation: the kernels of \(column.title) have no \(kind.identifier)")
    }
    mistakes += Self.mistakes(letters, kind)
    if Self.zaps.contains(kind) { mistakes += Self.mistakes(batch: batch) }
    guard mistakes.isEmpty else { throw Mistake(text: mistakes.joined(separator: "\n")) }

    let split = own.lastIndex(of: .nextEdgeAgain) ?? -1
    let first = own.indices.first { $0 > split && [.start, .zap, .protect].contains(own[$0]) }!
    let last = own.lastIndex { [.unlock, .destroySpace].contains($0) }!
    let change = letters.firstIndex(of: "P")!
    var body: [Step] = []
    for (index, letter) in letters.enumerated() {
      // Before P nothing was gathered, and after F nothing is any more: C and I take the whole range.
      let isEmpty = index < change || letters[..<index].contains("F")
      if isEmpty && (letter == "C" || letter == "I") { body.append(.gatherRange) }
      body += Self.steps(letter, kind, batch: batch)
    }
    steps = own[..<first] + body + own[last...]
  }

  private static func mistakes(_ letters: [String], _ kind: OperationKind) -> [String] {
    var mistakes: [String] = []
    let allowed =
      ["S", "E", "P", "C", "I"] + (zaps.contains(kind) ? ["F"] : []) + (unlinks.contains(kind) ? ["unlink"] : [])
    for letter in letters where !allowed.contains(letter) {
      mistakes.append(
        "order: '\(letter)' is none of \(allowed.joined(separator: ", ")), the letters of \(kind.identifier)")
    }
    func count(_ letter: String) -> Int { letters.count { $0 == letter } }
    if count("P") != 1 { mistakes.append("order: P stands there \(count("P")) times; it must once") }
    if count("S") > 1 || count("E") != count("S") {
      mistakes.append("order: S and E come as a pair, once, or not at all")
    } else if let start = letters.firstIndex(of: "S"), let end = letters.firstIndex(of: "E"), start > end {
      mistakes.append("order: S comes before E")
    }
    if kind == .oomReap, let start = letters.firstIndex(of: "S"), index("P", letters) < start {
      mistakes.append("order: S comes before P, for a notifier may refuse the OOM reaper there")
    }
    if zaps.contains(kind) && letters.lastIndex(of: "F") ?? -1 < max(index("P", letters), index("unlink", letters)) {
      mistakes.append("order: F must come after P and unlink, or what they take away is never freed")
    }
    if unlinks.contains(kind) {
      if count("unlink") != 1 { mistakes.append("order: unlink stands there \(count("unlink")) times; it must once") }
      if index("unlink", letters) < index("P", letters) { mistakes.append("order: unlink comes after P") }
    }
    return mistakes
  }

  private static func mistakes(batch: [String]) -> [String] {
    var mistakes = batch.filter { !["C", "I", "F"].contains($0) }.map { "batch: '\($0)' is none of C, I, F" }
    if batch.last != "F" { mistakes.append("batch: F must come last, or the batch stays full") }
    return mistakes
  }

  private static func index(_ letter: String, _ letters: [String]) -> Int { letters.firstIndex(of: letter) ?? -1 }

  private static func steps(_ letter: String, _ kind: OperationKind, batch: [String]) -> [Step] {
    switch letter {
    case "S": [.start, .hold]
    case "E": [.end]
    case "C": [.cpuFlush]
    case "I": [.flushSite]
    case "F": [.free]
    case "unlink": [.unlinkTables]
    default:
      zaps.contains(kind)
        ? [.zap] + batch.dropLast().flatMap { steps($0, kind, batch: []) } + [.unlockTable, .free, .again] : [.protect]
    }
  }
}
