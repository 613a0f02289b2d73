// SPDX-License-Identifier: Apache-2.0

extension StepLists {
  /// vunmap or vfree: C and F of the pages, and never an I, which no device needs of pages that it may not use. Then the
  /// tables that became empty, as where `pud_free_pmd_page` and `pmd_free_pte_page` clear the way for a huge mapping, or
  /// memory is unplugged (elsewhere x86 keeps them, for the next mapping).
  ///
  /// An IOMMU walks through them all the same before it finds that it may not use the page, and caches them on the way.
  /// They were freed after C alone until the bug was found in 2025 (CVE-2025-71089 and -71202: a device that shares an
  /// address space then walks through whatever its owner writes there). Since then the caller only queues them, and a
  /// worker runs I over the kernel's half of every shared address space before T (`iommu_sva_invalidate_kva_range`). Here
  /// each operation is its own worker.
  static func kernelUnmap(_ tables: KernelTableFree) -> [Step] {
    let pages: [Step] = [.lockWrite, .zap, .again, .cpuFlush, .free]
    return switch tables {
    case .atOnce: pages + [.unlinkTables, .cpuFlush, .free, .unlock, .done]
    case .afterFlush: pages + [.unlinkTables, .cpuFlush, .unlock, .answer, .flushSite, .free, .done]
    }
  }
}
