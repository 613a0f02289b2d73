// SPDX-License-Identifier: Apache-2.0
// Goal: the device keeps the rules of design §4 under every order of arrival. Method: a referee that sees messages
// alone (`ToyIOMMU`), thousands of seeded runs, and for each rule a device that breaks it, which the referee must catch.
import Testing

@testable import DeviceEndpoint

@Suite struct DeviceEndpointTests {
  static func configuration(
    _ seed: UInt64, misbehaviour: Misbehaviour = [], arrivals: ArrivalSchedule = .closedLoop, retryLimit: UInt32 = 3
  ) -> EndpointConfiguration {
    EndpointConfiguration(
      workload: AccessWorkload(
        seed: seed, accessCount: 300,
        targets: [
          AccessTarget(pasid: 1, firstPage: 0x1000, pageCount: 24),
          AccessTarget(pasid: 2, firstPage: 0x1000, pageCount: 24),
        ], pattern: AccessPattern.allCases[Int(seed % 3)], wordsPerPage: 8),
      concurrency: 1 + Int(seed % 17), translationCacheEntries: 16, priAllocation: UInt32(1 + seed % 9),
      groupMemberLimit: 1 + Int(seed % 5), retryLimit: retryLimit, arrivals: arrivals, misbehaviour: misbehaviour)
  }

  static func run(_ seed: UInt64, _ misbehaviour: Misbehaviour = [], _ options: ToyIOMMU.Options = .init()) -> ToyIOMMU
  {
    var toy = ToyIOMMU(configuration(seed, misbehaviour: misbehaviour), seed: seed &* 31, options: options)
    toy.run()
    return toy
  }

  @Test(arguments: [
    ToyIOMMU.Options(), ToyIOMMU.Options(reorders: true), ToyIOMMU.Options(reorders: true, usesBlocks: true),
    ToyIOMMU.Options(unmapPermille: 200, needlessPermille: 500, invalidRequestPermille: 50),
  ])
  func `A sound device keeps every rule under any order of arrival`(options: ToyIOMMU.Options) {
    var inUse: UInt64 = 0
    var discarded: UInt64 = 0
    for seed in UInt64(1)...60 {
      let toy = Self.run(seed, [], options)
      #expect(toy.violations == [], "seed \(seed)")
      #expect(toy.finished.count == 300, "seed \(seed)")
      let counters = toy.device.counters
      #expect(counters.done + counters.refused + counters.gaveUp + counters.fenced == 300, "seed \(seed)")
      #expect(toy.owed.isEmpty, "seed \(seed): invalidations left open")
      #expect(toy.device.outstandingPageRequests == 0, "seed \(seed)")
      inUse += counters.invalidationsInUse
      discarded += counters.discardedAnswers
    }
    #expect(inUse > 0)
    #expect(options.reorders == (discarded > 0), "stale answers come from overtaking alone")
  }

  @Test(arguments: [
    (Misbehaviour.completesEarly, "uses in flight"), (.keepsUsingAfterCompletion, "after invalidation"),
    (.ignoresOrder, "after invalidation"), (.exceedsCredits, "page requests out"), (.completesTwice, "idle ITag"),
  ])
  func `Each misbehaviour is caught by the rule that it breaks`(misbehaviour: Misbehaviour, complaint: String) {
    let runs = (UInt64(1)...40).map { Self.run($0, misbehaviour, .init(reorders: true)) }
    #expect(runs.contains { $0.violations.contains { $0.contains(complaint) } })
  }

  @Test func `An access is given up after the retry limit plus one page requests, and the device goes on`() {
    var toy = ToyIOMMU(
      Self.configuration(5, retryLimit: 2), seed: 9, options: .init(unmapPermille: 0, needlessPermille: 1000))
    toy.run()
    #expect(toy.violations == [])
    #expect(toy.device.counters.gaveUp == 300)
    #expect(toy.finished.allSatisfy { $0.result == .gaveUp })
    #expect(toy.device.counters.pageRequests >= 900, "three for each access that was given up")
  }

  @Test func `Invalid Request refuses the members of the group`() {
    let toy = Self.run(3, [], .init(unmapPermille: 0, invalidRequestPermille: 1000))
    #expect(toy.violations == [])
    #expect(toy.device.counters.refused == 300)
  }

