// SPDX-License-Identifier: Apache-2.0

/// The byte form of commands in logs. Numbers of cases are fixed for ever: a new command gets a new one.
extension Command {
  func encode(to encoder: inout ByteEncoder) {
    switch self {
    case .translate(let device, let request):
      encoder.put(1)
      encoder.put(device.rawValue)
      encoder.put(request.tag)
      encoder.put(request.pasid)
      encoder.put(request.page)
      encoder.put(request.noWrite)
    case .pageRequest(let device, let request):
      encoder.put(2)
      encoder.put(device.rawValue)
      encoder.put(request.pasid)
      encoder.put(request.page)
      encoder.put(request.rights.rawValue)
      encoder.put(request.groupIndex)
      encoder.put(request.last)
    case .dma(let device, let request):
      encoder.put(3)
      encoder.put(device.rawValue)
      encoder.put(request.tag)
      encoder.put((request.write ? 1 : 0) | (request.translated ? 2 : 0))
      encoder.put(request.pasid)
      encoder.put(request.address)
      encoder.put(request.page)
      encoder.put(request.value)
    case .complete(let device, let vector):
      encoder.put(4)
      encoder.put(device.rawValue)
      encoder.put(vector)
    case .giveUp(let device, let pasid, let page, let rights):
      encoder.put(5)
      encoder.put(device.rawValue)
      encoder.put(pasid)
      encoder.put(page)
      encoder.put(rights.rawValue)
    case .createAddressSpace:
      encoder.put(6)
    case .start(let request):
      encoder.put(7)
      request.encode(to: &encoder)
    case .createDomain(let kind):
      encoder.put(8)
      encoder.put(kind.rawValue)
    case .destroyDomain(let domain):
      encoder.put(9)
      encoder.put(domain.rawValue)
    case .map(let mapping):
      encoder.put(10)
      encoder.put(mapping.domain.rawValue)
      mapping.range.encode(to: &encoder)
      encoder.put(mapping.rights.rawValue)
      encoder.put(mapping.source?.rawValue ?? 0)
      encoder.put(mapping.sourceFirst)
    case .registerDevice(let profile):
      encoder.put(11)
      encoder.put(profile.rid)
      encoder.put((profile.ats ? 1 : 0) | (profile.pri ? 2 : 0) | (profile.pasid ? 4 : 0))
      encoder.put(profile.priAllocation)
      encoder.put(profile.retryLimit)
    case .removeDevice(let device):
      encoder.put(12)
      encoder.put(device.rawValue)
    case .attach(let device, let pasid, .addressSpace(let space, let strategy)):
      encoder.put(13)
      encoder.put(device.rawValue)
      encoder.put(pasid)
      encoder.put(space.rawValue)
      strategy.encode(to: &encoder)
    case .attach(let device, let pasid, .domain(let domain)):
      encoder.put(14)
      encoder.put(device.rawValue)
      encoder.put(pasid)
      encoder.put(domain.rawValue)
    case .createFile(let pageCount, Page.sizeLog2):
      encoder.put(20)
      encoder.put(pageCount)
    case .createFile(let pageCount, let pageSizeLog2):
      encoder.put(29)
      encoder.put(pageCount)
      encoder.put(pageSizeLog2)
    case .deleteFile(let file):
      encoder.put(21)
      encoder.put(file.rawValue)
    case .enablePRI(let device, let allocation):
      encoder.put(15)
      encoder.put(device.rawValue)
      encoder.put(allocation)
    case .subscribe, .unsubscribe, .answer, .rangeFault, .mirrorInstall, .mirrorAccess, .takePages:
      encodeNotifier(to: &encoder)
    }
  }

  init(from decoder: inout ByteDecoder) throws(LogError) {
    switch try decoder.number() {
    case 1:
      let device = try decoder.device()
      let tag = try decoder.number(UInt32.self)
      let pasid = try decoder.number(PASID.self)
      let page = try decoder.number()
      self = .translate(device, TranslationRequest(tag: tag, pasid: pasid, page: page, noWrite: try decoder.flag()))
    case 2:
      let device = try decoder.device()
      let pasid = try decoder.number(PASID.self)
      let page = try decoder.number()
      let rights = try decoder.rights()
      let groupIndex = try decoder.number(UInt16.self)
      self = .pageRequest(
        device, PageRequest(pasid: pasid, page: page, rights: rights, groupIndex: groupIndex, last: try decoder.flag()))
    case 3:
      let device = try decoder.device()
      let tag = try decoder.number(UInt32.self)
      let flags = try decoder.number()
      let pasid = try decoder.number(PASID.self)
      let address = try decoder.number()
      let page = try decoder.number()
      self = .dma(
        device,
        DMARequest(
          tag: tag, write: flags & 1 != 0, translated: flags & 2 != 0, pasid: pasid, address: address, page: page,
          value: try decoder.number()))
    case 4:
      let device = try decoder.device()
      self = .complete(device, itagVector: try decoder.number(UInt32.self))
    case 5:
      let device = try decoder.device()
      let pasid = try decoder.number(PASID.self)
      let page = try decoder.number()
      self = .giveUp(device, pasid, page, try decoder.rights())
    case 20: self = .createFile(pageCount: try decoder.number())
    case 29:
      let pageCount = try decoder.number()
      self = .createFile(pageCount: pageCount, pageSizeLog2: try decoder.number(UInt8.self))
    case 21: self = .deleteFile(try decoder.file())
    case 6: self = .createAddressSpace
    case 7: self = .start(try OperationRequest(from: &decoder))
    case 8: self = .createDomain(try decoder.value(DomainKind.self))
    case 9: self = .destroyDomain(try decoder.domain())
    case 10:
      let domain = try decoder.domain()
      let range = try PageRange(from: &decoder)
      let rights = try decoder.rights()
      let source = try decoder.space()
      let sourceFirst = try decoder.number()
      self = .map(
        DomainMapping(
          domain: domain, range: range, rights: rights, source: source.rawValue == 0 ? nil : source,
          sourceFirst: sourceFirst))
    case 11:
      let rid = try decoder.number(UInt16.self)
      let flags = try decoder.number()
      let allocation = try decoder.number(UInt32.self)
      self = .registerDevice(
        DeviceProfile(
          rid: rid, ats: flags & 1 != 0, pri: flags & 2 != 0, pasid: flags & 4 != 0, priAllocation: allocation,
          retryLimit: try decoder.number(UInt32.self)))
    case 12: self = .removeDevice(try decoder.device())
    case 13:
      let device = try decoder.device()
      let pasid = try decoder.number(PASID.self)
      let space = try decoder.space()
      self = .attach(device, pasid, .addressSpace(space, try Strategy(from: &decoder)))
    case 14:
      let device = try decoder.device()
      let pasid = try decoder.number(PASID.self)
      self = .attach(device, pasid, .domain(try decoder.domain()))
    case 15:
      let device = try decoder.device()
      self = .enablePRI(device, allocation: try decoder.number(UInt32.self))
    case let number where Self.notifierNumbers.contains(number):
      self = try Self.notifier(number, from: &decoder)
    default: throw .malformed(offset: decoder.offset)
    }
  }
}

