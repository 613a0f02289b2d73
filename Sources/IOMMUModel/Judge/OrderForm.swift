// SPDX-License-Identifier: Apache-2.0

/// What the orders of one operation are made of, read off its own list: the letters that somebody may put in another
/// order, and the steps before and behind them, which stay.
struct OrderForm {
  /// A change of entries, or what belongs to one: it stands in an order once, and the changes keep their order.
  struct Change {
    let letter: String
    let step: Step
  }

  let changes: [Change]
  let head: ArraySlice<Step>
  let tail: ArraySlice<Step>
  /// A full gather batch has letters of its own: C, I and F.
  let gathers: Bool
  /// F must stand behind this letter, and stand there at all; nil: the operation frees nothing.
  let freesBehind: String?
  /// How the page-table lock is taken before the first change; nil: each P has holds of its own.
  let lock: Step?
  /// The last change under that lock.
  let lastLocked: String?
  /// Whether the letters are for one page, block or area after the other.
  let isLoop: Bool
  /// The end of a loop over pages or areas that the letters behind it are outside of.
  let loopEnd: Step?
  /// What the letter I stands for.
  let flush: Step
  /// What comes before P for hugetlb memory: the column's own, with C and I of its own.
  let unsharing: [Step]
  /// The operation's own order.
  let letters: [String]
  let batch: [String]

  /// The end of a loop, as a letter.
  static let next = "next"
  /// The page-table lock goes: behind its last change, unless an order says where.
  static let unlock = "unlock"

  private static let changing: [(step: Step, letter: String)] = [
    (.zap, "P"), (.protect, "P"), (.freeLazily, "P"), (.copyEntries, "P"), (.retractTable, "P"),
    (.unlinkTables, "unlink"), (.clearEntry, "clear"), (.clearPage, "clear"), (.setNew, "set"), (.setReadOnly, "set"),
    (.setClean, "set"), (.setShared, "set"), (.setMoved, "set"), (.setMigration, "set"), (.setExclusive, "set"),
    (.setSwap, "set"), (.copyPage, "copy"), (.remap, "remap"), (.writeOut, "write"),
  ]
  private static let others: [(step: Step, letter: String)] =
    [
      (.start, "S"), (.end, "E"), (.cpuFlush, "C"), (.flushSite, "I"), (.flushSiteWhole, "I"), (.free, "F"),
    ] + hooks
  /// Sites of 2014 beside the flush site.
  static let hooks: [(step: Step, letter: String)] = [(.invalidatePage, "invalidate-page"), (.changePTE, "change-pte")]

  private static let loops: [(begin: Step, end: Step)] = [
    (.nextPage, .nextPageAgain), (.nextBlock, .nextBlockAgain), (.nextArea, .nextAreaAgain), (.resolve, .upgrade),
  ]

  /// Operations that have a form. The others' letters cannot be told apart from what stands between them: mremap and
  /// collapse move or replace tables, a kernel unmap has no letters but one.
  static let kinds: [OperationKind] = [
    .munmap, .dontNeed, .mprotect, .numaHint, .clearSoftDirty, .oomReap, .exit, .uffdWriteProtect, .madviseFree, .fork,
    .cpuAccess, .pageRequestGroup, .ksmWriteProtect, .ksmReplacePage, .migratePages, .migrateToDevice,
    .makeDeviceExclusive, .uffdioMove, .reclaim, .writeback, .retractTables,
  ]

