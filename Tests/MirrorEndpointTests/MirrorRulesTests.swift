// SPDX-License-Identifier: Apache-2.0
// Goal: a mirror's rules say "retry" exactly when its kernel subsystem would. Method: snapshots before, inside and after
// windows, and one endpoint fed by hand.
@testable import MirrorEndpoint
import Testing

@Suite struct MirrorRulesTests {
  private let page = MirrorRange(first: 5, count: 1)

  private func event(
    _ hook: MirrorEvent.Hook, _ first: UInt64 = 4, _ count: UInt64 = 4, number: UInt64 = 1, sequence: UInt64 = 0,
    mayBlock: Bool = true, isRelease: Bool = false, owner: UInt32 = 0
  ) -> MirrorEvent {
    MirrorEvent(
      number: number, hook: hook, isRelease: isRelease, range: MirrorRange(first: first, count: count),
      sequence: sequence, mayBlock: mayBlock, owner: owner)
  }

  @Test func `KVM retries inside a window that covers the page, and after any end`() {
    var rules = MirrorRules(.kvm, sequence: 0, openWindows: 0)
    let before = rules.snapshot
    #expect(!rules.mustRetry(before, read: 0, page))
    rules.take(event(.start))
    #expect(rules.mustRetry(before, read: 0, page))
    #expect(!rules.mustRetry(before, read: 0, MirrorRange(first: 9, count: 1)), "the window is elsewhere")
    rules.take(event(.start, 20, 1))
    #expect(rules.mustRetry(before, read: 0, MirrorRange(first: 9, count: 1)), "two windows are one range between them")
    rules.take(event(.end))
    rules.take(event(.end, 20, 1))
    #expect(rules.mustRetry(before, read: 0, MirrorRange(first: 99, count: 1)))
    #expect(!rules.mustRetry(rules.snapshot, read: 0, page))
  }

  @Test func `an interval notifier compares what was read with what it was last given`() {
    var rules = MirrorRules(.hmm, sequence: 1, openWindows: 0)
    #expect(!rules.mustRetry(rules.snapshot, read: 1, page))
    rules.take(event(.invalidate, sequence: 3))
    #expect(rules.mustRetry(rules.snapshot, read: 1, page))
    #expect(!rules.mustRetry(rules.snapshot, read: 3, page))
  }

  @Test func `GRU drops nothing in while a window is open, nor what one met`() {
    var rules = MirrorRules(.gru, sequence: 0, openWindows: 0)
    let before = rules.snapshot
    rules.take(event(.start, 50, 1))
    #expect(rules.isClosed(page))
    rules.take(event(.end, 50, 1))
    #expect(!rules.isClosed(page))
    #expect(rules.mustRetry(before, read: 0, page))
  }

  @Test(arguments: [MirrorKind.kvm, .gru]) func `who subscribes inside windows counts them as open`(_ kind: MirrorKind)
  {
    var rules = MirrorRules(kind, sequence: 0, openWindows: 2)
    #expect(rules.isClosed(page))
    rules.take(event(.end))
    #expect(rules.isClosed(page))
    rules.take(event(.end))
    #expect(!rules.isClosed(page))
  }

  // MARK: The endpoint

  private func endpoint(_ kind: MirrorKind) -> MirrorEndpoint {
    var configuration = MirrorEndpoint.Configuration(
      kind: kind, seed: 1, runs: [MirrorRange(first: 4, count: 1)], accessCount: 10)
    configuration.concurrency = 1
    configuration.owner = 7
    return MirrorEndpoint(configuration, sequence: 1, openWindows: 0)
  }

  /// An endpoint whose first access is under way.
  private func accessing(_ kind: MirrorKind) -> MirrorEndpoint {
    var mirror = endpoint(kind)
    mirror.pump()
    mirror.receive(
      MirrorFaultAnswer(
        tag: 0, status: .success, fault: 1, sequence: 1, pages: [.init(physicalAddress: 0x1000, isWritable: true)]))
    mirror.receiveInstalled(tag: 0)
    guard case .access? = mirror.messages.last else { fatalError("it accesses what it has installed") }
    mirror.messages = []
    return mirror
  }

  @Test(arguments: MirrorKind.allCases) func `an event is answered when the accesses of its range are over`(
    _ kind: MirrorKind
  ) {
    var mirror = accessing(kind)
    let isTwoPass = kind.takesTwoPasses
    mirror.receive(event(kind == .kvm || kind == .gru ? .start : .invalidate, sequence: 3))
    #expect(mirror.messages.isEmpty != isTwoPass, "the first of two passes does not wait for accesses")
    mirror.messages = []
    if isTwoPass { mirror.receive(event(.finish, number: 2)) }
    #expect(mirror.messages.isEmpty)
    mirror.receiveAccess(tag: 0, fenced: false)
    #expect(mirror.messages == [.answer(number: isTwoPass ? 2 : 1, refuses: false, youngPages: 0)])
  }

  @Test func `an install that is under way is waited for as well`() {
    var mirror = endpoint(.hmm)
    mirror.pump()
    mirror.receive(
      MirrorFaultAnswer(
        tag: 0, status: .success, fault: 1, sequence: 1, pages: [.init(physicalAddress: 0x1000, isWritable: true)]))
    mirror.messages = []
    mirror.receive(event(.invalidate, sequence: 3))
    #expect(mirror.messages.isEmpty)
    mirror.receiveInstalled(tag: 0)
    #expect(mirror.messages.contains(.answer(number: 1, refuses: false, youngPages: 0)))
    #expect(!mirror.messages.contains { if case .access = $0 { true } else { false } }, "the page has gone again")
  }

  @Test func `a non-blocking range is refused by who would sleep, and by gntdev whenever it has the page`() {
    for (kind, refuses) in [(MirrorKind.hmm, false), (.gntdev, true)] {
      var mirror = accessing(kind)
      mirror.receive(event(.invalidate, sequence: 3, mayBlock: false))
      #expect(mirror.messages == [.answer(number: 1, refuses: true, youngPages: 0)])
      mirror.receiveAccess(tag: 0, fenced: false)
      mirror.messages = []
      mirror.receive(event(.invalidate, number: 2, sequence: 5, mayBlock: false))
      #expect(mirror.messages == [.answer(number: 2, refuses: refuses, youngPages: 0)])
    }
  }

  @Test func `the owner of a migration ignores its own event`() {
    var mirror = accessing(.hmm)
    mirror.receive(event(.invalidate, sequence: 3, owner: 7))
    #expect(mirror.messages == [.answer(number: 1, refuses: false, youngPages: 0)])
    mirror.messages = []
    mirror.receiveAccess(tag: 0, fenced: false)
    mirror.pump()
    #expect(mirror.messages.contains { if case .access = $0 { true } else { false } }, "the page is still there")
  }

  @Test func `young pages are counted once`() {
    var mirror = accessing(.kvm)
    mirror.receive(event(.young))
    #expect(mirror.messages.last == .answer(number: 1, refuses: false, youngPages: 1))
    mirror.receive(event(.young, number: 2))
    #expect(mirror.messages.last == .answer(number: 2, refuses: false, youngPages: 0))
  }

  @Test func `nothing begins after the release`() {
    var mirror = accessing(.kvm)
    mirror.receive(event(.release, 0, 1 << 36, isRelease: true))
    mirror.receiveAccess(tag: 0, fenced: false)
    mirror.messages = []
    mirror.pump()
    #expect(mirror.messages.isEmpty)
    #expect(mirror.isQuiet && mirror.isReleased)
  }
}
