// SPDX-License-Identifier: Apache-2.0
import LabProtocol

/// A row of the table: the operation as a call, and what its scene needs.
struct Row {
  /// One call that starts an operation.
  struct Step {
    /// An object of the scene whose id goes into the call.
    enum Object: Sendable { case file, other }
    var kind: LabMethod
    /// A count of zero: the first page's address alone.
    var pages: (first: UInt64, count: UInt64)?
    var more: [String: any Sendable] = [:]
    var isOther = false

    init(
      _ kind: LabMethod, _ pages: (UInt64, UInt64)? = nil, _ more: [String: any Sendable] = [:], isOther: Bool = false
    ) {
      self.kind = kind
      self.pages = pages.map { (first: $0.0, count: $0.1) }
      self.more = more
      self.isOther = isOther
    }

    static func map(_ first: UInt64, _ count: UInt64, isOther: Bool = false) -> Step {
      Step(.mmap, (first, count), ["read": true, "write": true], isOther: isOther)
    }
    static func mapFile(_ first: UInt64, _ count: UInt64, isOther: Bool = false) -> Step {
      Step(
        .mmap, (first, count), ["read": true, "write": true, "shared": true, "file": Object.file], isOther: isOther)
    }
    static func store(_ page: UInt64, _ value: UInt64, isOther: Bool = false) -> Step {
      Step(.store, (page, 0), ["value": hex(value)], isOther: isOther)
    }
  }

  /// Before the devices come.
  var setting: [Step]
  /// What is tried; nil: a page request of the second device, which asks for the right to write.
  var tried: Step?
  /// What the operation takes.
  let area: (first: UInt64, count: UInt64)
  let file: (pageCount: UInt64, pageSize: UInt64)
  /// Larger than the gather batch.
  let isLarge: Bool
  let cachesRights: Bool
  /// Where the device asks for pages, and where a CPU uses one.
  let asked: UInt64
  let page: UInt64
  /// A page on the same way through the tables that nobody has touched.
  let untouched: UInt64
  /// How page tables of kernel memory are freed; empty: as the kernel does it.
  let kernelTableFree: String
  /// The other process shares a page table with this one, and unmaps its part when the operation has left it.
  let sharesTable: Bool
  var needsManyFrames: Bool { area.count > 16 }

  private static let hugePage: UInt64 = 512
  /// 1 GiB.
  static let shared: (first: UInt64, count: UInt64) = (1 << 18, 1 << 18)

  /// - Parameter name: as the table has it. Throws when nobody has told how to try that row.
  init(_ name: String) throws {
    let parts = name.split(separator: ",", maxSplits: 1).map { $0.drop { $0 == " " } }
    let size = parts.count > 1 ? String(parts[1]) : ""
    guard let form = Self.forms[String(parts[0])] else { throw Failure("no call is known for the row '\(name)'") }
    guard let tableFree = Self.sizes[size] else { throw Failure("no scene is known for the row '\(name)'") }
    kernelTableFree = tableFree
    isLarge = size == "full batch"
    cachesRights = size == "upgrade of cached rights"
    sharesTable = size.hasSuffix("shared PMD table")
    let isPart = size.hasPrefix("part of")
    let isHuge = size == "huge page"
    let isKernel = form.method == .kernelUnmap
    area =
      sharesTable
      ? (Self.shared.first, isPart ? Self.hugePage : Self.shared.count)
      : (Scene.first, form.isHuge || isHuge ? Self.hugePage : form.count)
    file = sharesTable ? (Self.shared.count, Self.hugePage << 12) : (area.count, 1 << 12)
    // The second huge page, where the operation takes the first.
    let page = isPart ? area.first + Self.hugePage : area.first
    self.page = page
    asked = isKernel ? Scene.kernel : page
    untouched = sharesTable ? Self.shared.first + Self.shared.count - 1 : asked + area.count - 1
    let (first, count) = area

    switch (form.area, size) {
    case (.file, _): setting = [.mapFile(first, count)]
    case (.anonymous, "dirty file pages"):
      setting = [.map(first, 8), .mapFile(first + 8, 8), .store(first + 8, 7)]
    case (.anonymous, _) where sharesTable:
      // The other process has the page first, and the fault of this one takes its table.
      setting = [true, false].flatMap { isOther in
        [.mapFile(Self.shared.first, Self.shared.count, isOther: isOther), .store(page, 7, isOther: isOther)]
      }
    case (.anonymous, _) where isHuge:
      setting = [Step(.mmap, area, ["read": true, "write": true, "pageSize": hex(Self.hugePage << 12)])]
    case (.anonymous, _): setting = [.map(first, count)]
    }
    setting.append(.map(Scene.bystander, 1))
    if size == "shared table" { setting.append(.map(first + count, 1)) }
    let present: UInt64 = isLarge ? 6 : sharesTable ? 1 : 2
    setting += (page..<page + present).map { .store($0, 7) }
    setting.append(.store(Scene.bystander, 1))

    switch form.method {
    case nil where cachesRights:
      // The write right comes back with the next write.
      setting += [
        Step(.mprotect, area, ["read": true]), Step(.mprotect, area, ["read": true, "write": true]),
      ]
    case nil, .store?: setting.append(Step(.fork))
    case .ksmReplacePage?:
      setting += [
        .map(first, count, isOther: true), .store(first, 7, isOther: true), .store(first + 1, 7, isOther: true),
      ]
      setting += [Step(.ksmWriteProtect, area), Step(.ksmWriteProtect, area, isOther: true)]
    case .splitPages?: setting.append(Step(.madviseCollapse, area))
    case .uffdioMove?: setting.append(.map(Scene.destination, 16))
    case .kernelUnmap?:
      setting.append(Step(.kernelMap, (Scene.kernel, 16)))
      if size == "shared table" { setting.append(Step(.kernelMap, (Scene.kernel + 16, 1))) }
    default: break
    }

    tried = form.method.map { method in
      switch form.shape {
      case .range: Step(method, isKernel ? (Scene.kernel, 16) : area, form.more)
      case .move: Step(method, area, ["destination": hex((sharesTable ? 4 << 18 : Scene.destination) << 12)])
      case .space: Step(method, nil, form.more)
      case .page: Step(method, (first, 0), form.more)
      }
    }
  }

