// SPDX-License-Identifier: Apache-2.0

/// An order of letters that somebody wrote, in the place of an operation's own: what a patch would make of it.
///
/// Locks, areas and loops stay as the column has them; between them stand the letters. `S` and `E`: both or neither, S
/// first. `C` and `I`: any number. What changes entries: each once, in the operation's own sequence; `P`, or where one
/// page is taken after the other `clear`, `set` and what follows. `F` (frees what was gathered) behind them. `unlock` says
/// where the page-table lock goes, `next` where the loop ends: where they are left out, they come as early and as late as
/// they can.
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

  /// Operations whose letters can be put in another order.
  public static let kinds: [OperationKind] = OrderForm.kinds
  static let letterLimit = 64

  /// What a full gather batch runs in every kernel.
  public static let usualBatch = ["C", "I", "F"]

  /// - Parameters:
  ///   - letters: from the first letter to the last.
  ///   - batch: what a full gather batch runs before the zap goes on: C, I and F.
  /// - Throws: every mistake at once.
  public init(
    _ kind: OperationKind, _ column: KernelColumn, letters: [String], batch: [String] = usualBatch
  ) throws(Mistake) {
    let form = try OrderForm(kind, column)
    var mistakes: [String] = []
    if letters.count + batch.count > Self.letterLimit {
      mistakes.append("order: \(letters.count + batch.count) letters; the most are \(Self.letterLimit)")
    }
    mistakes += form.mistakes(letters, kind)
    if form.gathers { mistakes += Self.mistakes(batch: batch) }
    guard mistakes.isEmpty else { throw Mistake(text: mistakes.joined(separator: "\n")) }
    self.kind = kind
    self.column = column
    self.letters = letters
    self.batch = batch
    steps = form.steps(letters, batch: batch)
  }

  /// The operation's own order, as somebody would write it.
  /// - Throws: it is fixed, or the column has no such operation.
  public init(ownOf kind: OperationKind, _ column: KernelColumn) throws(Mistake) {
    let form = try OrderForm(kind, column)
    try self.init(kind, column, letters: form.letters, batch: form.gathers ? form.batch : Self.usualBatch)
  }

  /// The letters that an order of the operation may have.
  public static func alphabet(_ kind: OperationKind, _ column: KernelColumn) -> [String] {
    (try? OrderForm(kind, column))?.allowed ?? []
  }

  /// Whether C, I and F of a full gather batch are an order of their own.
  public static func gathers(_ kind: OperationKind, _ column: KernelColumn) -> Bool {
    (try? OrderForm(kind, column))?.gathers ?? false
  }

  /// What a letter stands for, for people.
  public static func meaning(of letter: String) -> String { meanings.first { $0.letter == letter }?.text ?? "" }

  private static let meanings: [(letter: String, text: String)] = [
    ("S", "invalidate_range_start"), ("E", "invalidate_range_end"), ("C", "the CPUs' TLBs are flushed"),
    ("I", "the flush site, where a strategy invalidates"), ("F", "what was gathered is freed"),
    ("P", "the entries change"), ("unlink", "empty page tables are unlinked; F frees them"),
    ("clear", "the page's entry is cleared, under the page-table lock"), ("set", "the new entry is set"),
    ("copy", "the page is copied"), ("remap", "the copy's entry takes the place of the migration entry"),
    ("write", "the page is written to its storage"), ("unlock", "the page-table lock goes; if left out, behind set"),
    ("next", "the next page or area; what stands behind it is for all together"),
    ("invalidate-page", "the invalidate_page hook of 2014"), ("change-pte", "the change_pte hook of 2014"),
  ]

  private static func mistakes(batch: [String]) -> [String] {
    var mistakes = batch.filter { !usualBatch.contains($0) }.map {
      "batch: '\($0.prefix(64))' is none of C, I, F"
    }
    if batch.last != "F" { mistakes.append("batch: F must come last, or the batch stays full") }
    return mistakes
  }
}
