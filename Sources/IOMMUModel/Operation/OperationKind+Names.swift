// SPDX-License-Identifier: Apache-2.0

extension OperationKind {
  /// The name in commands and files.
  public var identifier: String {
    switch self {
    case .mmap: "mmap"
    case .munmap: "munmap"
    case .mprotect: "mprotect"
    case .dontNeed: "dontneed"
    case .fork: "fork"
    case .exit: "exit"
    case .cpuAccess: "cpu-access"
    case .unmap: "unmap"
    case .detach: "detach"
    case .pageRequestGroup: "page-request"
    case .mremap: "mremap"
    case .numaHint: "numa-hint"
    case .clearSoftDirty: "clear-soft-dirty"
    case .clearYoung: "clear-young"
    case .oomReap: "oom-reap"
    case .ksmWriteProtect: "ksm-write-protect"
    case .ksmReplacePage: "ksm-replace-page"
    case .migratePages: "migrate-pages"
    case .uffdioMove: "uffdio-move"
    case .madviseFree: "madvise-free"
    case .reclaim: "reclaim"
    case .uffdWriteProtect: "uffd-write-protect"
    case .writeback: "writeback"
    case .migrateToDevice: "migrate-to-device"
    case .makeDeviceExclusive: "make-device-exclusive"
    case .collapse: "collapse"
    case .splitPages: "split-pages"
    case .retractTables: "retract-tables"
    case .flushQueue: "flush-queue"
    case .kernelMap: "kernel-map"
    case .kernelUnmap: "kernel-unmap"
    case .rangeFault: "range-fault"
    }
  }

  public static func named(_ identifier: String) -> OperationKind? { allCases.first { $0.identifier == identifier } }

  /// The kernel's name.
  public var name: String {
    switch self {
    case .mmap: "mmap"
    case .munmap: "munmap"
    case .mprotect: "mprotect"
    case .dontNeed: "madvise(DONTNEED)"
    case .fork: "fork"
    case .exit: "exit"
    case .cpuAccess: "CPU access"
    case .unmap: "unmap"
    case .detach: "detach"
    case .pageRequestGroup: "page-request service"
    case .mremap: "mremap"
    case .numaHint: "NUMA hinting"
    case .clearSoftDirty: "soft-dirty clear"
    case .clearYoung: "young clear"
    case .oomReap: "OOM reap"
    case .ksmWriteProtect: "KSM protect"
    case .ksmReplacePage: "KSM replace"
    case .migratePages: "migration"
    case .uffdioMove: "UFFDIO_MOVE"
    case .madviseFree: "madvise(FREE)"
    case .reclaim: "reclaim"
    case .uffdWriteProtect: "UFFDIO_WRITEPROTECT"
    case .writeback: "writeback"
    case .migrateToDevice: "migration to a device"
    case .makeDeviceExclusive: "device-exclusive access"
    case .collapse: "THP collapse"
    case .splitPages: "THP split"
    case .retractTables: "file collapse (retract)"
    case .flushQueue: "flush queue"
    case .kernelMap: "kernel map"
    case .kernelUnmap: "kernel unmap"
    case .rangeFault: "range fault of a mirror"
    }
  }
}
