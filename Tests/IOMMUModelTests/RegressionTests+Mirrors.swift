// SPDX-License-Identifier: Apache-2.0
// Goal: what a hostile reading found wrong with mirrors and subscribers stays right. Each test is named by what it found.
@testable import IOMMUModel
import Testing

@Suite struct MirrorRegressionTests {
  private let range = PageRange(first: 0x100, count: 4)

  private func subscribe(_ bench: inout Bench, _ space: AddressSpaceID, owner: UInt32) throws -> SubscriberID {
    let profile = SubscriberProfile(kind: .interval, range: range, owner: owner)
    guard case .subscriber(let id, _, _) = try bench.apply(.subscribe(space, profile)) else { throw Surprise() }
    return id
  }

  private func take(
    _ bench: inout Bench, _ id: SubscriberID, _ kind: OperationKind, _ range: PageRange
  ) throws -> (OperationOutcome, RangeFaultAnswer) {
    guard case .operation(let take) = try bench.apply(.takePages(id, kind, range)) else { throw Surprise() }
    bench.settle()
    try bench.answerAll(bench.machine.subscribers.ids)
    guard let outcome = bench.outcome(take), let answer = bench.faults.last, answer.operation == take else {
      throw Surprise()
    }
    return (outcome, answer)
  }

  // MARK: Pages for the mirror alone

  @Test(arguments: [OperationKind.migrateToDevice, .makeDeviceExclusive], [(1, 2), (0, 0)] as [(UInt32, UInt32)])
  func `a driver was handed the pages that another driver had taken`(
    _ kind: OperationKind, _ owners: (UInt32, UInt32)
  ) throws {
    var (bench, space, _) = try Bench.mirrored(.secondaryTLB)
    let one = try subscribe(&bench, space, owner: owners.0)
    let other = try subscribe(&bench, space, owner: owners.1)
    for page in range.first..<range.end { try bench.store(space, page, page) }
    let first = try take(&bench, one, kind, PageRange(first: 0x100, count: 2))
    #expect(first.0.value == 2)
    #expect(first.1.pages.allSatisfy { $0.physicalAddress > 0 && $0.rights == .readWrite })
    let all = try take(&bench, other, kind, range)
    #expect(all.0.value == 2)
    #expect(all.1.pages.map { $0.physicalAddress > 0 } == [false, false, true, true])
    #expect(all.1.pages.map(\.rights) == [[], [], .readWrite, .readWrite])
    let none = try take(&bench, other, kind, PageRange(first: 0x100, count: 2))
    #expect(none.0.status == .busy)
    #expect(none.1.pages.allSatisfy { $0.physicalAddress == 0 && $0.rights.isEmpty })
  }

  @Test func `a mirror of pages outside its subscription was told of nothing, and the order was blamed`() throws {
    var (bench, space, _) = try Bench.mirrored(.secondaryTLB)
    let id = try subscribe(&bench, space, owner: 1)
    for kind in [OperationKind.migrateToDevice, .makeDeviceExclusive] {
      #expect(bench.refusal(.takePages(id, kind, PageRange(first: 0x103, count: 2))) == .outsideSubscription)
    }
  }

  @Test(arguments: [OperationKind.migrateToDevice, .makeDeviceExclusive])
  func `a driver that used what it had before its own migration had the order blamed`(_ kind: OperationKind) throws {
    var (bench, space, _) = try Bench.mirrored(.secondaryTLB)
    guard case .file(let file) = try bench.apply(.createFile(pageCount: 1)) else { throw Surprise() }
    let filePage = PageRange(first: 0x110, count: 1)
    try bench.start(.mmapFile(space, filePage, .readWrite, FileMapping(file, isShared: true)))
    bench.settle()
    let profile = SubscriberProfile(kind: .interval, owner: 7)
    guard case .subscriber(let id, _, _) = try bench.apply(.subscribe(space, profile)) else { throw Surprise() }
    let moved = try bench.mirror(id, 0x10f)
    let stays = try bench.mirror(id, 0x110)
    let taken = try take(&bench, id, kind, PageRange(first: 0x10f, count: 2))
    #expect(taken.0.value == 1)
    try bench.use(id, 0x110, stays)
    try bench.use(id, 0x10f, moved)
    // An exclusive page has stayed in its place.
    #expect(bench.kinds == (kind == .migrateToDevice ? [.mirrorAfterStart] : []))
    #expect(bench.verdicts.allSatisfy { $0.dropped.operation == taken.0.operation })
    try bench.apply(.mirrorInstall(id, MirrorInstall(fault: taken.1.number, range: PageRange(first: 0x10f, count: 1))))
    try bench.use(id, 0x10f, taken.1.pages[0].physicalAddress, write: 1)
    #expect(bench.kinds.count <= 1)
  }

