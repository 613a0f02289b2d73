// SPDX-License-Identifier: Apache-2.0

/// A file: contents on storage, and the pages of it that are in memory (the page cache). Reading and writing take no
/// time of their own. Files are no longer than the machine's memory (our choice), and begin as zeros.
struct BackingFile {
  struct CachedPage {
    /// The frame that the page cache holds; 0: the page is on storage alone.
    var frame: FrameNumber = 0
    /// Written to since it was last written out, as far as page tables have said so.
    var isDirty = false
    var stored = StoredPage()
  }
  let pageCount: UInt64
  /// Level of the leaves that map it: 1 in hugetlbfs, whose pages stay in memory until the file goes.
  let level: UInt8
  /// Pages that were ever used.
  private var pages = PageMap<CachedPage>()

  init(pageCount: UInt64, level: UInt8) {
    self.pageCount = pageCount
    self.level = level
  }

  subscript(page: PageNumber) -> CachedPage {
    get { pages[PageKey(owner: 0, page: page)] ?? CachedPage() }
    set { pages.set(PageKey(owner: 0, page: page), newValue) }
  }
  var sorted: [(page: PageNumber, value: CachedPage)] { pages.sorted.map { ($0.key.page, $0.value) } }
}

/// A page of a file, as a frame of the page cache knows it.
struct FilePage: Equatable {
  var file: FileID
  var page: UInt32
  static let none = FilePage(file: FileID(rawValue: 0), page: 0)
}

extension Machine {
  // MARK: Files

  static let fileLimit = 1024

  /// A file of hugetlbfs may be longer than memory, for nothing is reserved (our choice): a fault that finds no huge page
  /// is refused.
  private static let hugeFileLimit: UInt64 = 1 << 22

  mutating func createFile(_ pageCount: UInt64, pageSizeLog2: UInt8) throws(Refusal) -> FileID {
    guard pageCount > 0 else { throw Refusal(.emptyRange, .byteCount) }
    guard [12, 21].contains(pageSizeLog2) else { throw Refusal(.misaligned, .pageSize, figure: 21) }
    let level = (pageSizeLog2 - Page.sizeLog2) / 9
    guard pageCount % (1 << (9 * UInt64(level))) == 0 else {
      throw Refusal(.misaligned, .byteCount, figure: 1 << UInt64(pageSizeLog2))
    }
    let limit = level > 0 ? Self.hugeFileLimit : UInt64(settings.frameCount)
    guard pageCount <= limit else { throw Refusal(.limitReached, .byteCount, figure: limit << 12) }
    guard files.count < Self.fileLimit else {
      throw Refusal(.limitReached, .file, figure: UInt64(Self.fileLimit))
    }
    return files.insert { _ in BackingFile(pageCount: pageCount, level: level) }
  }

  /// Deletes a file that no area maps; what is still being unmapped keeps its frames.
  mutating func deleteFile(_ id: FileID) throws(Refusal) {
    try require(id)
    let isMapped = spaces.ids.contains { space in spaces[space].areas.list.contains { $0.file?.file == id } }
    let frames = files[id].sorted.map(\.value.frame).filter { $0 != 0 }
    let isBusy = frames.contains { pageLocks.isHeld($0, byOtherThan: .none) }
    guard !isMapped, !isBusy else { throw Refusal(.fileInUse, .file) }
    for frame in frames {
      memory.setFilePage(frame, .none)
      memory.release(frame, by: .none)
    }
    files.remove(id)
  }

  @inline(__always) func require(_ id: FileID) throws(Refusal) {
    guard files.contains(id) else { throw Refusal(.unknownFile, .file) }
  }

  // MARK: The page cache

  /// The frame of a file's page, read from storage if it was not in memory; nil: no frame is free.
  mutating func cachedFrame(_ file: FileID, _ page: PageNumber) -> FrameNumber? {
    var cached = files[file][page]
    if cached.frame != 0 { return cached.frame }
    guard let frame = memory.allocateBlock(log2: 9 * files[file].level) else { return nil }
    if files[file].level == 0 { memory.fill(frame, cached.stored) }
    memory.setFilePage(frame, FilePage(file: file, page: UInt32(page)))
    cached.frame = frame
    files[file][page] = cached
    return frame
  }

  /// An entry goes or becomes clean: what it knows of writes goes to the file's page (`set_page_dirty`).
  /// - Returns: whether it was a dirty page of a file.
  @discardableResult
  mutating func keepDirty(_ entry: PageTableEntry, _ frame: FrameNumber) -> Bool {
    let of = memory[frame].filePage
    guard entry.isDirty, of != .none, files[of.file].level == 0 else { return false }
    files[of.file][PageNumber(of.page)].isDirty = true
    return true
  }

  /// Writes a page of the page cache to storage if it is dirty.
  mutating func writeFilePage(_ frame: FrameNumber) {
    let of = memory[frame].filePage
    var cached = files[of.file][PageNumber(of.page)]
    guard cached.isDirty else { return }
    cached.stored = memory.contents(frame)
    cached.isDirty = false
    files[of.file][PageNumber(of.page)] = cached
  }

  /// Takes a clean page out of the page cache; its hold goes to the operation.
  mutating func evict(_ frame: FrameNumber, _ operation: inout Operation) {
    let of = memory[frame].filePage
    files[of.file][PageNumber(of.page)].frame = 0
    memory.setFilePage(frame, .none)
    operation.gathered.append(frame)
  }
}