  /// - Throws: the operation's order is fixed, or the column's kernels have no such operation.
  init(_ kind: OperationKind, _ column: KernelColumn) throws(UserOrder.Mistake) {
    let list = StepLists.list(kind, column)
    guard Self.kinds.contains(kind) else {
      let names = Self.kinds.map(\.identifier).joined(separator: ", ")
      throw UserOrder.Mistake(text: "operation: '\(kind.identifier)' has a fixed order; there are \(names)")
    }
    guard !list.isEmpty else {
      throw UserOrder.Mistake(text: "operation: the kernels of \(column.title) have no \(kind.identifier)")
    }
    // Huge pages at the edges are split before the operation's own letters come.
    let split = list.lastIndex(of: .nextEdgeAgain) ?? -1
    let named = list.indices.filter { $0 > split && (Self.change(list[$0]) ?? Self.other(list[$0])) != nil }
    let loop = Self.loops.first { list.contains($0.begin) }
    let first = loop.map { list.firstIndex(of: $0.begin)! + 1 } ?? named.first!
    let end = named.last! + 1
    head = list[..<first]
    tail = list[end...]
    let body = list[first..<end]
    isLoop = loop != nil
    loopEnd = loop.flatMap { body.contains($0.end) ? $0.end : nil }
    lock = body.first { [.lockTable, .lockTables, .lockBlock].contains($0) }
    gathers = body.contains(.zap)
    flush = body.contains(.flushSiteWhole) ? .flushSiteWhole : .flushSite

    var changes: [Change] = []
    var letters: [String] = []
    var batch: [String] = []
    var freesBehind: String?
    var lastLocked: String?
    var inBatch = false
    var unsharing: [Step] = []
    var isUnsharing = false
    for step in body {
      // What is done with huge pages and with page tables that others share belongs to P.
      if [.unshare, .protectHuge, .protectHugeNarrow].contains(step) { isUnsharing = true }
      if isUnsharing || step == .unshareSilently { unsharing.append(step) }
      if step == .unshareAgain { isUnsharing = false }
      if isUnsharing { continue }
      if let letter = Self.change(step) {
        changes.append(Change(letter: letter, step: step))
        letters.append(letter)
      } else if let letter = Self.other(step) {
        if inBatch { batch.append(letter) } else { letters.append(letter) }
      }
      switch step {
      case .zap: inBatch = true
      case .again: inBatch = false
      case .free where !inBatch: freesBehind = changes.last?.letter
      case .unlockTable where lock != nil:
        lastLocked = changes.last?.letter
        letters.append(Self.unlock)
      case loopEnd:
        changes.append(Change(letter: Self.next, step: step))
        letters.append(Self.next)
      default: break
      }
    }
    (self.changes, self.letters, self.batch) = (changes, letters, batch)
    (self.freesBehind, self.lastLocked, self.unsharing) = (freesBehind, lastLocked, unsharing)
  }

  private static func change(_ step: Step) -> String? { changing.first { $0.step == step }?.letter }
  private static func other(_ step: Step) -> String? { others.first { $0.step == step }?.letter }

  /// Every letter that an order may have.
  var allowed: [String] {
    ["S", "E", "C", "I"] + changes.map(\.letter) + (freesBehind == nil ? [] : ["F"])
      + (lock == nil ? [] : [Self.unlock] + Self.hooks.map(\.letter))
  }

  // MARK: The rules

  /// What is wrong with an order of these letters.
  func mistakes(_ order: [String], _ kind: OperationKind) -> [String] {
    var mistakes = order.filter { !allowed.contains($0) }.map {
      "order: '\($0.prefix(64))' is none of \(allowed.joined(separator: ", ")), the letters of \(kind.identifier)"
    }
    func place(_ letter: String) -> Int? { order.firstIndex(of: letter) }
    func count(_ letter: String) -> Int { order.count { $0 == letter } }
    for letter in changes.map(\.letter) where count(letter) != 1 && (letter != Self.next || count(letter) > 1) {
      mistakes.append("order: \(letter) stands there \(count(letter)) times; it must once")
    }
    let written = changes.map(\.letter).filter { place($0) != nil }
    for (before, after) in zip(written, written.dropFirst()) where place(after)! < place(before)! {
      mistakes.append("order: \(after) comes after \(before)")
    }
    if count("S") > 1 || count("E") != count("S") {
      mistakes.append("order: S and E come as a pair, once, or not at all")
    } else if let start = place("S"), let end = place("E"), start > end {
      mistakes.append("order: S comes before E")
    }
    if kind == .oomReap, let start = place("S"), place("P") ?? 0 < start {
      mistakes.append("order: S comes before P, for a notifier may refuse the OOM reaper there")
    }
    if let freesBehind, (order.lastIndex(of: "F") ?? -1) < (place(freesBehind) ?? -1) {
      mistakes.append("order: F must come after \(freesBehind), or what goes there is never freed")
    }
    return mistakes + mistakesOfLoop(order) + mistakesOfLock(order)
  }

