// SPDX-License-Identifier: Apache-2.0
// Goal: the oracle catches a mirror that uses a page after its start was answered, or installs without a retry, and says
// nothing of one that obeys. Method: a mirror's fault, install and use around one operation, in every order that matters.
@testable import IOMMUModel
import Testing

@Suite struct MirrorTests {
  private let range = PageRange(first: 0x100, count: 4)
  static let kinds = SubscriberKind.allCases

  @Test(arguments: kinds)
  func `what a mirror writes the CPU reads, and what the CPU writes the mirror reads`(_ kind: SubscriberKind) throws {
    var (bench, space, id) = try Bench.mirrored(kind)
    let address = try bench.mirror(id, 0x100)
    #expect(try bench.use(id, 0x100, address, write: 42).status == .success)
    #expect(try bench.load(space, 0x100) == 42)
    try bench.store(space, 0x100, 43)
    #expect(try bench.use(id, 0x100, address).value == 43)
    #expect(bench.verdicts.isEmpty)
  }

  @Test(arguments: kinds)
  func `a use before the answer is legal, and a use after it is caught`(_ kind: SubscriberKind) throws {
    var (bench, space, id) = try Bench.mirrored(kind)
    let address = try bench.mirror(id, 0x100)
    let operation = try bench.start(.dontNeed(space, range))
    bench.settle()
    try bench.use(id, 0x100, address, write: 1)
    #expect(bench.verdicts.isEmpty)
    try bench.answerAll([id])
    #expect(bench.outcome(operation)?.status == .success)
    try bench.use(id, 0x100, address, write: 2)
    #expect(bench.kinds == [.mirrorAfterStart])
    let verdict = bench.verdicts[0]
    #expect(verdict.subscriber == id)
    #expect(verdict.via == .mirror)
    #expect(verdict.dropped.operation == operation)
    #expect(bench.counters.unexplainedCorruptions == 0)
  }

  @Test(arguments: kinds)
  func `a page that an event does not name stays in use`(_ kind: SubscriberKind) throws {
    var (bench, space, id) = try Bench.mirrored(kind)
    let address = try bench.mirror(id, 0x108)
    try bench.start(.munmap(space, range))
    bench.settle()
    try bench.answerAll([id])
    try bench.use(id, 0x108, address, write: 2)
    #expect(bench.verdicts.isEmpty)
  }

