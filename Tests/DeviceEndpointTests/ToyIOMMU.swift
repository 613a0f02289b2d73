// SPDX-License-Identifier: Apache-2.0
@testable import DeviceEndpoint

/// The slow, obvious other side of a device, and a referee that knows nothing of how the device works: it sees the
/// messages alone. Physical addresses carry the order of the answer that gave them out, so the referee can tell from a
/// DMA which translation it went through.
struct ToyIOMMU {
  struct Options {
    /// Answers and invalidations overtake each other, as on separate connections.
    var reorders = false
    var unmapPermille: UInt64 = 60
    /// Page requests that are answered without the page being mapped, among a thousand.
    var needlessPermille: UInt64 = 0
    var invalidRequestPermille: UInt64 = 0
    var usesBlocks = false
  }
  enum Incoming {
    case answer(ATSAnswer, translationOrder: UInt64)
    case invalidation(ATSInvalidation)
    case response(PRGResponse)
    case landed(DMAResult)
  }
  struct Use {
    var tag: UInt32
    var pasid: UInt32
    var page: UInt64
    var blockSizeLog2: UInt8
  }
  struct Group {
    var pasid: UInt32
    var members: [PRIRequest]
    var closed: Bool
  }

  let options: Options
  let allocation: UInt32
  var device: DeviceEndpoint
  var generator: StreamGenerator
  var out = EndpointOutput()
  var now: UInt64 = 0
  var order: UInt64 = 0
  var mapped: Set<UInt64> = []
  var toDevice: [Incoming] = []
  var toMemory: [DMAIssue] = []
  var groups: [UInt16: Group] = [:]
  var uses: [Use] = []
  var freeTags: [UInt8] = (0..<32).map { $0 }
  /// ITag → uses that must land first.
  var owed: [UInt8: [UInt32]] = [:]
  /// Delivered invalidations, to judge later DMAs.
  var delivered: [ATSInvalidation] = []
  var blockOfOrder: [UInt64: UInt8] = [:]
  var violations: [String] = []
  var finished: [FinishedAccess] = []
  var outstandingMembersMax = 0
  var completions = 0
  var overtakings = 0
  var stamps: Set<UInt64> = []
  /// Page requests for a page since it was last granted or given up, as the machine's oracle counts them.
  var attempts: [UInt64: UInt32] = [:]

  init(_ configuration: EndpointConfiguration, seed: UInt64, options: Options = Options()) {
    self.options = options
    allocation = configuration.priAllocation
    device = DeviceEndpoint(configuration)
    generator = StreamGenerator(seed: seed)
  }

  /// Runs until the device has ended its list, or `stepLimit` steps.
  mutating func run(stepLimit: Int = 2_000_000) {
    settle()
    for _ in 0..<stepLimit {
      if device.isIdle && toDevice.isEmpty && toMemory.isEmpty && groups.isEmpty { return }
      step()
    }
    violations.append("not idle after \(stepLimit) steps")
  }

  mutating func step() {
    now += 1 + generator.next(below: 100)
    let roll = generator.next(below: 1000)
    if roll < options.unmapPermille {
      unmap()
    } else if roll < 400, !toMemory.isEmpty {
      land()
    } else if roll < 550, let index = groups.keys.sorted().first(where: { groups[$0]!.closed }) {
      respond(index)
    } else {
      deliver()
    }
    settle()
  }

  mutating func settle() {
    device.settle(now: now, into: &out)
    let messages = out.messages
    finished += out.finished
    out.removeAll()
    for message in messages { take(message) }
  }

  func key(_ pasid: UInt32, _ page: UInt64) -> UInt64 { UInt64(pasid) << 44 | page }