extension Strategy {
  func encode(to encoder: inout ByteEncoder) {
    encoder.put(sites.rawValue)
    // Bit 0 said "counted" when there was no other empty table.
    let window: UInt8 = emptyTable == .none ? 0 : emptyTable == .counted ? 1 : emptyTable == .racy ? 9 : 17
    encoder.put(
      window | (flushesATC ? 2 : 0) | (release ? 4 : 0) | deferral.rawValue << 5 | (reach == .range ? 0 : 128))
    if reach != .range {
      encoder.put(reach.wholeFrom)
      encoder.put(reach.perPage)
    }
  }

  init(from decoder: inout ByteDecoder) throws(LogError) {
    let sites = Sites(rawValue: try decoder.number(UInt8.self))
    let flags = try decoder.number(UInt8.self)
    guard let deferral = Deferral(rawValue: flags >> 5 & 3) else { throw .malformed(offset: decoder.offset) }
    let window: EmptyTable = flags & 1 == 0 ? .none : flags & 8 != 0 ? .racy : flags & 16 != 0 ? .uncounted : .counted
    var reach = Reach.range
    if flags & 128 != 0 {
      reach.wholeFrom = try decoder.number(UInt32.self)
      reach.perPage = try decoder.flag()
    }
    self.init(
      sites: sites, emptyTable: window, deferral: deferral, reach: reach, flushesATC: flags & 2 != 0,
      release: flags & 4 != 0)
  }
}

extension Reply {
  func encode(to encoder: inout ByteEncoder) {
    switch self {
    case .none: encoder.put(0)
    case .addressSpace(let id):
      encoder.put(1)
      encoder.put(id.rawValue)
    case .domain(let id):
      encoder.put(2)
      encoder.put(id.rawValue)
    case .device(let id, let epoch):
      encoder.put(3)
      encoder.put(id.rawValue)
      encoder.put(epoch)
    case .operation(let id):
      encoder.put(4)
      encoder.put(id.rawValue)
    case .file(let id):
      encoder.put(8)
      encoder.put(id.rawValue)
    case .subscriber(let id, let sequence, let openWindows):
      encoder.put(5)
      encoder.put(id.rawValue)
      encoder.put(sequence)
      encoder.put(openWindows)
    case .mirrorAccess(let status, let value):
      encoder.put(6)
      encoder.put(status.rawValue)
      encoder.put(value)
    }
  }

  init(from decoder: inout ByteDecoder) throws(LogError) {
    switch try decoder.number() {
    case 0: self = .none
    case 1: self = .addressSpace(try decoder.space())
    case 2: self = .domain(try decoder.domain())
    case 3:
      let device = try decoder.device()
      self = .device(device, epoch: try decoder.number(UInt32.self))
    case 4: self = .operation(OperationID(rawValue: try decoder.number()))
    case 8: self = .file(try decoder.file())
    case 5:
      let id = try decoder.subscriber()
      let sequence = try decoder.number()
      self = .subscriber(id, sequence: sequence, openWindows: try decoder.number(UInt32.self))
    case 6:
      let status = try decoder.value(DMAAnswer.Status.self)
      self = .mirrorAccess(status, value: try decoder.number())
    default: throw .malformed(offset: decoder.offset)
    }
  }
}

extension PageRange {
  func encode(to encoder: inout ByteEncoder) {
    encoder.put(first)
    encoder.put(count)
  }
  init(from decoder: inout ByteDecoder) throws(LogError) {
    let first = try decoder.number()
    self.init(first: first, count: try decoder.number())
  }
}

extension ByteDecoder {
  mutating func device() throws(LogError) -> DeviceID { DeviceID(rawValue: try number(UInt32.self)) }
  mutating func domain() throws(LogError) -> DomainID { DomainID(rawValue: try number(UInt32.self)) }
  mutating func file() throws(LogError) -> FileID { FileID(rawValue: try number(UInt32.self)) }
  mutating func space() throws(LogError) -> AddressSpaceID { AddressSpaceID(rawValue: try number(UInt32.self)) }
  mutating func subscriber() throws(LogError) -> SubscriberID { SubscriberID(rawValue: try number(UInt32.self)) }
  mutating func rights() throws(LogError) -> Rights { Rights(rawValue: try number(UInt8.self)) }
}
