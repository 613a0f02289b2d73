// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// Random commands, valid and invalid, and random picks of internal turns, against one small machine whose whole
/// structure is checked after every turn. Everything follows from the seed.
public struct RandomCommands {
  public private(set) var machine: Machine
  public private(set) var accepted: UInt64 = 0
  public private(set) var refused: UInt64 = 0
  public private(set) var turns: UInt64 = 0
  public private(set) var counters = Counters()
  public var log: LogWriter
  var generator: SeededGenerator
  private var effects = Effects()
  var spaces: [AddressSpaceID] = []
  private var domains: [DomainID] = []
  private var files: [FileID] = []
  private var devices: [DeviceID] = []
  /// Physical addresses that were answered, so that DMA is not always forged.
  private var answers: [(device: DeviceID, pasid: PASID, page: PageNumber, address: UInt64)] = []
  var mirrors = RandomMirrors()
  private var owed: [(device: DeviceID, itag: UInt8)] = []
  private let checks: Bool
  /// A machine with room for blocks of 512 frames, and commands about them; every eighth seed.
  private let usesHugePages: Bool

  /// - Parameter checks: whether to check the whole structure after every turn.
  public init(seed: UInt64, checks: Bool = true) {
    generator = SeededGenerator(seed: seed, purpose: "commands")
    var settings = Settings()
    settings.seed = seed
    usesHugePages = generator.next(below: 8) == 0
    // Frames come into being when they are needed, so that the checks stay short.
    settings.frameCount =
      usesHugePages ? 4096 + UInt32(generator.next(below: 4097)) : 64 + UInt32(generator.next(below: 193))
    settings.kernel = KernelColumn.allCases[Int(generator.next(below: 2))]
    settings.kernelTableFree = [nil, nil, .atOnce, .afterFlush][Int(seed % 4)]
    settings.gatherBatch = 1 + UInt32(generator.next(below: 12))
    settings.recycleOrder = RecycleOrder.allCases[Int(generator.next(below: 3))]
    settings.handlerWorkers = 1 + UInt32(generator.next(below: 3))
    settings.pageRequestQueueCapacity = 4 + UInt32(generator.next(below: 8))
    settings.hold = generator.next(below: 2) * 1000
    settings.oracleAction = OracleAction.allCases[Int(generator.next(below: 3))]
    settings.invalidationTimeout = 100_000
    settings.notifierTimeout = 100_000
    settings.livelockLimit = 4
    settings.flushQueueEntries = 1 + UInt32(seed % 5)
    settings.flushQueueTimeout = 2000 << (seed % 4)
    settings.cachesRights = seed % 3 == 0
    settings.caches.iotlb = 16
    settings.caches.walk = 8
    settings.caches.pasid = 8
    settings.caches.deviceContext = 4
    settings.caches.cpuTLB = 8
    settings.limits.addressSpaces = 6
    settings.limits.devices = 6
    settings.limits.domains = 4
    settings.limits.operations = 24
    settings.limits.subscribers = 4
    settings.limits.dmaInFlightPerDevice = 6
    settings.limits.areasPerAddressSpace = 12
    machine = Machine(settings: settings)
    log = LogWriter(settings: settings, build: "simulation")
    self.checks = checks
  }

  /// What the last step did.
  public var lastEffects: [Effect] { effects.list }

  /// One command or one internal turn.
  public mutating func step() {
    effects.removeAll()
    turns += 1
    if chance(45), let turn = pickTurn() {
      perform(turn)
    } else {
      let command = command()
      let before = checks && chance(3) ? machine.stateHash() : nil
      let time = machine.time + (chance(50) ? 0 : generator.next(below: 400))
      do throws(Refusal) {
        let reply = try machine.apply(command, at: time, into: &effects)
        log.append(command, reply, at: machine.time)
        accepted += 1
        remember(reply)
      } catch {
        refused += 1
        precondition(effects.list.isEmpty, "a refused command has no effect: \(command)")
        if let before { precondition(machine.stateHash() == before, "a refused command changes nothing: \(command)") }
      }
    }
    counters.add(effects.counters)
    precondition(counters.unexplainedCorruptions == 0, "every corruption has its verdict")
    for effect in effects.list { remember(effect) }
    if checks { machine.checkInvariants() }
  }

