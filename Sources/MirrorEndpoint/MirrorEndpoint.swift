// SPDX-License-Identifier: Apache-2.0

/// A mirror without I/O and without a clock: a table of its own over runs of pages, a list of accesses through it, and
/// the rules by which it answers events. The client process and the simulation run this same type.
///
///     access ─▶ in the table ───────────────────────────────────────▶ access ─▶ over
///          └──▶ miss ─▶ fault ─▶ answer ─▶ no retry ─▶ install ──────▲
///                        ▲                 └─▶ retry ─┐
///                        └── window over ◀── wait ◀───┘
///
/// An event is answered when no access and no install of its range is under way any more.
public struct MirrorEndpoint: Sendable {
  public struct Configuration: Sendable {
    public var kind: MirrorKind
    public var seed: UInt64
    /// Its runs of pages: in ascending order, disjoint, none of them empty.
    public var runs: [MirrorRange]
    public var accessCount: UInt64
    /// Accesses under way at once.
    public var concurrency = 4
    /// Writes among a thousand accesses.
    public var writePermille: UInt64 = 500
    /// Pages that a fault asks for at once.
    public var faultPages: UInt64 = 1
    /// `dev_private_owner`.
    public var owner: UInt32 = 0
    public var misbehaviour: MirrorMisbehaviour = []
    public init(kind: MirrorKind, seed: UInt64, runs: [MirrorRange], accessCount: UInt64) {
      self.kind = kind
      self.seed = seed
      self.runs = runs
      self.accessCount = accessCount
    }
    /// From its first page to its last: what an interval notifier is told of.
    public var range: MirrorRange { runs[0].union(runs[runs.count - 1]) }
  }
  public struct Counters: Equatable, Sendable {
    public var begun: UInt64 = 0
    public var done: UInt64 = 0
    /// Accesses to pages that could not be had.
    public var refused: UInt64 = 0
    public var fenced: UInt64 = 0
    public var faults: UInt64 = 0
    /// Answers of faults that were thrown away, and faults that were busy.
    public var retries: UInt64 = 0
    public var installs: UInt64 = 0
    public var events: UInt64 = 0
    public var refusals: UInt64 = 0
  }

  private struct Entry {
    var physicalAddress: UInt64
    var isWritable: Bool
  }
  private struct Slot {
    enum State { case idle, faulting, installing, joined, waiting, accessing }
    var state = State.idle
    var page: UInt64 = 0
    var write = false
    /// The fault that is under way.
    var range = MirrorRange(first: 0, count: 0)
    var snapshot = MirrorRules.Snapshot(sequence: 0)
  }

  public let configuration: Configuration
  public private(set) var counters = Counters()
  /// It did not answer in time.
  public private(set) var isFenced = false
  /// The address space is gone.
  public private(set) var isReleased = false
  /// What is to be sent, in order; the caller takes it.
  public var messages: [MirrorMessage] = []
  /// Accesses that may have begun; a caller that keeps several lists in step raises it.
  public var startLimit = UInt64.max
  private var rules: MirrorRules
  private var generator: StreamOfNumbers
  private let places: MirrorPlaces
  // By place.
  private var table: [Entry?]
  private var usesUnderWay: [UInt32]
  private var installsUnderWay: [UInt32]
  private var isFaulting: [Bool]
  private var isYoung: [Bool]
  private var slots: [Slot]
  /// Events that wait for accesses and installs.
  private var owed: [MirrorEvent] = []

  /// - Parameters: what the subscription answered.
  public init(_ configuration: Configuration, sequence: UInt64, openWindows: UInt32) {
    self.configuration = configuration
    rules = MirrorRules(configuration.kind, sequence: sequence, openWindows: openWindows)
    generator = StreamOfNumbers(state: configuration.seed)
    places = MirrorPlaces(configuration.runs)
    let count = places.count
    table = Array(repeating: nil, count: count)
    usesUnderWay = Array(repeating: 0, count: count)
    installsUnderWay = Array(repeating: 0, count: count)
    isFaulting = Array(repeating: false, count: count)
    isYoung = Array(repeating: false, count: count)
    slots = Array(repeating: Slot(), count: configuration.concurrency)
  }

