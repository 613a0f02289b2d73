// SPDX-License-Identifier: Apache-2.0
// A small bench for the tests: one machine, its effects, and short words for what tests do all the time.
@testable import IOMMUModel
import Testing

struct Bench {
  var machine: Machine
  var effects = Effects()
  /// All effects since the bench was made.
  var seen: [Effect] = []
  /// What the verdicts among them say.
  var verdicts: [Verdict] = []
  var counters = Counters()
  /// What subscribers were told, and what their faults answered.
  var told: [NotifierEvent] = []
  var faults: [RangeFaultAnswer] = []
  /// Everything once more, for who goes over it again.
  private var log: LogWriter

  init(_ change: (inout Settings) -> Void = { _ in }) {
    var settings = Settings()
    settings.frameCount = 256
    settings.costs = .zero
    change(&settings)
    machine = Machine(settings: settings)
    log = LogWriter(settings: settings, build: "tests")
  }

  @discardableResult
  mutating func apply(_ command: Command, at time: Nanoseconds? = nil) throws -> Reply {
    effects.removeAll()
    let reply = try machine.apply(command, at: time ?? machine.time, into: &effects)
    log.append(command, reply, at: machine.time)
    take()
    return reply
  }

  /// Runs what is due now; nothing that needs time to pass, so no time-out.
  mutating func settle() { run(until: machine.time) }

  mutating func run(until end: Nanoseconds) {
    effects.removeAll()
    for _ in 0..<1_000_000 {
      guard let due = machine.nextDue(), due <= end else { break }
      applyNext(at: due)
    }
    take()
  }

  /// Performs one internal turn.
  mutating func turn() {
    effects.removeAll()
    applyNext(at: machine.time)
    take()
  }

  private mutating func applyNext(at time: Nanoseconds) {
    guard let sequence = machine.applyNext(at: time, into: &effects) else { return }
    log.append(pending: sequence, at: machine.time)
  }

  /// The story of a verdict, from the log.
  func explain(_ index: Int = 0) throws -> Explanation {
    var log = log
    let verdict = verdicts[index]
    var retrace = try Retrace(log.take(), of: verdict, number: UInt64(index) + 1, device: verdict.accessor)
    guard case .found(let explanation) = try retrace.advance(.max) else { throw Surprise() }
    return explanation
  }

  private mutating func take() {
    seen += effects.list
    verdicts += effects.verdicts
    told += effects.notifierEvents
    faults += effects.rangeFaults
    add(effects.counters)
    machine.checkInvariants()
  }

  private mutating func add(_ more: Counters) { counters.add(more) }

  // MARK: Short words

  mutating func addressSpace() throws -> AddressSpaceID {
    guard case .addressSpace(let id) = try apply(.createAddressSpace) else { throw Surprise() }
    return id
  }
  mutating func device(rid: UInt16 = 8, retryLimit: UInt32 = 1) throws -> DeviceID {
    guard case .device(let id, _) = try apply(.registerDevice(DeviceProfile(rid: rid, retryLimit: retryLimit))) else {
      throw Surprise()
    }
    return id
  }
  @discardableResult
  mutating func start(_ request: OperationRequest) throws -> OperationID {
    guard case .operation(let id) = try apply(.start(request)) else { throw Surprise() }
    return id
  }
  mutating func map(_ space: AddressSpaceID, _ first: PageNumber, _ count: UInt64, _ rights: Rights = .readWrite) throws
  {
    try start(.mmap(space, PageRange(first: first, count: count), rights, pageSizeLog2: 12))
    settle()
  }
  mutating func store(_ space: AddressSpaceID, _ page: PageNumber, _ value: UInt64, cpu: UInt8 = 0) throws {
    try start(.cpuAccess(space, CPUAccess(cpu: cpu, kind: .store, address: page << 12, value: value)))
    settle()
  }
  mutating func load(_ space: AddressSpaceID, _ page: PageNumber, cpu: UInt8 = 0) throws -> UInt64 {
    let id = try start(.cpuAccess(space, CPUAccess(cpu: cpu, kind: .load, address: page << 12)))
    settle()
    return outcome(id)?.value ?? .max
  }
  mutating func translate(
    _ device: DeviceID, _ pasid: PASID, _ page: PageNumber, noWrite: Bool = false
  ) throws -> TranslationAnswer {
    try apply(.translate(device, TranslationRequest(tag: 1, pasid: pasid, page: page, noWrite: noWrite)))
    guard case .translation(_, let answer)? = seen.last(where: { if case .translation = $0 { true } else { false } })
    else { throw Surprise() }
    return answer
  }
  /// One page request of a group of one, served.
  mutating func request(_ device: DeviceID, _ pasid: PASID, _ page: PageNumber, _ rights: Rights = .readWrite) throws
    -> PageResponse.Code?
  {
    try apply(.pageRequest(device, PageRequest(pasid: pasid, page: page, rights: rights, groupIndex: 3, last: true)))
    settle()
    for effect in seen.reversed() { if case .pageResponse(device, let response) = effect { return response.code } }
    return nil
  }
  mutating func dma(
    _ device: DeviceID, _ pasid: PASID, _ page: PageNumber, at physicalAddress: UInt64, write: UInt64? = nil
  ) throws -> DMAAnswer {
    try apply(
      .dma(
        device,
        DMARequest(
          tag: 9, write: write != nil, translated: true, pasid: pasid, address: physicalAddress, page: page,
          value: write ?? 0)))
    settle()
    guard case .dma(_, let answer)? = seen.last(where: { if case .dma = $0 { true } else { false } }) else {
      throw Surprise()
    }
    return answer
  }

