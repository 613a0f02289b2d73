// SPDX-License-Identifier: Apache-2.0
@testable import IOMMUModel

/// Short words for subscribers and mirrors.
extension Bench {
  mutating func subscribe(
    _ space: AddressSpaceID, _ kind: SubscriberKind, _ range: PageRange = .all, twoPasses: Bool = false
  ) throws -> SubscriberID {
    let profile = SubscriberProfile(kind: kind, range: range, takesTwoPasses: twoPasses)
    guard case .subscriber(let id, _, _) = try apply(.subscribe(space, profile)) else { throw Surprise() }
    return id
  }

  /// Events that wait for their answers, in the order in which they were sent.
  func events(_ id: SubscriberID) -> [NotifierEvent] { machine.subscribers[id].owed.map(\.event) }

  mutating func answer(_ id: SubscriberID, refuses: Bool = false, youngPages: UInt32 = 0) throws {
    guard let event = events(id).first else { throw Surprise() }
    try apply(.answer(id, NotifierAnswer(number: event.number, refuses: refuses, youngPages: youngPages)))
    settle()
  }

  /// Answers everything until nothing is owed; answers the hooks that were called.
  @discardableResult
  mutating func answerAll(_ ids: [SubscriberID]) throws -> [NotifierEvent] {
    var answered: [NotifierEvent] = []
    while let id = ids.first(where: { machine.subscribers.contains($0) && !events($0).isEmpty }) {
      answered.append(events(id)[0])
      try answer(id)
    }
    return answered
  }

  /// A fault that returns at once; nil: it did not succeed, or it waits.
  mutating func fault(
    _ id: SubscriberID, _ first: PageNumber, _ count: UInt64 = 1, _ rights: Rights = .readWrite
  ) throws -> RangeFaultAnswer? {
    let operation = try startFault(id, first, count, rights)
    return faults.last { $0.operation == operation }
  }

  @discardableResult
  mutating func startFault(
    _ id: SubscriberID, _ first: PageNumber, _ count: UInt64 = 1, _ rights: Rights = .readWrite
  ) throws -> OperationID {
    let fault = RangeFault(range: PageRange(first: first, count: count), rights: rights)
    guard case .operation(let operation) = try apply(.rangeFault(id, fault)) else { throw Surprise() }
    settle()
    return operation
  }

  mutating func install(_ id: SubscriberID, _ answer: RangeFaultAnswer) throws {
    let range = PageRange(first: answer.first, count: UInt64(answer.pages.count))
    try apply(.mirrorInstall(id, MirrorInstall(fault: answer.number, range: range)))
  }

  /// Faults a page in and installs it.
  @discardableResult
  mutating func mirror(_ id: SubscriberID, _ page: PageNumber, _ rights: Rights = .readWrite) throws -> UInt64 {
    guard let answer = try fault(id, page, 1, rights) else { throw Surprise() }
    try install(id, answer)
    return answer.pages[0].physicalAddress
  }

  @discardableResult
  mutating func use(
    _ id: SubscriberID, _ page: PageNumber, _ physicalAddress: UInt64, write: UInt64? = nil
  ) throws -> (status: DMAAnswer.Status, value: UInt64) {
    let access = MirrorAccess(
      page: page, physicalAddress: physicalAddress, write: write != nil, value: write ?? 0)
    guard case .mirrorAccess(let status, let value) = try apply(.mirrorAccess(id, access)) else { throw Surprise() }
    return (status, value)
  }

  /// An address space with an area of 16 pages at 0x100, and one subscriber.
  static func mirrored(
    _ kind: SubscriberKind, _ kernel: KernelColumn = .now, _ change: (inout Settings) -> Void = { _ in }
  ) throws -> (Bench, AddressSpaceID, SubscriberID) {
    var bench = Bench {
      $0.kernel = kernel
      change(&$0)
    }
    let space = try bench.addressSpace()
    try bench.map(space, 0x100, 16)
    let id = try bench.subscribe(space, kind)
    return (bench, space, id)
  }
}
