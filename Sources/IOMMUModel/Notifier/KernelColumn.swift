// SPDX-License-Identifier: Apache-2.0

/// Which Linux the step lists follow: a column of `reference/linux-mm.md` §3.
public enum KernelColumn: UInt8, Sendable, CaseIterable {
  /// Linux 3.19 to 4.12, the kernels after the 2014 thread; read in 4.1.15.
  case linux2014
  /// Linux 6.6 and later, on x86.
  case now

  /// The name in API, logs and docs.
  public var name: String {
    switch self {
    case .linux2014: "2014"
    case .now: "now"
    }
  }

  /// The name with the kernels that it means.
  public var title: String {
    switch self {
    case .linux2014: "2014 (Linux 3.19 to 4.12)"
    case .now: "now (Linux 6.6 and later, x86)"
    }
  }

  /// What its kernels do with the page tables of kernel memory.
  public var kernelTableFree: KernelTableFree { self == .now ? .afterFlush : .atOnce }

  public static func named(_ name: String) -> KernelColumn? { allCases.first { $0.name == name } }
}

/// How page tables of kernel memory are freed: a bug of 2025 and its fix, as a switch beside the column. Linux 6.6 to 6.18
/// is `now` with `atOnce`.
public enum KernelTableFree: UInt8, Sendable, CaseIterable {
  /// At once, after C alone: whoever shares an address space may walk through them still (CVE-2025-71089).
  case atOnce
  /// By a worker, after I over the kernel's half (CONFIG_ASYNC_KERNEL_PGTABLE_FREE, `iommu_sva_invalidate_kva_range`).
  case afterFlush
}