  @Test(arguments: kinds)
  func `an install whose fault met an invalidation is caught, whether or not the page changed`(
    _ kind: SubscriberKind
  ) throws {
    var (bench, space, id) = try Bench.mirrored(kind)
    try bench.store(space, 0x100, 5)
    let answer = try #require(try bench.fault(id, 0x100, 4))
    try bench.start(.mprotect(space, range, .read))
    bench.settle()
    try bench.answerAll([id])
    #expect(bench.verdicts.isEmpty)
    try bench.install(id, answer)
    #expect(bench.kinds == [.mirrorWithoutRetry], "one for the install")
    // A retry is clean.
    try bench.install(id, try #require(try bench.fault(id, 0x100, 4, .read)))
    #expect(bench.kinds == [.mirrorWithoutRetry])
  }

  @Test func `an install inside a window is caught, and after the end it is not`() throws {
    var (bench, space, id) = try Bench.mirrored(.kvmLike)
    try bench.store(space, 0x100, 5)
    try bench.start(.mprotect(space, range, .read))
    bench.settle()
    try bench.answer(id)
    #expect(bench.events(id).map(\.hook) == [.end])
    // The end has been said: what is faulted now is good.
    try bench.install(id, try #require(try bench.fault(id, 0x100, 1, .read)))
    #expect(bench.verdicts.isEmpty)
    try bench.answer(id)
    // Between the two it is not.
    var other = bench
    let slow = try other.subscribe(space, .gruLike)
    try other.start(.mprotect(space, range, .readWrite))
    other.settle()
    try other.answer(id)
    try other.install(id, try #require(try other.fault(id, 0x100, 1, .read)))
    #expect(other.kinds == [.mirrorWithoutRetry])
    try other.answerAll([id, slow])
  }

  @Test func `what a secondary TLB fills between a flush and its answer is good, and what it had before is not`() throws
  {
    var (bench, space, id) = try Bench.mirrored(.secondaryTLB)
    try bench.store(space, 0x100, 5)
    let old = try #require(try bench.fault(id, 0x100))
    let fork = try bench.start(.fork(space))
    bench.settle()
    try bench.answerAll([id])
    let address = try bench.mirror(id, 0x101)
    // The copy-on-write break clears, flushes, and sets: the fault finds the new page once the entry is there.
    try bench.start(.range(.dontNeed, space, PageRange(first: 0x101, count: 1)))
    bench.settle()
    #expect(bench.events(id).count == 1)
    let young = try #require(try bench.fault(id, 0x101))
    try bench.answerAll([id])
    try bench.install(id, young)
    try bench.use(id, 0x101, young.pages[0].physicalAddress)
    #expect(bench.verdicts.isEmpty)
    #expect(young.pages[0].physicalAddress != address)
    #expect(bench.outcome(fork)?.status == .success)
    try bench.install(id, old)
    #expect(bench.kinds == [.mirrorWithoutRetry])
  }

  @Test(arguments: kinds)
  func `use and install after the release are caught`(_ kind: SubscriberKind) throws {
    var (bench, space, id) = try Bench.mirrored(kind)
    let address = try bench.mirror(id, 0x100)
    let answer = try #require(try bench.fault(id, 0x101))
    try bench.start(.exit(space))
    bench.settle()
    try bench.answerAll([id])
    try bench.use(id, 0x100, address)
    try bench.install(id, answer)
    #expect(bench.kinds == [.mirrorAfterRelease, .mirrorAfterRelease])
  }

  @Test func `a mirror that makes an address up, or a right, is caught as a forger`() throws {
    var (bench, _, id) = try Bench.mirrored(.kvmLike)
    let address = try bench.mirror(id, 0x100, .read)
    #expect(try bench.fault(id, 0x101)?.pages[0].rights == .readWrite)
    try bench.use(id, 0x101, address)
    try bench.use(id, 0x100, address + 0x1000)
    try bench.use(id, 0x100, 0xffff_ffff_f000)
    #expect(bench.kinds == [.forgedTranslation, .forgedTranslation, .forgedTranslation])
  }

  @Test func `a fault's pages are installed by its own number alone`() throws {
    var (bench, _, id) = try Bench.mirrored(.kvmLike)
    let first = try #require(try bench.fault(id, 0x100))
    let second = try #require(try bench.fault(id, 0x100))
    func install(_ fault: UInt64, _ page: PageNumber) -> Command {
      .mirrorInstall(id, MirrorInstall(fault: fault, range: PageRange(first: page, count: 1)))
    }
    #expect(bench.refusal(install(first.number, 0x100)) == .faultNotAnswered)
    #expect(bench.refusal(install(second.number, 0x101)) == .faultNotAnswered)
    #expect(bench.refusal(install(second.number, 0x100)) == nil)
  }

  @Test func `what a mirror wrote survives MADV_FREE and reclaim, as a page that is dirty`() throws {
    var (bench, space, id) = try Bench.mirrored(.interval)
    try bench.store(space, 0x100, 1)
    try bench.start(.range(.madviseFree, space, range))
    bench.settle()
    try bench.answerAll([id])
    let address = try bench.mirror(id, 0x100)
    try bench.use(id, 0x100, address, write: 2)
    try bench.start(.range(.reclaim, space, range))
    bench.settle()
    try bench.answerAll([id])
    #expect(try bench.load(space, 0x100) == 2)
    #expect(bench.verdicts.isEmpty)
  }

  @Test(arguments: [OperationKind.migrateToDevice, .makeDeviceExclusive])
  func `pages that a driver takes for itself are its own until a CPU touches them`(_ kind: OperationKind) throws {
    var (bench, space, _) = try Bench.mirrored(.secondaryTLB)
    let profile = SubscriberProfile(kind: .interval, owner: 7)
    guard case .subscriber(let id, _, _) = try bench.apply(.subscribe(space, profile)) else { throw Surprise() }
    let other = try bench.subscribe(space, .interval)
    for page in range.first..<range.end { try bench.store(space, page, page) }
    let all = bench.machine.subscribers.ids
    let shared = try bench.mirror(other, 0x100)
    guard case .operation(let take) = try bench.apply(.takePages(id, kind, range)) else { throw Surprise() }
    bench.settle()
    let told = try bench.answerAll(all)
    #expect(told.filter { $0.hook == .invalidate && $0.subscriber != all[0] }.allSatisfy { $0.owner == 7 })
    #expect(bench.outcome(take)?.value == 4)
    let answer = try #require(bench.faults.last)
    #expect(answer.operation == take)
    #expect(answer.sequence == 1, "the owner's sequence did not move")
    try bench.install(id, answer)
    let address = answer.pages[0].physicalAddress
    try bench.use(id, 0x100, address, write: 99)
    #expect(bench.verdicts.isEmpty)
    try bench.use(other, 0x100, shared)
    #expect(bench.kinds == [.mirrorAfterStart], "who is not the owner has lost the page")
    let load = try bench.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .load, address: 0x100 << 12)))
    bench.settle()
    try bench.use(id, 0x100, address, write: 100)
    try bench.answerAll(all)
    #expect(bench.outcome(load)?.value == 100, "the owner was asked first")
    #expect(bench.kinds.count == 1)
    try bench.use(id, 0x100, address)
    #expect(bench.kinds.last == .mirrorAfterStart)
  }