  /// Mostly the earliest turn; sometimes any of those that are due soon, as an explorer would. Time-outs are few, so that
  /// who owes an answer may still give it.
  private mutating func pickTurn() -> PendingTurn? {
    var enabled = machine.enabledTurns()
    if chance(95) { enabled.removeAll(where: \.isTimeout) }
    guard !enabled.isEmpty else { return nil }
    return enabled[chance(70) ? 0 : Int(generator.next(below: UInt64(enabled.count)))]
  }

  private mutating func perform(_ turn: PendingTurn) {
    let performed = machine.apply(pending: turn.sequence, at: machine.time, into: &effects)
    precondition(performed, "an enabled turn can be performed")
    log.append(pending: turn.sequence, at: machine.time)
  }

  private mutating func remember(_ reply: Reply) {
    switch reply {
    case .addressSpace(let id): spaces.append(id)
    case .domain(let id): domains.append(id)
    case .file(let id): files.append(id)
    case .device(let id, _): devices.append(id)
    case .subscriber(let id, _, _): mirrors.remember(id)
    case .operation, .mirrorAccess, .none: break
    }
  }

  private mutating func remember(_ effect: Effect) {
    switch effect {
    case .translation(let device, let answer) where !answer.rights.isEmpty:
      answers.append((device, answer.pasid, answer.page, answer.physicalAddress))
      if answers.count > 40 { answers.removeFirst(20) }
    case .invalidation(let device, let invalidation): owed.append((device, invalidation.itag))
    case .operation(let outcome) where outcome.kind == .fork && outcome.status == .success:
      spaces.append(AddressSpaceID(rawValue: UInt32(outcome.value)))
    case .notifierEvent(let index): mirrors.remember(effects.notifierEvents[index])
    case .rangeFault(let index): mirrors.remember(effects.rangeFaults[index])
    default: break
    }
    if owed.count > 64 { owed.removeFirst(32) }
    if spaces.count > 24 { spaces.removeFirst(12) }
    if devices.count > 24 { devices.removeFirst(12) }
  }

  // MARK: Drawing

  mutating func chance(_ percent: UInt64) -> Bool { generator.next(below: 100) < percent }

  mutating func pick<ID: Handle>(_ known: [ID]) -> ID {
    if known.isEmpty || chance(2) { return ID(rawValue: UInt32(truncatingIfNeeded: generator.next() & 0x3_000f)) }
    // Recent ones are likelier to live.
    let last = min(known.count, 4)
    return known[known.count - 1 - Int(generator.next(below: UInt64(last)))]
  }

  mutating func page() -> PageNumber {
    if chance(2) { return generator.next() }
    // Both ends of a huge page matter, and its middle little.
    if usesHugePages && chance(25) { return Self.sharedBlock.first + 512 * generator.next(below: 3) }
    if usesHugePages && chance(80) { return hugePage() + (chance(50) ? generator.next(below: 8) : 511) }
    let base: PageNumber = chance(85) ? 0x200 : chance(50) ? 0x3_fff0 : PageRange.all.end - 24
    return base + generator.next(below: 24)
  }

  /// A device may ask for a page of the kernel too.
  private mutating func devicePage() -> PageNumber {
    !usesHugePages && chance(10) ? kernelRange().first : page()
  }

  /// A range that lies in one table or in two.
  private mutating func kernelRange() -> PageRange {
    if chance(4) { return range() }
    return PageRange(
      first: PageRange.kernel.first + 0x1f0 + generator.next(below: 24), count: generator.next(below: 17))
  }

  /// 1 GiB, where address spaces may share a table of huge pages.
  private static let sharedBlock = PageRange(first: 1 << 18, count: 1 << 18)

  /// The first page of one of two neighbouring blocks.
  private mutating func hugePage() -> PageNumber { 512 * (1 + generator.next(below: 2)) }

