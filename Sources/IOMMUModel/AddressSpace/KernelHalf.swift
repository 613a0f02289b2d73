// SPDX-License-Identifier: Apache-2.0

/// The kernel's half of every address space (Linux `init_mm`): one page table whose tables all roots share, so that what
/// is unlinked from it is unlinked everywhere at once, and what is cached of it is cached for every PASID.
struct KernelHalf {
  /// The kernel's own root (`swapper_pg_dir`); 0 until a page is mapped for the first time.
  var root: FrameNumber = 0
  var lock = MmapLock()
  var references = References()

  /// Root entries 256 to 511. A table that one of them points to is made once and never freed, as Linux allocates those
  /// of vmalloc in advance; so a root that has copied the entry needs no second look.
  static let rootEntries = Page.wordCount / 2..<Page.wordCount
  /// The page that root entry 0 would map, if all entries had to do with the kernel's half.
  static let rootBase: PageNumber = PageRange.kernel.first - PageRange.kernel.count
}

extension PageRange {
  /// The upper canonical half of a 48-bit address space. A page number is an address >> 12, here as everywhere.
  public static let kernel = PageRange(first: 1 << 52 - 1 << 35, count: 1 << 35)
}