  // MARK: hmm_range_fault

  @Test func `a fault faults every page in, and answers where it is`() throws {
    var (bench, space, id) = try Bench.mirrored(.interval)
    for page in 0x100..<0x104 { try bench.store(space, UInt64(page), UInt64(page)) }
    let answer = try #require(try bench.fault(id, 0x100, 8))
    #expect(answer.pages.count == 8)
    #expect(answer.pages.allSatisfy { $0.rights == .readWrite && $0.sizeLog2 == 12 && $0.physicalAddress > 0 })
    try bench.install(id, answer)
    for index in 0..<4 {
      #expect(
        try bench.use(id, 0x100 + UInt64(index), answer.pages[index].physicalAddress).value == 0x100 + UInt64(index))
    }
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `a snapshot faults nothing in`() throws {
    var (bench, space, id) = try Bench.mirrored(.interval)
    try bench.store(space, 0x101, 1)
    let answer = try #require(try bench.fault(id, 0x100, 3, []))
    #expect(answer.pages.map(\.rights) == [[], .readWrite, []])
    #expect(try bench.fault(id, 0x200, 1, [])?.pages.map(\.physicalAddress) == [0], "a hole is an answer too")
  }

  @Test(arguments: [
    (0x200, Rights.read, OperationOutcome.Status.accessDenied), (0x104, .read, .accessDenied),
    (0x108, .readWrite, .notPermitted),
  ])
  func `a fault that cannot be served says EFAULT or EPERM`(
    _ page: Int, _ rights: Rights, _ status: OperationOutcome.Status
  ) throws {
    var (bench, space, id) = try Bench.mirrored(.interval)
    for (first, rights) in [(0x104, Rights()), (0x108, .read)] {
      try bench.start(.mprotect(space, PageRange(first: UInt64(first), count: 4), rights))
      bench.settle()
      try bench.answerAll([id])
    }
    let operation = try bench.startFault(id, UInt64(page), 1, rights)
    #expect(bench.outcome(operation)?.status == status)
    #expect(bench.faults.isEmpty)
  }

