// SPDX-License-Identifier: Apache-2.0

/// One intended access of a device: 8 bytes, read or written.
public struct Access: Equatable, Sendable {
  public var pasid: UInt32
  public var page: UInt64
  /// Bytes from the start of the page; a multiple of 8.
  public var offset: UInt16
  public var write: Bool
  public init(pasid: UInt32, page: UInt64, offset: UInt16, write: Bool) {
    self.pasid = pasid
    self.page = page
    self.offset = offset
    self.write = write
  }
}

/// A run of pages that a device works on.
public struct AccessTarget: Equatable, Sendable {
  public var pasid: UInt32
  public var firstPage: UInt64
  public var pageCount: UInt64
  public init(pasid: UInt32, firstPage: UInt64, pageCount: UInt64) {
    precondition(pageCount > 0, "an access target needs a page")
    self.pasid = pasid
    self.firstPage = firstPage
    self.pageCount = pageCount
  }
}

/// How the pages of a target are chosen.
public enum AccessPattern: String, CaseIterable, Sendable {
  /// One page after the other, and again from the start.
  case sequential
  /// Every page as likely as any other.
  case random
  /// The page of rank r with weight 1/r; which page has which rank follows from the seed of the ranks.
  case zipf
}

/// Everything that fixes a device's list of accesses. Equal workloads give equal lists.
public struct AccessWorkload: Equatable, Sendable {
  public var seed: UInt64
  /// Devices that share this seed share their hot pages under `zipf`.
  public var rankSeed: UInt64
  public var accessCount: UInt64
  public var targets: [AccessTarget]
  public var pattern: AccessPattern
  /// Writes among a thousand accesses.
  public var writePermille: UInt32
  /// Accesses touch the first words of a page only, 1…512; a small number makes collisions with CPU data likely.
  public var wordsPerPage: UInt32
  public init(
    seed: UInt64, rankSeed: UInt64 = 0, accessCount: UInt64, targets: [AccessTarget], pattern: AccessPattern = .random,
    writePermille: UInt32 = 500, wordsPerPage: UInt32 = 512
  ) {
    precondition(!targets.isEmpty, "a workload needs a target")
    precondition((1...512).contains(wordsPerPage), "a page has 512 words, not \(wordsPerPage)")
    self.seed = seed
    self.rankSeed = rankSeed
    self.accessCount = accessCount
    self.targets = targets
    self.pattern = pattern
    self.writePermille = writePermille
    self.wordsPerPage = wordsPerPage
  }
}

/// The list of accesses of a workload, one at a time.
public struct AccessStream: Sendable {
  public let workload: AccessWorkload
  /// Accesses not yet handed out.
  public private(set) var remaining: UInt64
  var generator: StreamGenerator
  var cursors: [UInt64]
  let ranks: [RankedPages]

  public init(_ workload: AccessWorkload) {
    self.workload = workload
    remaining = workload.accessCount
    generator = StreamGenerator(seed: workload.seed)
    // Sequential devices begin at different places, or they would march in step.
    var start = StreamGenerator(seed: StreamGenerator.derived(workload.seed, 1))
    cursors = workload.targets.map { start.next(below: $0.pageCount) }
    ranks =
      workload.pattern == .zipf
      ? workload.targets.map { RankedPages(count: $0.pageCount, seed: workload.rankSeed &+ UInt64($0.pasid)) } : []
  }

  /// The next access, or nil when the list is done.
  public mutating func next() -> Access? {
    guard remaining > 0 else { return nil }
    remaining -= 1
    let index = workload.targets.count == 1 ? 0 : Int(generator.next(below: UInt64(workload.targets.count)))
    let target = workload.targets[index]
    let page: UInt64
    switch workload.pattern {
    case .sequential:
      page = cursors[index]
      cursors[index] = page + 1 == target.pageCount ? 0 : page + 1
    case .random: page = generator.next(below: target.pageCount)
    case .zipf: page = ranks[index].page(generator.next())
    }
    let word = generator.next(below: UInt64(workload.wordsPerPage))
    let write = generator.next(below: 1000) < UInt64(workload.writePermille)
    return Access(pasid: target.pasid, page: target.firstPage + page, offset: UInt16(word * 8), write: write)
  }

  /// Mixes the whole list into `hash`.
  public static func hash(_ workload: AccessWorkload, into hash: inout StreamHash) {
    var stream = AccessStream(workload)
    while let access = stream.next() {
      hash.combine(access.page)
      hash.combine(UInt64(access.pasid) << 32 | UInt64(access.offset) << 1 | (access.write ? 1 : 0))
    }
  }
}

/// Pages by rank with weight 1/rank, as a table of cumulative weights in 32.32 fixed point.
struct RankedPages: Sendable {
  let cumulative: [UInt64]
  let pages: [UInt32]

  init(count: UInt64, seed: UInt64) {
    precondition(count <= 1 << 22, "a zipf target has at most 4,194,304 pages, not \(count)")
    var sum: UInt64 = 0
    cumulative = (1...count).map { rank in
      sum += (1 << 32) / rank
      return sum
    }
    var order = StreamGenerator(seed: seed)
    var shuffled = (0..<UInt32(count)).map { $0 }
    for index in stride(from: shuffled.count - 1, to: 0, by: -1) {
      shuffled.swapAt(index, Int(order.next(below: UInt64(index + 1))))
    }
    pages = shuffled
  }

  /// The page for one random number.
  func page(_ random: UInt64) -> UInt64 {
    let point = random.multipliedFullWidth(by: cumulative[cumulative.count - 1]).high
    var low = 0
    var high = cumulative.count - 1
    while low < high {
      let middle = (low + high) / 2
      if cumulative[middle] > point { high = middle } else { low = middle + 1 }
    }
    return UInt64(pages[low])
  }
}