  /// Where one page, block or area is taken after the other, each has a window of its own.
  private func mistakesOfLoop(_ order: [String]) -> [String] {
    guard isLoop, let first = order.firstIndex(of: changes[0].letter) else { return [] }
    var mistakes: [String] = []
    let last = order.firstIndex(of: lastLocked ?? changes[0].letter) ?? first
    if order.firstIndex(of: "S").map({ $0 > first }) == true {
      mistakes.append("order: S comes before \(changes[0].letter), in a window of its own")
    }
    if order.firstIndex(of: "E").map({ $0 < last || $0 > order.firstIndex(of: Self.next) ?? .max }) == true {
      mistakes.append("order: E comes after \(order[last]), before next if that is there")
    }
    if let freesBehind, let behind = order.firstIndex(of: freesBehind), order.firstIndex(of: "F") ?? .max < behind {
      mistakes.append("order: F comes after \(freesBehind), each of them: until then the page is in use")
    }
    return mistakes
  }

  private func mistakesOfLock(_ order: [String]) -> [String] {
    guard lock != nil, let lastLocked, let first = order.firstIndex(of: changes[0].letter),
      let last = order.firstIndex(of: lastLocked)
    else { return [] }
    var mistakes: [String] = []
    let end = order.firstIndex(of: Self.unlock) ?? last
    if order.count(where: { $0 == Self.unlock }) > 1 || end < last {
      mistakes.append("order: unlock comes after \(lastLocked), once or not at all")
    }
    for letter in ["S", "E"] where order.firstIndex(of: letter).map({ $0 > first && $0 < end }) == true {
      mistakes.append("order: \(letter) may sleep; it stands before \(changes[0].letter) or behind unlock")
    }
    for change in changes where order.firstIndex(of: change.letter).map({ $0 > last && $0 < end }) == true {
      mistakes.append("order: \(change.letter) takes the lock itself; it comes after unlock")
    }
    return mistakes
  }

  // MARK: The list

  /// The operation's list with an order that breaks no rule.
  func steps(_ order: [String], batch: [String]) -> [Step] {
    var body: [Step] = []
    let first = order.firstIndex(of: changes[0].letter)!
    var isStray = false
    for (index, letter) in order.enumerated() {
      // Before the first change nothing was gathered, and behind F nothing is any more: C and I take the whole range.
      if ["C", "I"].contains(letter), index < first || order[..<index].contains("F") {
        body.append(.gatherRange)
        isStray = order[..<index].contains("F")
      }
      body += steps(letter, batch: batch)
      if letter == lastLocked && !order.contains(Self.unlock) { body.append(.unlockTable) }
    }
    if loopEnd != nil && !order.contains(Self.next) { body.append(loopEnd!) }
    return head + body + (isStray ? [.beginGather] : []) + tail
  }

  private func steps(_ letter: String, batch: [String]) -> [Step] {
    switch letter {
    case "S": return [.start, .hold]
    case "E": return [.end]
    case "C": return [.cpuFlush]
    case "I": return [flush]
    case "F": return [.free]
    case Self.unlock: return [.unlockTable]
    default:
      if let hook = Self.hooks.first(where: { $0.letter == letter }) { return [hook.step] }
      let change = changes.first { $0.letter == letter }!
      var before: [Step] = letter == changes[0].letter && lock != nil ? [lock!] : []
      if letter == "P" { before += unsharing }
      let behind: [Step] =
        change.step == .zap
        ? batch.dropLast().flatMap { steps($0, batch: []) } + [.unlockTable, .free, .again] : []
      return before + [change.step] + behind
    }
  }
}