  /// Every access of the list has ended.
  public var isIdle: Bool { counters.begun == configuration.accessCount && isQuiet }
  /// Nothing is under way.
  public var isQuiet: Bool { slots.allSatisfy { $0.state == .idle } }
  public var endedAccesses: UInt64 { counters.done + counters.refused + counters.fenced }

  // MARK: What arrives

  public mutating func receive(_ event: MirrorEvent) {
    counters.events += 1
    if configuration.misbehaviour.contains(.neverAnswers) { return }
    if event.owner != 0 && event.owner == configuration.owner { return answer(event) }
    if !event.mayBlock && wouldBlock(event) {
      counters.refusals += 1
      return messages.append(.answer(number: event.number, refuses: true, youngPages: 0))
    }
    rules.take(event)
    switch event.hook {
    case .end:
      answer(event)
      for index in slots.indices where slots[index].state == .waiting { advance(index) }
    case .young:
      answer(event)
    case .start, .invalidate, .finish, .release:
      if event.isRelease { isReleased = true }
      let ignores: MirrorMisbehaviour = event.isRelease ? .usesAfterRelease : .ignoresStart
      if configuration.misbehaviour.contains(ignores) { return answer(event) }
      drop(event.range)
      owed.append(event)
      settle()
      if isReleased {
        for index in slots.indices where slots[index].state == .waiting { end(index, refused: true) }
      }
    }
  }

  /// A fault's answer: install, or fault again.
  public mutating func receive(_ answer: MirrorFaultAnswer) {
    let index = Int(answer.tag)
    guard slots[index].state == .faulting else { return }
    let range = slots[index].range
    for place in places.clip(range) { isFaulting[place] = false }
    let isLate = isReleased && !configuration.misbehaviour.contains(.usesAfterRelease)
    switch isLate ? .gone : answer.status {
    case .success:
      let retries = rules.mustRetry(slots[index].snapshot, read: answer.sequence, range)
      if retries && !configuration.misbehaviour.contains(.installsWithoutRetry) {
        counters.retries += 1
        advance(index)
      } else {
        install(index, answer)
      }
    case .busy:
      counters.retries += 1
      advance(index)
    case .denied where range.count > 1:
      // One page of several cannot be had; perhaps it is not this one.
      fault(index, MirrorRange(first: slots[index].page, count: 1))
    case .denied, .gone:
      end(index, refused: true)
    }
    for other in slots.indices where slots[other].state == .joined { advance(other) }
    settle()
  }

  /// The oracle has heard of an install.
  public mutating func receiveInstalled(tag: UInt32) {
    let index = Int(tag)
    guard slots[index].state == .installing else { return }
    for place in places.clip(slots[index].range) { installsUnderWay[place] -= 1 }
    advance(index)
    settle()
  }

  /// An access is over.
  public mutating func receiveAccess(tag: UInt32, fenced: Bool) {
    let index = Int(tag)
    guard slots[index].state == .accessing else { return }
    usesUnderWay[places.place(of: slots[index].page)] -= 1
    if fenced { return fence() }
    end(index, refused: false)
    settle()
  }

  /// The machine says that it did not answer in time.
  public mutating func fence() {
    isFenced = true
    for index in slots.indices where slots[index].state != .idle {
      counters.fenced += 1
      slots[index].state = .idle
    }
    owed = []
  }

  /// Begins as many accesses as may be under way.
  public mutating func pump() {
    for index in slots.indices where slots[index].state == .idle { begin(index) }
  }

  // MARK: Events

  private mutating func drop(_ range: MirrorRange) {
    for place in places.clip(range) { table[place] = nil }
  }