  mutating func take(_ message: DeviceMessage) {
    switch message {
    case .translate(let request):
      order += 1
      let present = mapped.contains(key(request.pasid, request.page))
      if present { attempts[key(request.pasid, request.page)] = nil }
      let size: UInt8 = options.usesBlocks && order % 3 == 0 ? 21 : 12
      blockOfOrder[order] = size
      toDevice.append(
        .answer(
          ATSAnswer(
            tag: request.tag, page: request.page, physicalAddress: order << 32, sizeLog2: size,
            rights: present ? [.read, .write] : [], order: order), translationOrder: order))
    case .pageRequest(let request):
      if groups[request.groupIndex]?.closed == true {
        violations.append("group \(request.groupIndex) reused while out")
      }
      attempts[key(request.pasid, request.page), default: 0] += 1
      var group = groups[request.groupIndex] ?? Group(pasid: request.pasid, members: [], closed: false)
      if group.pasid != request.pasid { violations.append("two PASIDs in group \(request.groupIndex)") }
      group.members.append(request)
      group.closed = request.last
      groups[request.groupIndex] = group
      let outstanding = groups.values.reduce(0) { $0 + $1.members.count }
      outstandingMembersMax = max(outstandingMembersMax, outstanding)
      if outstanding > Int(allocation) { violations.append("\(outstanding) page requests out, \(allocation) allowed") }
    case .dma(let dma):
      let grant = dma.address >> 32
      for invalidation in delivered where invalidation.pasid == dma.pasid && grant < invalidation.order {
        if PageBlock(dma.page, sizeLog2: blockOfOrder[grant]!).overlaps(invalidation.pages) {
          violations.append("page \(dma.page) used by grant \(grant) after invalidation \(invalidation.order)")
        }
      }
      if dma.write && (dma.value == 0 || !stamps.insert(dma.value).inserted) {
        violations.append("stamp \(dma.value) is 0 or not unique")
      }
      uses.append(Use(tag: dma.tag, pasid: dma.pasid, page: dma.page, blockSizeLog2: blockOfOrder[grant]!))
      toMemory.append(dma)
    case .complete(let itagVector):
      for itag in UInt8(0)..<32 where itagVector >> UInt32(itag) & 1 == 1 {
        guard let waitsFor = owed.removeValue(forKey: itag) else {
          violations.append("completion of idle ITag \(itag)")
          continue
        }
        completions += 1
        freeTags.append(itag)
        let inFlight = waitsFor.filter { tag in uses.contains { $0.tag == tag } }
        if !inFlight.isEmpty { violations.append("ITag \(itag) completed with \(inFlight.count) uses in flight") }
      }
    case .giveUp(let abandonment):
      let count = attempts.removeValue(forKey: key(abandonment.pasid, abandonment.page)) ?? 0
      if count <= device.configuration.retryLimit { violations.append("given up after \(count) page requests") }
    }
  }

  mutating func unmap() {
    guard !freeTags.isEmpty, let any = mapped.randomElement(in: &generator) else { return }
    let sizeLog2 = UInt8(12 + generator.next(below: 5))
    let pasid = UInt32(any >> 44)
    let block = PageBlock(any & 0xfff_ffff_ffff, sizeLog2: sizeLog2)
    for page in block.first...block.last { mapped.remove(key(pasid, page)) }
    order += 1
    let itag = freeTags.removeFirst()
    toDevice.append(
      .invalidation(
        ATSInvalidation(itag: itag, pasid: pasid, firstPage: block.first, sizeLog2: sizeLog2, order: order)))
  }

  mutating func land() {
    let dma = toMemory.remove(at: Int(generator.next(below: UInt64(toMemory.count))))
    toDevice.append(.landed(DMAResult(tag: dma.tag)))
  }

  mutating func respond(_ index: UInt16) {
    let group = groups.removeValue(forKey: index)!
    var code = PRGResponse.Code.success
    if generator.next(below: 1000) < options.invalidRequestPermille {
      code = .invalidRequest
    } else if generator.next(below: 1000) >= options.needlessPermille {
      for member in group.members { mapped.insert(key(member.pasid, member.page)) }
    }
    toDevice.append(.response(PRGResponse(pasid: group.pasid, groupIndex: index, code: code)))
  }

  mutating func deliver() {
    guard !toDevice.isEmpty else { return }
    let index = options.reorders ? Int(generator.next(below: UInt64(min(toDevice.count, 8)))) : 0
    if index > 0 { overtakings += 1 }
    switch toDevice.remove(at: index) {
    case .answer(let answer, _): device.receive(answer, now: now, into: &out)
    case .response(let response): device.receive(response, now: now, into: &out)
    case .invalidation(let invalidation):
      let range = invalidation.pages
      owed[invalidation.itag] = uses.filter {
        $0.pasid == invalidation.pasid && PageBlock($0.page, sizeLog2: $0.blockSizeLog2).overlaps(range)
      }.map(\.tag)
      delivered.append(invalidation)
      device.receive(invalidation, now: now, into: &out)
    case .landed(let result):
      uses.removeAll { $0.tag == result.tag }
      device.receive(result, now: now, into: &out)
    }
  }
}

extension Set where Element == UInt64 {
  /// A member by seed; sorted first, because a set has no order of its own.
  func randomElement(in generator: inout StreamGenerator) -> UInt64? {
    isEmpty ? nil : sorted()[Int(generator.next(below: UInt64(count)))]
  }
}