  @Test func `a fault that begins while its range is invalidated sleeps until that is over`() throws {
    var (bench, space, id) = try Bench.mirrored(.interval)
    let slow = try bench.subscribe(space, .kvmLike)
    try bench.store(space, 0x100, 1)
    try bench.start(.dontNeed(space, range))
    bench.settle()
    try bench.answer(id)
    let operation = try bench.startFault(id, 0x100)
    #expect(bench.outcome(operation) == nil)
    try bench.answerAll([slow])
    let answer = try #require(bench.faults.last)
    #expect(answer.operation == operation)
    #expect(answer.sequence == 3)
    try bench.install(id, answer)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `a fault that meets an invalidation is busy, also of its own copy-on-write`() throws {
    var (bench, space, id) = try Bench.mirrored(.interval)
    try bench.store(space, 0x100, 1)
    try bench.start(.fork(space))
    bench.settle()
    try bench.answerAll([id])
    let operation = try bench.startFault(id, 0x100)
    #expect(bench.events(id).map(\.reason) == [.clear])
    try bench.answerAll([id])
    #expect(bench.outcome(operation)?.status == .busy)
    let again = try #require(try bench.fault(id, 0x100))
    try bench.install(id, again)
    try bench.use(id, 0x100, again.pages[0].physicalAddress, write: 9)
    #expect(try bench.load(space, 0x100) == 9)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `a fault of a huge page tells its size`() throws {
    var bench = Bench {
      $0.kernel = .now
      $0.frameCount = 2048
    }
    let space = try bench.addressSpace()
    try bench.start(.mmap(space, PageRange(first: 0x200, count: 512), .readWrite, pageSizeLog2: 21))
    bench.settle()
    let id = try bench.subscribe(space, .interval)
    let answer = try #require(try bench.fault(id, 0x2ff, 2))
    #expect(answer.pages.map(\.sizeLog2) == [21, 21])
    #expect(answer.pages[1].physicalAddress == answer.pages[0].physicalAddress + 0x1000)
    try bench.install(id, answer)
    try bench.use(id, 0x300, answer.pages[1].physicalAddress, write: 6)
    #expect(try bench.load(space, 0x300) == 6)
    #expect(bench.verdicts.isEmpty)
  }

  @Test func `the parts of a huge page that was split are as good as the whole, until one of them goes`() throws {
    var bench = Bench {
      $0.kernel = .linux2014
      $0.frameCount = 2048
    }
    let space = try bench.addressSpace()
    let block = PageRange(first: 0x200, count: 512)
    try bench.map(space, block.first, block.count)
    for page in [PageNumber(0x200), 0x207] { try bench.store(space, page, page) }
    try bench.start(.range(.collapse, space, block))
    bench.settle()
    let id = try bench.subscribe(space, .gruLike)
    try bench.start(.range(.splitPages, space, block))
    bench.settle()
    #expect(events(bench, id) == [.start])
    try bench.answer(id)
    // In 2014 the end comes before the parts are entered: who faults now is given the whole.
    #expect(events(bench, id) == [.end])
    let answer = try #require(try bench.fault(id, 0x207))
    #expect(answer.pages[0].sizeLog2 == 21)
    try bench.answer(id)
    try bench.install(id, answer)
    try bench.use(id, 0x207, answer.pages[0].physicalAddress, write: 9)
    #expect(try bench.load(space, 0x207) == 9)
    #expect(bench.verdicts.isEmpty)
    try bench.start(.dontNeed(space, PageRange(first: 0x207, count: 1)))
    bench.settle()
    try bench.answerAll([id])
    try bench.use(id, 0x207, answer.pages[0].physicalAddress, write: 10)
    #expect(bench.verdicts.map(\.kind) == [.mirrorAfterStart])
  }

  private func events(_ bench: Bench, _ id: SubscriberID) -> [NotifierEvent.Hook] { bench.events(id).map(\.hook) }

  @Test func `a fault outside the subscription or above its limit is refused`() throws {
    var (bench, space, _) = try Bench.mirrored(.kvmLike)
    let id = try bench.subscribe(space, .interval, PageRange(first: 0x100, count: 4))
    func refusal(_ first: PageNumber, _ count: UInt64) -> Refusal.Reason? {
      bench.refusal(.rangeFault(id, RangeFault(range: PageRange(first: first, count: count), rights: .read)))
    }
    #expect(refusal(0x103, 2) == .outsideSubscription)
    let wide = try bench.subscribe(space, .gruLike)
    #expect(
      bench.refusal(.rangeFault(wide, RangeFault(range: PageRange(first: 0, count: 513), rights: []))) == .limitReached)
  }

  @Test func `in 2014 a mirror that goes on after invalidate_page is caught`() throws {
    var (bench, space, id) = try Bench.mirrored(.gruLike, .linux2014)
    let address = try bench.mirror(id, 0x100)
    try bench.start(.range(.migratePages, space, range))
    bench.settle()
    try bench.answerAll([id])
    try bench.use(id, 0x100, address)
    #expect(bench.kinds == [.mirrorAfterStart])
  }

  @Test func `an order without S takes pages from a mirror that obeys, and the verdict is not the mirror's`() throws {
    var (bench, space, id) = try Bench.mirrored(.kvmLike) {
      $0.orders = [try! UserOrder(.dontNeed, .now, letters: ["P", "C", "I", "F"], batch: ["C", "I", "F"])]
    }
    let address = try bench.mirror(id, 0x100)
    let operation = try bench.start(.dontNeed(space, range))
    bench.settle()
    #expect(bench.outcome(operation)?.status == .success)
    try bench.use(id, 0x100, address)
    #expect(bench.kinds == [.staleDMA])
    #expect(bench.verdicts[0].dropped.operation == operation)
  }

  @Test func `an explanation of a mirror's verdict names the mirror, the operation and the event`() throws {
    var (bench, space, id) = try Bench.mirrored(.kvmLike)
    let address = try bench.mirror(id, 0x100)
    try bench.start(.munmap(space, range))
    bench.settle()
    try bench.answerAll([id])
    try bench.use(id, 0x100, address)
    let explanation = Explanation(bench.verdicts[0], device: "mirror 1")
    #expect(
      explanation.sentence.hasPrefix("mirror 1 read page 0x100000 after it had answered the start of munmap #"),
      "\(explanation.sentence)")
    #expect(explanation.chain.last?.hasSuffix("through its own table: MIRROR_AFTER_START") == true)
    #expect(explanation.chain.contains { $0.contains("a fault answers page 0x100000") })
  }
}