  /// What must be waited for, or unmapped, would sleep.
  private func wouldBlock(_ event: MirrorEvent) -> Bool {
    guard configuration.kind.isInterval, event.hook == .invalidate else { return false }
    return places.clip(event.range).contains {
      usesUnderWay[$0] > 0 || installsUnderWay[$0] > 0 || configuration.kind == .gntdev && table[$0] != nil
    }
  }

  private mutating func answer(_ event: MirrorEvent) {
    var young: UInt32 = 0
    if event.hook == .young {
      for place in places.clip(event.range) where isYoung[place] {
        isYoung[place] = false
        young += 1
      }
    }
    messages.append(.answer(number: event.number, refuses: false, youngPages: young))
  }

  /// Answers what no access and no install stands in the way of. The first of two passes waits for installs alone.
  private mutating func settle() {
    while let index = owed.firstIndex(where: { isSettled($0) }) { answer(owed.remove(at: index)) }
  }

  private func isSettled(_ event: MirrorEvent) -> Bool {
    let isFirstPass = event.hook == .invalidate && configuration.kind.takesTwoPasses
    return places.clip(event.range).allSatisfy { installsUnderWay[$0] == 0 && (isFirstPass || usesUnderWay[$0] == 0) }
  }

  // MARK: Accesses

  private mutating func begin(_ index: Int) {
    let isOver = isReleased && !configuration.misbehaviour.contains(.usesAfterRelease)
    guard !isFenced, !isOver, counters.begun < min(configuration.accessCount, startLimit) else { return }
    counters.begun += 1
    slots[index].page = places.page(at: Int(generator.next(below: UInt64(places.count))))
    slots[index].write = generator.next(below: 1000) < configuration.writePermille
    advance(index)
  }

  private mutating func advance(_ index: Int) {
    let page = slots[index].page
    let place = places.place(of: page)
    if let entry = table[place], entry.isWritable || !slots[index].write {
      slots[index].state = .accessing
      usesUnderWay[place] += 1
      isYoung[place] = true
      // Word 0 of a page is the process's own, so that it can tell what it has lost.
      let word = 1 + generator.next(below: 511)
      messages.append(
        .access(
          tag: UInt32(index), page: page, physicalAddress: entry.physicalAddress + 8 * word, write: slots[index].write,
          value: counters.begun))
    } else if isReleased {
      end(index, refused: true)
    } else if rules.isClosed(MirrorRange(first: page, count: 1)) {
      slots[index].state = .waiting
    } else if isFaulting[place] {
      slots[index].state = .joined
    } else {
      // As many pages around it as nobody faults already, in a block of that size.
      let range = places.block(configuration.faultPages, around: page)
      let isAlone = !places.clip(range).contains { isFaulting[$0] }
      fault(index, isAlone ? range : MirrorRange(first: page, count: 1))
    }
  }

  private mutating func fault(_ index: Int, _ range: MirrorRange) {
    for place in places.clip(range) { isFaulting[place] = true }
    slots[index].state = .faulting
    slots[index].range = range
    slots[index].snapshot = rules.snapshot
    counters.faults += 1
    messages.append(.fault(tag: UInt32(index), range, write: slots[index].write))
  }

  private mutating func install(_ index: Int, _ answer: MirrorFaultAnswer) {
    let range = slots[index].range
    for (offset, page) in answer.pages.enumerated() {
      let place = places.place(of: range.first) + offset
      table[place] = Entry(physicalAddress: page.physicalAddress, isWritable: page.isWritable)
      installsUnderWay[place] += 1
    }
    counters.installs += 1
    slots[index].state = .installing
    messages.append(.install(tag: UInt32(index), fault: answer.fault, range))
  }

  private mutating func end(_ index: Int, refused: Bool) {
    if refused { counters.refused += 1 } else { counters.done += 1 }
    slots[index].state = .idle
  }
}

/// SplitMix64, for the list of accesses.
struct StreamOfNumbers: Sendable {
  var state: UInt64
  mutating func next(below bound: UInt64) -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return (z ^ (z >> 31)).multipliedFullWidth(by: bound).high
  }
}