  /// What stands behind an operation's name, with how page tables of kernel memory are freed.
  private static let sizes: [String: String] = [
    "": "", "full batch": "", "shared table": "", "dirty file pages": "", "upgrade of cached rights": "",
    "huge page": "", "shared PMD table": "", "part of a shared PMD table": "",
    "tables freed at once": "KERNEL_TABLE_FREE_SYNC", "tables freed after I": "KERNEL_TABLE_FREE_ASYNC",
  ]

  private struct Form: Sendable {
    enum Shape { case range, move, space, page }
    enum Area { case anonymous, file }
    /// Nil: the fault handler's service of a page request.
    var method: LabMethod?
    var shape = Shape.range
    var area = Area.anonymous
    var isHuge = false
    var count: UInt64 = 16
    var more: [String: any Sendable] = [:]
  }

  private static let forms: [String: Form] = [
    "munmap": Form(method: .munmap),
    "mprotect": Form(method: .mprotect, more: ["read": true]),
    "madvise(DONTNEED)": Form(method: .madviseDontNeed),
    "fork": Form(method: .fork, shape: .space),
    "exit": Form(method: .exit, shape: .space),
    "CPU access": Form(method: .store, shape: .page, more: ["cpu": 1, "value": "0x9"]),
    "page-request service": Form(),
    "mremap": Form(method: .mremap, shape: .move),
    "NUMA hinting": Form(method: .numaHint),
    "soft-dirty clear": Form(method: .clearSoftDirty, shape: .space),
    "young clear": Form(method: .clearYoung),
    "OOM reap": Form(method: .oomReap, shape: .space),
    "KSM protect": Form(method: .ksmWriteProtect),
    "KSM replace": Form(
      method: .ksmReplacePage, more: ["keeper": Step.Object.other, "keeperAddress": hex(Scene.first << 12)]),
    "migration": Form(method: .migratePages),
    "UFFDIO_MOVE": Form(method: .uffdioMove, shape: .move),
    "madvise(FREE)": Form(method: .madviseFree),
    "reclaim": Form(method: .reclaimPages),
    "UFFDIO_WRITEPROTECT": Form(method: .uffdWriteProtect, more: ["protect": true]),
    "writeback": Form(method: .writebackPages, area: .file),
    "migration to a device": Form(method: .migrateToDevice, count: 2),
    "device-exclusive access": Form(method: .makeDeviceExclusive),
    "THP collapse": Form(method: .madviseCollapse, isHuge: true),
    "THP split": Form(method: .splitPages, isHuge: true),
    "file collapse (retract)": Form(method: .retractTables, area: .file, isHuge: true),
    "kernel unmap": Form(method: .kernelUnmap),
  ]
}
