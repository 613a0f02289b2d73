// SPDX-License-Identifier: Apache-2.0

/// The byte form of operation requests in logs.
extension OperationRequest {
  /// Numbers of operations in logs, fixed for ever: a new operation gets a new one.
  private static let numbers: [(kind: OperationKind, number: UInt64)] = [
    (.mmap, 1), (.munmap, 2), (.mprotect, 3), (.dontNeed, 4), (.fork, 5), (.exit, 6), (.cpuAccess, 7), (.unmap, 8),
    (.detach, 9), (.mremap, 10), (.numaHint, 11), (.clearSoftDirty, 12), (.clearYoung, 13), (.oomReap, 14),
    (.ksmWriteProtect, 15), (.ksmReplacePage, 16), (.migratePages, 17), (.uffdioMove, 18),
    (.madviseFree, 19), (.reclaim, 20), (.uffdWriteProtect, 21), (.writeback, 23), (.migrateToDevice, 24),
    (.makeDeviceExclusive, 25), (.collapse, 26), (.splitPages, 27), (.retractTables, 28),
    (.kernelMap, 40), (.kernelUnmap, 41),
  ]
  /// An mmap of a file.
  private static let fileNumber: UInt64 = 22

  public var kind: OperationKind {
    switch self {
    case .mmap, .mmapFile: .mmap
    case .protect(let kind, _, _, _), .range(let kind, _, _), .space(let kind, _), .move(let kind, _, _, _),
      .kernel(let kind, _):
      kind
    case .cpuAccess: .cpuAccess
    case .ksmReplacePage: .ksmReplacePage
    case .unmap: .unmap
    case .detach: .detach
    }
  }

  func encode(to encoder: inout ByteEncoder) {
    let kind = kind
    if case .mmapFile = self {
      encoder.put(Self.fileNumber)
    } else {
      encoder.put(Self.numbers.first { $0.kind == kind }!.number)
    }
    switch self {
    case .mmapFile(let space, let range, let rights, let mapping):
      encoder.put(space.rawValue)
      range.encode(to: &encoder)
      encoder.put(rights.rawValue)
      encoder.put(mapping.file.rawValue)
      encoder.put(mapping.firstPage)
      encoder.put(mapping.isShared)
    case .mmap(let space, let range, let rights, let pageSizeLog2):
      encoder.put(space.rawValue)
      range.encode(to: &encoder)
      encoder.put(rights.rawValue)
      encoder.put(pageSizeLog2)
    case .protect(_, let space, let range, let rights):
      encoder.put(space.rawValue)
      range.encode(to: &encoder)
      encoder.put(rights.rawValue)
    case .range(_, let space, let range):
      encoder.put(space.rawValue)
      range.encode(to: &encoder)
    case .space(_, let space):
      encoder.put(space.rawValue)
    case .move(_, let space, let range, let destination):
      encoder.put(space.rawValue)
      range.encode(to: &encoder)
      encoder.put(destination)
    case .cpuAccess(let space, let access):
      encoder.put(space.rawValue)
      encoder.put(access.cpu)
      encoder.put(access.kind.rawValue)
      encoder.put(access.address)
      encoder.put(access.value)
      encoder.put(access.pageCount)
    case .ksmReplacePage(let space, let range, let keeper, let keeperFirst):
      encoder.put(space.rawValue)
      range.encode(to: &encoder)
      encoder.put(keeper.rawValue)
      encoder.put(keeperFirst)
    case .kernel(_, let range):
      range.encode(to: &encoder)
    case .unmap(let domain, let range):
      encoder.put(domain.rawValue)
      range.encode(to: &encoder)
    case .detach(let device, let pasid):
      encoder.put(device.rawValue)
      encoder.put(pasid)
    }
  }

  init(from decoder: inout ByteDecoder) throws(LogError) {
    let number = try decoder.number()
    if number == Self.fileNumber {
      let space = try decoder.space()
      let range = try PageRange(from: &decoder)
      let rights = try decoder.rights()
      let file = try decoder.file()
      let first = try decoder.number()
      self = .mmapFile(space, range, rights, FileMapping(file, firstPage: first, isShared: try decoder.flag()))
      return
    }
    guard let kind = Self.numbers.first(where: { $0.number == number })?.kind else {
      throw .malformed(offset: decoder.offset)
    }
    switch kind {
    case .mmap:
      let space = try decoder.space()
      let range = try PageRange(from: &decoder)
      let rights = try decoder.rights()
      self = .mmap(space, range, rights, pageSizeLog2: try decoder.number(UInt8.self))
    case .cpuAccess:
      let space = try decoder.space()
      let cpu = try decoder.number(UInt8.self)
      let kind = try decoder.value(CPUAccess.Kind.self)
      let address = try decoder.number()
      let value = try decoder.number()
      self = .cpuAccess(
        space, CPUAccess(cpu: cpu, kind: kind, address: address, value: value, pageCount: try decoder.number()))
    case .ksmReplacePage:
      let space = try decoder.space()
      let range = try PageRange(from: &decoder)
      let keeper = try decoder.space()
      self = .ksmReplacePage(space, range, keeper: keeper, keeperFirst: try decoder.number())
    case .unmap:
      let domain = try decoder.domain()
      self = .unmap(domain, try PageRange(from: &decoder))
    case .detach:
      let device = try decoder.device()
      self = .detach(device, try decoder.number(PASID.self))
    case _ where OperationKind.ofRights.contains(kind):
      let space = try decoder.space()
      let range = try PageRange(from: &decoder)
      self = .protect(kind, space, range, try decoder.rights())
    case _ where OperationKind.ofRanges.contains(kind):
      let space = try decoder.space()
      self = .range(kind, space, try PageRange(from: &decoder))
    case _ where OperationKind.ofSpaces.contains(kind):
      self = .space(kind, try decoder.space())
    case _ where OperationKind.ofMoves.contains(kind):
      let space = try decoder.space()
      let range = try PageRange(from: &decoder)
      self = .move(kind, space, range, to: try decoder.number())
    case _ where OperationKind.ofKernel.contains(kind):
      self = .kernel(kind, try PageRange(from: &decoder))
    default: throw .malformed(offset: decoder.offset)
    }
  }
}