  @Test func `a mirror of many pages was refused what it had been handed a moment ago`() throws {
    var pages = MirrorPages()
    func grant(_ fault: UInt64, collided: Bool = false) -> MirrorGrant {
      MirrorGrant(
        fault: fault, frame: 1, generation: 1, level: 0, rights: .read, at: 0, afterEvent: 0, collided: collided)
    }
    let full = PageNumber(pages.limit)
    for page in 0..<full {
      pages.hand(page, grant(1))
      pages.install(page, isReleased: false)
    }
    // Two pages are taken away and faulted again: one is good, and one has met the next invalidation already.
    pages.retire(PageRange(first: 0, count: 3), .start, by: .none, before: .max)
    pages.hand(0, grant(2))
    pages.hand(1, grant(3, collided: true))
    pages.hand(full, grant(3))
    #expect(pages[0]?.handed?.fault == 2)
    #expect(pages[1]?.handed?.fault == 3, "it is of the fault that is being answered: an install is a verdict")
    #expect(pages[2] == nil, "what was taken away and asked for no more is forgotten")
    #expect(pages[full]?.handed?.fault == 3)
  }

  // MARK: Events

  @Test(arguments: [false, true])
  func `who came during the first pass was told to finish what it had not begun`(_ isExit: Bool) throws {
    var (bench, space, _) = try Bench.mirrored(.secondaryTLB)
    let first = try bench.subscribe(space, .interval, twoPasses: true)
    try bench.store(space, 0x100, 1)
    let operation = try bench.start(isExit ? .exit(space) : .munmap(space, range))
    bench.settle()
    #expect(bench.events(first).map(\.hook) == [.invalidate])
    guard !isExit else { return try expectFinish(&bench, [first], operation) }
    let late = try bench.subscribe(space, .interval, twoPasses: true)
    let gone = try bench.subscribe(space, .interval, twoPasses: true)
    try bench.apply(.unsubscribe(gone))
    try expectFinish(&bench, [first, late], operation)
    #expect(!bench.told.contains { $0.subscriber == late && $0.operation == operation })
  }

  private func expectFinish(_ bench: inout Bench, _ all: [SubscriberID], _ operation: OperationID) throws {
    // A secondary TLB is told of the release, too.
    for id in bench.machine.subscribers.ids where !bench.events(id).isEmpty { try bench.answer(id) }
    #expect(bench.events(all[0]).map(\.hook) == [.finish])
    try bench.answerAll(bench.machine.subscribers.ids)
    #expect(bench.outcome(operation)?.status == .success)
  }

  @Test func `an answer said that more pages were young than the event has`() throws {
    var (bench, space, id) = try Bench.mirrored(.kvmLike)
    try bench.store(space, 0x100, 1)
    let young = try bench.start(.range(.clearYoung, space, range))
    bench.settle()
    let event = bench.events(id)[0]
    func answer(_ pages: UInt32) -> Command { .answer(id, NotifierAnswer(number: event.number, youngPages: pages)) }
    #expect(bench.refusal(answer(.max)) == .youngPagesOutOfRange)
    #expect(bench.refusal(answer(5)) == .youngPagesOutOfRange)
    #expect(bench.refusal(answer(4)) == nil)
    bench.settle()
    #expect(bench.outcome(young)?.value == 5)
    try bench.start(.munmap(space, range))
    bench.settle()
    let start = NotifierAnswer(number: bench.events(id)[0].number, youngPages: 1)
    #expect(bench.refusal(.answer(id, start)) == .youngPagesOutOfRange, "a start asks for none")
  }

  @Test func `a physical address that is not aligned was told as the address`() throws {
    var (bench, _, id) = try Bench.mirrored(.kvmLike)
    do {
      try bench.apply(.mirrorAccess(id, MirrorAccess(page: 0x100, physicalAddress: 0x5001, write: false)))
      Issue.record("it is refused")
    } catch let refusal as Refusal {
      #expect(refusal == Refusal(.misaligned, .physicalAddress, figure: 8))
    }
  }
}
