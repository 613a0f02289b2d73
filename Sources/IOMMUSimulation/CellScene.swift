// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// The small machine on which a cell is tried or timed: an address space with a few pages, what the operation needs
/// beside it, and devices, usually two, that share it under the cell's strategy.
struct CellScene {
  let space: AddressSpaceID
  /// Another process, whose pages KSM keeps.
  let other: AddressSpaceID
  let devices: [DeviceID]

  static let pasid: PASID = 5
  /// CPUs that a trial may use, one after the other.
  static let cpuCount: UInt8 = 16
  static let first: PageNumber = 0x200
  /// What the operation takes: a huge page where it needs one.
  static func area(_ cell: Cell) -> PageRange {
    switch (cell.kind, cell.size) {
    case (_, .sharedLeaves): sharedArea
    case (_, .partOfSharedLeaves): PageRange(first: sharedArea.first, count: Machine.hugePageCount)
    case (.collapse, _), (.splitPages, _), (.retractTables, _), (_, .hugePage):
      PageRange(first: first, count: Machine.hugePageCount)
    // Where nothing stands, a device would get an empty page.
    case (.migrateToDevice, _): PageRange(first: first, count: 2)
    default: PageRange(first: first, count: 16)
    }
  }
  /// 1 GiB of a hugetlbfs file, which another process maps too.
  static let sharedArea = PageRange(first: 1 << 18, count: 1 << 18)
  /// What a kernel unmap takes.
  static let kernelArea = PageRange(first: PageRange.kernel.first + 0x200, count: 16)
  /// A page that the operation does not touch, before the others: what goes over everything comes to them last.
  static let bystander: PageNumber = 0x100
  static func destination(_ cell: Cell) -> PageNumber { cell.size.isOfSharedLeaves ? 4 << 18 : 0x2003 }
  /// Where the device asks for pages.
  static func asked(_ cell: Cell) -> PageRange {
    if cell.kind == .kernelUnmap { return kernelArea }
    // The second huge page, where the operation takes the first.
    return cell.size == .partOfSharedLeaves ? PageRange(first: area(cell).end, count: area(cell).count) : area(cell)
  }
  /// Where a CPU uses a page.
  static func page(_ cell: Cell) -> PageNumber { cell.kind == .kernelUnmap ? first : asked(cell).first }
  /// Pages of the area that are there.
  private static func pages(_ cell: Cell) -> Range<PageNumber> {
    page(cell)..<page(cell) + (cell.size == .fullBatch ? 6 : cell.size.isOfSharedLeaves ? 1 : 2)
  }

  static func make(
    _ cell: Cell, costs: CostModel, seed: UInt64, sharers: Int = 2, flushesAtOnce: Bool = false
  ) -> (CellScene, Machine) {
    var settings = Settings()
    if flushesAtOnce { settings.flushQueueTimeout = 0 }
    settings.seed = seed
    settings.frameCount = area(cell).count > 16 ? 4096 : 256
    settings.costs = costs
    settings.kernel = cell.column
    settings.kernelTableFree = cell.kernelTableFree
    if let order = cell.order { settings.orders = [order] }
    settings.cachesRights = cell.size == .upgrade
    settings.gatherBatch = cell.size == .fullBatch ? 4 : 64
    settings.cpuCount = cpuCount
    settings.caches.cpuTLB = 16
    var builder = Builder(machine: Machine(settings: settings))
    let scene = builder.build(cell, sharers)
    return (scene, builder.machine)
  }

  /// What is tried; nil: a page request of the second device, for a COW break by the fault handler.
  func request(_ cell: Cell) -> OperationRequest? {
    let area = Self.area(cell)
    switch cell.kind {
    case .cpuAccess:
      return .cpuAccess(space, CPUAccess(cpu: 1, kind: .store, address: area.first << 12, value: 9))
    case .ksmReplacePage:
      return .ksmReplacePage(space, area, keeper: other, keeperFirst: area.first)
    case let kind where OperationKind.ofRanges.contains(kind): return .range(kind, space, area)
    case let kind where OperationKind.ofRights.contains(kind): return .protect(kind, space, area, .read)
    case let kind where OperationKind.ofSpaces.contains(kind): return .space(kind, space)
    case let kind where OperationKind.ofMoves.contains(kind):
      return .move(kind, space, area, to: Self.destination(cell))
    case .kernelUnmap: return .kernel(.kernelUnmap, Self.kernelArea)
    default: return nil
    }
  }