  /// A device that shares an address space as PASID 5, with an area of 16 pages at 0x100.
  static func shared(_ strategy: Strategy, _ change: (inout Settings) -> Void = { _ in }) throws -> (
    Bench, AddressSpaceID, DeviceID
  ) {
    var bench = Bench(change)
    let space = try bench.addressSpace()
    let device = try bench.device()
    try bench.apply(.attach(device, 5, .addressSpace(space, strategy)))
    try bench.map(space, 0x100, 16)
    return (bench, space, device)
  }
  /// The page is served and translated: the device holds a grant.
  @discardableResult
  mutating func grant(_ device: DeviceID, _ page: PageNumber, noWrite: Bool = false) throws -> TranslationAnswer {
    _ = try request(device, 5, page, noWrite ? .read : .readWrite)
    return try translate(device, 5, page, noWrite: noWrite)
  }
  /// A DMA that has been issued and has not landed.
  mutating func issue(
    _ device: DeviceID, _ page: PageNumber, at physicalAddress: UInt64? = nil, write: UInt64? = nil, pasid: PASID = 5
  ) throws {
    try apply(
      .dma(
        device,
        DMARequest(
          tag: 9, write: write != nil, translated: physicalAddress != nil, pasid: pasid,
          address: physicalAddress ?? page << 12, page: page, value: write ?? 0)))
  }
  mutating func send(
    _ device: DeviceID, _ page: PageNumber, index: UInt16, last: Bool = true, _ rights: Rights = .readWrite,
    pasid: PASID = 5
  ) throws {
    try apply(
      .pageRequest(device, PageRequest(pasid: pasid, page: page, rights: rights, groupIndex: index, last: last)))
  }
  /// What a command is refused for; nil: it was accepted.
  mutating func refusal(_ command: Command) -> Refusal.Reason? {
    let before = machine.stateHash()
    effects.removeAll()
    do throws(Refusal) {
      log.append(command, try machine.apply(command, at: machine.time, into: &effects), at: machine.time)
      take()
      return nil
    } catch {
      if machine.stateHash() != before || !effects.list.isEmpty { return nil }
      return error.reason
    }
  }
  /// Runs until nothing is due within a second, completing every invalidation of these devices on the way.
  mutating func finish(_ devices: [DeviceID] = []) throws {
    while true {
      run(until: machine.time + 500_000_000)
      let owing = devices.filter { !owed($0).isEmpty }
      if owing.isEmpty { return }
      for device in owing { try completeAll(device) }
    }
  }

  // MARK: What was seen

  func outcome(_ id: OperationID) -> OperationOutcome? {
    for effect in seen.reversed() {
      if case .operation(let outcome) = effect, outcome.operation == id { return outcome }
    }
    return nil
  }
  /// Invalidations that were pushed and not ended.
  func owed(_ device: DeviceID) -> [Invalidation] {
    machine.devices[device].itags.filter { $0.state == .owed }.map(\.invalidation)
  }
  /// Completes what is owed until nothing is, or until what is owed waits behind DMA that is still on its way.
  mutating func completeAll(_ device: DeviceID) throws {
    while machine.devices[device].dmaInFlight == 0 {
      let vector = owed(device).reduce(UInt32(0)) { $0 | 1 << UInt32($1.itag) }
      if vector == 0 { return }
      try apply(.complete(device, itagVector: vector))
      settle()
    }
  }
  var kinds: [VerdictKind] { verdicts.map(\.kind) }
  func letters(of id: OperationID) -> [OperationStep.Letter] {
    seen.compactMap { if case .step(let step) = $0, step.operation == id { step.letter } else { nil } }
  }
  func ignored(_ device: DeviceID) -> [IgnoredMessage] {
    seen.compactMap { if case .device(device, .ignored(let message)) = $0 { message } else { nil } }
  }
  func responses(_ device: DeviceID) -> [PageResponse] {
    seen.compactMap { if case .pageResponse(device, let response) = $0 { response } else { nil } }
  }
  func answers(_ device: DeviceID) -> [DMAAnswer] {
    seen.compactMap { if case .dma(device, let answer) = $0 { answer } else { nil } }
  }
  var letters: [OperationStep.Letter] {
    seen.compactMap { if case .step(let step) = $0 { step.letter } else { nil } }
  }
}

struct Surprise: Error {}
