// SPDX-License-Identifier: Apache-2.0
// Goal: subscribers are told what the kernel would tell them, and operations wait for their answers. Method: one address
// space, one or two subscribers, one operation; the events and what waits for them are read off step by step.
@testable import IOMMUModel
import Testing

@Suite struct NotifierTests {
  private let range = PageRange(first: 0x100, count: 4)

  @Test(arguments: [SubscriberKind.kvmLike, .gruLike])
  func `munmap clears no entry before the start is answered, and frees nothing before the end is`(
    _ kind: SubscriberKind
  ) throws {
    var (bench, space, id) = try Bench.mirrored(kind)
    try bench.store(space, 0x100, 1)
    let operation = try bench.start(.munmap(space, range))
    bench.settle()
    let start = try #require(bench.events(id).first)
    #expect(start.hook == .start)
    #expect(start.reason == .unmap)
    #expect(start.range == range)
    #expect(start.operation == operation)
    #expect(start.mayBlock)
    #expect(start.sequence == 0)
    #expect(!bench.letters(of: operation).contains(.entries))
    try bench.answer(id)
    #expect(bench.events(id).map(\.hook) == [.end])
    #expect(bench.letters(of: operation).contains(.entries))
    #expect(!bench.letters(of: operation).contains(.framesFreed))
    try bench.answer(id)
    #expect(bench.outcome(operation)?.status == .success)
    #expect(bench.counters.notifierEvents == 2)
    #expect(bench.counters.notifierAnswers == 2)
  }

  struct Reason: Sendable {
    var request: @Sendable (AddressSpaceID) -> OperationRequest
    var reason: NotifierEvent.Reason
    var range: PageRange?
    init(
      _ reason: NotifierEvent.Reason, _ range: PageRange? = nil,
      _ request: @escaping @Sendable (AddressSpaceID) -> OperationRequest
    ) {
      self.request = request
      self.reason = reason
      self.range = range
    }
  }
  private static let part = PageRange(first: 0x100, count: 4)
  private static let reasons: [Reason] = [
    Reason(.unmap, part) { .munmap($0, part) },
    Reason(.unmap, part) { .move(.mremap, $0, part, to: 0x400) },
    Reason(.clear, part) { .dontNeed($0, part) },
    Reason(.clear, .all) { .space(.oomReap, $0) },
    Reason(.protectionVMA, part) { .mprotect($0, part, .read) },
    Reason(.protectionVMA, part) { .range(.numaHint, $0, part) },
    Reason(.protectionVMA, part) { .protect(.uffdWriteProtect, $0, part, .read) },
    Reason(.clear, part) { .range(.madviseFree, $0, part) },
    Reason(.clear, PageRange(first: 0x100, count: 1)) { .range(.reclaim, $0, part) },
    Reason(.protectionPage, PageRange(first: 0x100, count: 16)) { .fork($0) },
    Reason(.softDirty, .all) { .space(.clearSoftDirty, $0) },
    Reason(.clear, PageRange(first: 0x100, count: 1)) { .range(.migratePages, $0, part) },
    Reason(.clear, PageRange(first: 0x100, count: 1)) { .range(.ksmWriteProtect, $0, part) },
    Reason(.clear, PageRange(first: 0x100, count: 1)) { .move(.uffdioMove, $0, part, to: 0x108) },
  ]

  @Test(arguments: reasons.indices)
  func `an event says why and where, by the kernel's table`(_ index: Int) throws {
    let expected = Self.reasons[index]
    var (bench, space, id) = try Bench.mirrored(.kvmLike)
    let interval = try bench.subscribe(space, .interval)
    for page in range.first..<range.end { try bench.store(space, page, page) }
    let operation = try bench.start(expected.request(space))
    bench.settle()
    for event in [bench.events(id).first, bench.events(interval).first] {
      #expect(event?.reason == expected.reason)
      #expect(event?.range == expected.range)
    }
    #expect(bench.events(interval).first?.hook == .invalidate)
    #expect(bench.events(interval).first?.sequence == 3)
    try bench.answerAll([id, interval])
    #expect(bench.outcome(operation)?.status == .success)
  }

  @Test func `an interval subscriber is told of its own range alone, and of no end`() throws {
    var (bench, space, _) = try Bench.mirrored(.secondaryTLB)
    let other = try bench.subscribe(space, .interval, PageRange(first: 0x108, count: 4))
    let operation = try bench.start(.dontNeed(space, range))
    bench.settle()
    #expect(bench.outcome(operation)?.status == .success, "nothing was there, and nobody is concerned")
    let second = try bench.start(.dontNeed(space, PageRange(first: 0x106, count: 4)))
    bench.settle()
    #expect(bench.events(other).map(\.hook) == [.invalidate])
    try bench.answer(other)
    #expect(bench.outcome(second)?.status == .success)
    #expect(bench.told.filter { $0.subscriber == other }.map(\.hook) == [.invalidate])
  }