  private struct Builder {
    var machine: Machine
    var effects = Effects()

    mutating func build(_ cell: Cell, _ sharers: Int) -> CellScene {
      guard case .addressSpace(let space) = apply(.createAddressSpace),
        case .addressSpace(let other) = apply(.createAddressSpace)
      else { preconditionFailure("a creation answers with the address space") }
      let area = CellScene.area(cell)
      switch (cell.kind, cell.size) {
      case (.writeback, _), (.retractTables, _): mapFile(space, area)
      case (_, .dirtyFile):
        map(space, PageRange(first: area.first, count: 8))
        mapFile(space, PageRange(first: area.first + 8, count: 8))
        store(space, area.first + 8, 7)
      case (_, .hugePage): map(space, area, pageSizeLog2: 21)
      case (_, .sharedLeaves), (_, .partOfSharedLeaves): shareLeaves(space, other, CellScene.page(cell))
      default: map(space, area)
      }
      map(space, PageRange(first: CellScene.bystander, count: 1))
      if cell.size == .sharedTable { map(space, PageRange(first: area.end, count: 1)) }
      let pages = CellScene.pages(cell)
      for page in pages { store(space, page, 7) }
      store(space, CellScene.bystander, 1)
      switch cell.kind {
      case .pageRequestGroup where cell.size == .upgrade:
        // The write right comes back with the next write.
        for rights in [Rights.read, .readWrite] { apply(.start(.mprotect(space, CellScene.area(cell), rights))) }
      case .cpuAccess, .pageRequestGroup: apply(.start(.fork(space)))
      case .ksmReplacePage:
        map(other, area)
        for page in pages { store(other, page, 7) }
        for each in [space, other] { apply(.start(.range(.ksmWriteProtect, each, area))) }
      case .splitPages: apply(.start(.range(.collapse, space, area)))
      case .uffdioMove: map(space, PageRange(first: CellScene.destination(cell), count: 16))
      case .kernelUnmap:
        apply(.start(.kernel(.kernelMap, CellScene.kernelArea)))
        if cell.size == .sharedTable {
          apply(.start(.kernel(.kernelMap, PageRange(first: CellScene.kernelArea.end, count: 1))))
        }
      default: break
      }
      let devices = (0..<sharers).map { index in
        guard case .device(let device, _) = apply(.registerDevice(DeviceProfile(rid: UInt16(8 + index), retryLimit: 1)))
        else {
          preconditionFailure("a registration answers with the device")
        }
        apply(.attach(device, CellScene.pasid, .addressSpace(space, cell.strategy)))
        return device
      }
      return CellScene(space: space, other: other, devices: devices)
    }

    private mutating func map(_ space: AddressSpaceID, _ range: PageRange, pageSizeLog2: UInt8 = Page.sizeLog2) {
      apply(.start(.mmap(space, range, .readWrite, pageSizeLog2: pageSizeLog2)))
    }

    /// The other process has the page first, and the fault of this one takes its table.
    private mutating func shareLeaves(_ space: AddressSpaceID, _ other: AddressSpaceID, _ page: PageNumber) {
      let area = CellScene.sharedArea
      guard case .file(let file) = apply(.createFile(pageCount: area.count, pageSizeLog2: 21)) else {
        preconditionFailure("a creation answers with the file")
      }
      for each in [other, space] {
        apply(.start(.mmapFile(each, area, .readWrite, FileMapping(file, isShared: true))))
        store(each, page, 7)
      }
    }

    private mutating func mapFile(_ space: AddressSpaceID, _ range: PageRange) {
      guard case .file(let file) = apply(.createFile(pageCount: range.count)) else {
        preconditionFailure("a creation answers with the file")
      }
      apply(.start(.mmapFile(space, range, .readWrite, FileMapping(file, isShared: true))))
    }

    private mutating func store(_ space: AddressSpaceID, _ page: PageNumber, _ value: UInt64) {
      apply(.start(.cpuAccess(space, CPUAccess(cpu: 0, kind: .store, address: page << 12, value: value))))
    }

    /// Applies a command and runs all that follows from it.
    @discardableResult
    private mutating func apply(_ command: Command) -> Reply {
      do throws(Refusal) {
        let reply = try machine.apply(command, at: machine.time, into: &effects)
        machine.run(until: .max, limit: 10_000, into: &effects)
        effects.removeAll()
        return reply
      } catch {
        preconditionFailure("the scene can be set: \(error)")
      }
    }
  }
}