  mutating func range() -> PageRange {
    if chance(2) { return PageRange(first: generator.next(), count: generator.next()) }
    if usesHugePages && chance(25) {
      // The whole of what a page table of huge pages maps, or a part of it.
      if chance(60) { return Self.sharedBlock }
      return PageRange(
        first: Self.sharedBlock.first + 512 * generator.next(below: 2), count: 512 * (1 + generator.next(below: 2)))
    }
    if usesHugePages && chance(80) {
      return PageRange(first: hugePage(), count: chance(10) ? 500 : 512 * (1 + generator.next(below: 2)))
    }
    return PageRange(first: page(), count: generator.next(below: 17))
  }

  private mutating func pageSize() -> UInt8 {
    if usesHugePages && chance(50) { return 21 }
    return chance(95) ? 12 : chance(90) ? 21 : 13
  }

  mutating func rights() -> Rights { Rights(rawValue: chance(70) ? 3 : UInt8(generator.next(below: 4))) }
  private mutating func pasid() -> PASID {
    chance(3) ? PASID(generator.next(below: 1 << 21)) : PASID(generator.next(below: 3))
  }

  private mutating func command() -> Command {
    if spaces.isEmpty || chance(1) { return .createAddressSpace }
    if devices.isEmpty || chance(2) {
      return .registerDevice(
        DeviceProfile(
          rid: UInt16(generator.next(below: 7)), ats: chance(90), pri: chance(85), pasid: chance(90),
          priAllocation: UInt32(generator.next(below: 10)), retryLimit: UInt32(generator.next(below: 3))))
    }
    if usesHugePages && files.isEmpty { return .createFile(pageCount: 1 << 18, pageSizeLog2: 21) }
    if chance(18) { return notifierCommand() }
    let device = pick(devices)
    switch generator.next(below: 100) {
    case 0..<26: return .start(operation())
    case 26..<30:
      let strategies = Strategy.named
      return .attach(
        device, pasid(),
        chance(75)
          ? .addressSpace(pick(spaces), strategies[Int(generator.next(below: UInt64(strategies.count)))].strategy)
          : .domain(pick(domains)))
    case 30 where chance(40):
      if usesHugePages && chance(50) {
        return .createFile(pageCount: chance(90) ? 1 << 18 : generator.next(below: 2048), pageSizeLog2: 21)
      }
      return chance(70)
        ? .createFile(pageCount: generator.next(below: chance(95) ? 32 : 4096)) : .deleteFile(pick(files))
    case 30: return .createDomain(DomainKind(rawValue: UInt8(generator.next(below: 3)))!)
    case 31:
      return chance(20)
        ? .destroyDomain(pick(domains)) : .enablePRI(device, allocation: UInt32(generator.next(below: 12)))
    case 32..<35:
      return .map(
        DomainMapping(
          domain: pick(domains), range: range(), rights: rights(), source: chance(50) ? pick(spaces) : nil,
          sourceFirst: page()))
    case 35: return chance(15) ? .removeDevice(device) : .giveUp(device, pasid(), page(), rights())
    case 36..<55:
      return .translate(
        device,
        TranslationRequest(
          tag: UInt32(generator.next(below: 64)), pasid: pasid(), page: devicePage(), noWrite: chance(40)))
    case 55..<72:
      return .pageRequest(
        device,
        PageRequest(
          pasid: pasid(), page: devicePage(), rights: rights(),
          groupIndex: UInt16(generator.next(below: chance(98) ? 6 : 600)),
          last: chance(75)))
    case 72..<88: return dma(device)
    default: return completion(device)
    }
  }

  private mutating func dma(_ device: DeviceID) -> Command {
    let write = chance(50)
    if !answers.isEmpty && chance(85) {
      let answer = answers[Int(generator.next(below: UInt64(answers.count)))]
      return .dma(
        answer.device,
        DMARequest(
          tag: 1, write: write, translated: true, pasid: answer.pasid,
          address: answer.address + 8 * generator.next(below: 512), page: answer.page, value: generator.next()))
    }
    let page = devicePage()
    return .dma(
      device,
      DMARequest(
        tag: 2, write: write, translated: chance(30), pasid: pasid(),
        address: page << 12 &+ generator.next(below: chance(95) ? 1 : 4096), page: page, value: generator.next()))
  }