  @Test func `Response Failure gives up the waiting accesses and every later one that misses`() {
    var device = DeviceEndpoint(Self.configuration(4))
    var out = EndpointOutput()
    device.settle(now: 0, into: &out)
    Self.answerNotPresent(&device, &out)
    #expect(device.outstandingPageRequests > 0)
    guard case .pageRequest(let first)? = out.messages.first else {
      Issue.record("no page request")
      return
    }
    out.removeAll()
    device.receive(
      PRGResponse(pasid: first.pasid, groupIndex: first.groupIndex, code: .responseFailure), now: 2, into: &out)
    #expect(device.priState == .disabled)
    while !device.isIdle {
      device.settle(now: 3, into: &out)
      Self.answerNotPresent(&device, &out)
    }
    #expect(device.counters.gaveUp == 300)
    #expect(device.outstandingPageRequests == 0)
  }

  /// Answers every translation in `out` with "not present" and settles.
  static func answerNotPresent(_ device: inout DeviceEndpoint, _ out: inout EndpointOutput) {
    let messages = out.messages
    out.removeAll()
    for case .translate(let request) in messages {
      device.receive(ATSAnswer(tag: request.tag, page: request.page, rights: [], order: 1), now: 1, into: &out)
    }
    device.settle(now: 1, into: &out)
  }

  @Test func `Without PRI an access to a page that is not present is refused`() {
    var configuration = Self.configuration(6)
    configuration.priAllocation = 0
    var device = DeviceEndpoint(configuration)
    var out = EndpointOutput()
    while !device.isIdle {
      device.settle(now: 1, into: &out)
      Self.answerNotPresent(&device, &out)
    }
    #expect(device.counters.refused == 300)
    #expect(device.counters.pageRequests == 0)
  }

  @Test func `A fenced device ends every access once, and forgets what it owed`() {
    var toy = ToyIOMMU(Self.configuration(11), seed: 1)
    for _ in 0..<400 { toy.step() }
    toy.device.fence(now: toy.now, into: &toy.out)
    toy.settle()
    #expect(toy.device.isIdle)
    #expect(toy.finished.count == 300)
    #expect(toy.device.counters.fenced > 0)
    #expect(toy.device.waitingInvalidations == 0)
    let before = toy.device.counters
    while !toy.toDevice.isEmpty { toy.deliver() }
    #expect(toy.device.counters == before, "late answers change nothing")
  }

  @Test func `An ITag pushed again before its completion waits for its own uses only`() {
    var configuration = Self.configuration(1)
    configuration.concurrency = 1
    configuration.workload.targets = [AccessTarget(pasid: 1, firstPage: 0x1000, pageCount: 1)]
    var device = DeviceEndpoint(configuration)
    var out = EndpointOutput()
    device.settle(now: 0, into: &out)
    guard case .translate(let request)? = out.messages.first else {
      Issue.record("no translation request")
      return
    }
    device.receive(ATSAnswer(tag: request.tag, page: 0x1000, rights: [.read, .write], order: 1), now: 1, into: &out)
    for order in [UInt64(2), 3] {
      device.receive(
        ATSInvalidation(itag: 7, pasid: 1, firstPage: 0x1000, sizeLog2: 12, order: order), now: 2, into: &out)
    }
    #expect(device.waitingInvalidations == 1 << 7)
    guard case .dma(let dma)? = out.messages.last else {
      Issue.record("no DMA")
      return
    }
    out.removeAll()
    device.receive(DMAResult(tag: dma.tag), now: 3, into: &out)
    device.settle(now: 3, into: &out)
    #expect(out.messages.first == .complete(itagVector: 1 << 7))
  }

  @Test func `Open-loop latency counts from the intended time, whatever the device was doing`() {
    var configuration = Self.configuration(2, arrivals: .constant(interval: 10))
    configuration.concurrency = 1
    var device = DeviceEndpoint(configuration)
    var out = EndpointOutput()
    device.settle(now: 100, into: &out)
    guard case .translate(let request)? = out.messages.first else {
      Issue.record("no translation request")
      return
    }
    #expect(device.counters.accesses == 1, "one slot, one access")
    #expect(device.nextArrival == 10)
    device.receive(
      ATSAnswer(tag: request.tag, page: request.page, rights: [.read, .write], order: 1), now: 200, into: &out)
    guard case .dma(let dma)? = out.messages.last else {
      Issue.record("no DMA")
      return
    }
    device.receive(DMAResult(tag: dma.tag), now: 300, into: &out)
    device.settle(now: 300, into: &out)
    #expect(out.finished.map(\.intendedAt) == [0])
    #expect(out.finished.map(\.endedAt) == [300])
    #expect(device.nextArrival == 20)
  }

  @Test func `The same seed gives the same messages`() {
    let a = Self.run(77, [], .init(reorders: true))
    let b = Self.run(77, [], .init(reorders: true))
    #expect(a.finished == b.finished)
    #expect(a.device.counters == b.device.counters)
  }
}