  @Test func `two passes begin together and finish together, before the first entry goes`() throws {
    var (bench, space, one) = try Bench.mirrored(.gntdevLike)
    let two = try bench.subscribe(space, .interval, twoPasses: true)
    try bench.store(space, 0x100, 1)
    let operation = try bench.start(.dontNeed(space, range))
    bench.settle()
    #expect(bench.events(one).map(\.hook) == [.invalidate])
    #expect(bench.events(two).map(\.hook) == [.invalidate])
    try bench.answer(two)
    #expect(bench.events(two).isEmpty, "nobody finishes before all have begun")
    try bench.answer(one)
    #expect(bench.events(two).map(\.hook) == [.finish])
    #expect(!bench.letters(of: operation).contains(.entries))
    try bench.answer(two)
    #expect(bench.outcome(operation)?.status == .success)
  }

  @Test(arguments: [(KernelColumn.now, 1), (.linux2014, 2)])
  func `a secondary TLB is told inside the CPU flush, and in 2014 once more at the end`(
    _ kernel: KernelColumn, _ count: Int
  ) throws {
    var (bench, space, id) = try Bench.mirrored(.secondaryTLB, kernel)
    try bench.store(space, 0x101, 1)
    let operation = try bench.start(.dontNeed(space, range))
    bench.settle()
    let told = try bench.answerAll([id])
    #expect(told.allSatisfy { $0.hook == .invalidate })
    #expect(told.count == count)
    #expect(told.last?.range == PageRange(first: 0x101, count: 1))
    #expect(bench.outcome(operation)?.status == .success)
  }

  @Test func `in 2014 migration tells a plain subscriber by invalidate_page alone, before the page is copied`() throws {
    var (bench, space, id) = try Bench.mirrored(.kvmLike, .linux2014)
    try bench.store(space, 0x100, 1)
    let operation = try bench.start(.range(.migratePages, space, range))
    bench.settle()
    #expect(bench.events(id).map(\.hook) == [.invalidate])
    #expect(!bench.letters(of: operation).contains(.framesFreed))
    try bench.answer(id)
    #expect(bench.outcome(operation)?.value == 1)
  }

  @Test func `interval notifiers do not exist in 2014`() throws {
    var bench = Bench { $0.kernel = .linux2014 }
    let space = try bench.addressSpace()
    for kind in [SubscriberKind.interval, .gntdevLike] {
      #expect(bench.refusal(.subscribe(space, SubscriberProfile(kind: kind))) == .notInThisKernel)
    }
  }

  @Test func `young pages of a subscriber are counted with those of the page table`() throws {
    var (bench, space, id) = try Bench.mirrored(.kvmLike)
    try bench.store(space, 0x100, 1)
    let operation = try bench.start(.range(.clearYoung, space, range))
    bench.settle()
    #expect(bench.events(id).map(\.hook) == [.young])
    try bench.answer(id, youngPages: 2)
    #expect(bench.outcome(operation)?.value == 3)
  }

  // MARK: What may not block

  @Test func `a refused reap ends as busy, takes nothing, and tells of the end whom it had told of the start`() throws {
    var (bench, space, kvm) = try Bench.mirrored(.kvmLike)
    let grants = try bench.subscribe(space, .gntdevLike)
    try bench.store(space, 0x100, 7)
    let operation = try bench.start(.space(.oomReap, space))
    bench.settle()
    let start = try #require(bench.events(kvm).first)
    #expect(!start.mayBlock)
    #expect(bench.refusal(.answer(kvm, NotifierAnswer(number: start.number, refuses: true))) == .mayNotRefuse)
    try bench.answer(grants, refuses: true)
    #expect(bench.outcome(operation) == nil, "the others are waited for all the same")
    try bench.answer(kvm)
    #expect(bench.events(kvm).map(\.hook) == [.end])
    try bench.answer(kvm)
    #expect(bench.outcome(operation)?.status == .busy)
    #expect(!bench.letters(of: operation).contains(.entries))
    #expect(bench.machine.spaces[space].notifier.sequence == 4, "the interval part has ended")
    // The lock is free again.
    let next = try bench.start(.munmap(space, range))
    bench.settle()
    try bench.answerAll([kvm, grants])
    #expect(bench.outcome(next)?.status == .success)
  }

