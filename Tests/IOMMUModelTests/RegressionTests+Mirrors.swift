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
}