  private mutating func completion(_ device: DeviceID) -> Command {
    if !owed.isEmpty && chance(90) {
      let index = Int(generator.next(below: UInt64(owed.count)))
      let (device, itag) = owed[index]
      owed.remove(at: index)
      return .complete(device, itagVector: 1 << UInt32(itag))
    }
    return .complete(device, itagVector: UInt32(truncatingIfNeeded: generator.next()))
  }

  private mutating func operation() -> OperationRequest {
    let space = pick(spaces)
    // Kernel pages would break the memory up that huge pages need.
    if !usesHugePages && chance(6) { return .kernel(chance(50) ? .kernelMap : .kernelUnmap, kernelRange()) }
    if usesHugePages && chance(10) {
      return .range(chance(50) ? .collapse : chance(70) ? .migrateToDevice : .splitPages, space, range())
    }
    // Several address spaces map the same 1 GiB, or the half of it, and use the same few pages.
    if usesHugePages && chance(8) {
      return .mmapFile(
        space, chance(85) ? Self.sharedBlock : range(), chance(90) ? .readWrite : rights(),
        FileMapping(pick(files), firstPage: chance(95) ? 0 : 512, isShared: chance(90)))
    }
    if usesHugePages && chance(10) {
      let page = Self.sharedBlock.first + 512 * generator.next(below: 3)
      return .cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: page << 12, value: generator.next(below: 3)))
    }
    switch generator.next(below: 77) {
    case 40..<43: return .move(.mremap, space, range(), to: page())
    case 43..<45: return .range(.numaHint, space, range())
    case 45: return .space(.clearSoftDirty, space)
    case 46: return .range(.clearYoung, space, range())
    case 47: return chance(10) ? .space(.oomReap, space) : .range(.ksmWriteProtect, space, range())
    case 48: return .range(.ksmWriteProtect, space, range())
    case 49..<51: return .ksmReplacePage(space, range(), keeper: pick(spaces), keeperFirst: page())
    case 51..<53: return .range(.migratePages, space, range())
    case 53..<55: return .move(.uffdioMove, space, range(), to: page())
    case 62..<66:
      return .mmapFile(
        space, range(), rights(),
        FileMapping(pick(files), firstPage: generator.next(below: chance(95) ? 12 : 80), isShared: chance(60)))
    case 68..<70: return .range(.migrateToDevice, space, range())
    case 70..<72: return .range(.makeDeviceExclusive, space, range())
    case 72..<74: return .range(.collapse, space, range())
    case 74..<76: return .range(.splitPages, space, range())
    case 76: return .range(.retractTables, space, range())
    case 66..<68: return .range(.writeback, space, range())
    case 55..<57: return .range(.madviseFree, space, range())
    case 57..<60: return .range(.reclaim, space, range())
    case 60..<62: return .protect(.uffdWriteProtect, space, range(), chance(50) ? .read : .readWrite)
    case 0..<8: return .mmap(space, range(), rights(), pageSizeLog2: pageSize())
    case 8..<13: return .munmap(space, range())
    case 13..<17: return .mprotect(space, range(), rights())
    case 17..<22: return .dontNeed(space, range())
    case 22..<24: return .fork(space)
    case 24: return .exit(space)
    case 25..<36:
      return .cpuAccess(
        space,
        CPUAccess(
          cpu: UInt8(generator.next(below: chance(95) ? 2 : 5)),
          kind: CPUAccess.Kind(rawValue: UInt8(generator.next(below: 3)))!,
          // Few places and few values: KSM finds equal pages now and then.
          address: page() << 12 &+ 8 * generator.next(below: chance(70) ? 2 : 512), value: generator.next(below: 3),
          pageCount: 1 + generator.next(below: 6)))
    case 36..<38: return .unmap(pick(domains), range())
    default: return .detach(pick(devices), pasid())
    }
  }
}