  @Test func `a start that may block is never refused`() throws {
    var (bench, space, id) = try Bench.mirrored(.interval)
    try bench.start(.munmap(space, range))
    bench.settle()
    let event = bench.events(id)[0]
    #expect(bench.refusal(.answer(id, NotifierAnswer(number: event.number, refuses: true))) == .mayNotRefuse)
  }

  // MARK: Who does not answer

  @Test func `a subscriber that does not answer in time is fenced first, and then the operation goes on`() throws {
    var (bench, space, id) = try Bench.mirrored(.kvmLike) { $0.notifierTimeout = 1000 }
    let address = try bench.mirror(id, 0x100)
    let operation = try bench.start(.munmap(space, range))
    let start = bench.machine.time
    bench.run(until: start + 999)
    #expect(bench.outcome(operation) == nil)
    bench.run(until: start + 1000)
    #expect(bench.outcome(operation)?.status == .success)
    let lost = bench.seen.firstIndex(of: .subscriber(id, .lost))
    let entries = bench.seen.firstIndex { if case .step(let step) = $0 { step.letter == .entries } else { false } }
    #expect(try #require(lost) < #require(entries))
    #expect(try bench.use(id, 0x100, address).status == .fenced)
    #expect(bench.verdicts.isEmpty)
    #expect(bench.refusal(.answer(id, NotifierAnswer(number: 1))) == .subscriberLost)
    #expect(bench.refusal(.rangeFault(id, RangeFault(range: range, rights: .read))) == .subscriberLost)
    // It is told nothing more, and nobody waits for it.
    let next = try bench.start(.dontNeed(space, PageRange(first: 0x108, count: 2)))
    bench.settle()
    #expect(bench.outcome(next)?.status == .success)
    #expect(bench.counters.lostSubscribers == 1)
  }

  @Test func `a subscriber that goes is waited for no longer`() throws {
    var (bench, space, id) = try Bench.mirrored(.interval)
    let operation = try bench.start(.munmap(space, range))
    bench.settle()
    try bench.apply(.unsubscribe(id))
    bench.settle()
    #expect(bench.outcome(operation)?.status == .success)
    #expect(bench.refusal(.unsubscribe(id)) == .unknownSubscriber)
  }

  @Test func `an answer that nobody waits for changes nothing`() throws {
    var (bench, space, id) = try Bench.mirrored(.kvmLike)
    #expect(bench.refusal(.answer(id, NotifierAnswer(number: 0))) == .eventNotOwed)
    try bench.start(.munmap(space, range))
    bench.settle()
    let event = bench.events(id)[0]
    try bench.answer(id)
    #expect(bench.refusal(.answer(id, NotifierAnswer(number: event.number))) == .eventNotOwed)
  }

  @Test func `a subscriber too many is refused with the limit`() throws {
    var (bench, space, _) = try Bench.mirrored(.kvmLike) { $0.limits.subscribers = 1 }
    #expect(bench.refusal(.subscribe(space, SubscriberProfile(kind: .gruLike))) == .limitReached)
  }

  @Test func `who subscribes inside a window is told of its end, and its faults collide until then`() throws {
    var (bench, space, first) = try Bench.mirrored(.gruLike)
    try bench.store(space, 0x100, 1)
    let operation = try bench.start(.munmap(space, range))
    bench.settle()
    guard case .subscriber(let id, _, let open) = try bench.apply(.subscribe(space, SubscriberProfile(kind: .kvmLike)))
    else { throw Surprise() }
    #expect(open == 1)
    let answer = try #require(try bench.fault(id, 0x100))
    try bench.install(id, answer)
    #expect(bench.kinds == [.mirrorWithoutRetry])
    try bench.answer(first)
    #expect(bench.events(id).map(\.hook) == [.end])
    try bench.answerAll([first, id])
    #expect(bench.outcome(operation)?.status == .success)
  }

  @Test func `release is told before the first entry of an exit goes, and is the last event`() throws {
    var (bench, space, kvm) = try Bench.mirrored(.kvmLike)
    let interval = try bench.subscribe(space, .interval, twoPasses: true)
    try bench.store(space, 0x100, 1)
    let operation = try bench.start(.exit(space))
    bench.settle()
    #expect(bench.events(kvm).map(\.hook) == [.release])
    #expect(bench.events(interval).map(\.hook) == [.invalidate])
    #expect(bench.events(interval).map(\.reason) == [.release])
    #expect(bench.events(interval).map(\.range) == [.all])
    #expect(!bench.letters(of: operation).contains(.entries))
    let told = try bench.answerAll([kvm, interval])
    #expect(told.map(\.hook) == [.release, .invalidate, .finish])
    #expect(bench.outcome(operation)?.status == .success)
    #expect(bench.refusal(.rangeFault(kvm, RangeFault(range: range, rights: .read))) == .unknownAddressSpace)
  }
}
