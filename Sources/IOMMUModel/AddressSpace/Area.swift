// SPDX-License-Identifier: Apache-2.0

/// What of a file an area maps.
struct AreaFile: Equatable {
  var file: FileID
  /// What is added to a page of the address space for the page of the file; wraps.
  var offset: UInt64
  /// MAP_SHARED: writes go to the file. Otherwise a page that is written to becomes the process's own.
  var isShared: Bool
}

/// A mapped range of an address space (Linux VMA).
struct Area: Equatable {
  var range: PageRange
  var rights: Rights
  /// Level of the leaves that faults install: 0, 1 or 2.
  var level: UInt8
  /// The turn since which the area has covered its pages without interruption, and with the write right.
  var sinceTurn: UInt64
  var writableSinceTurn: UInt64
  /// nil: anonymous private memory.
  var file: AreaFile?
  var isShared: Bool { file?.isShared ?? false }
}

/// The areas of an address space, sorted, never overlapping.
struct Areas {
  private(set) var list: [Area] = []

  /// Index of the first area that ends after the page.
  private func lowerBound(_ page: PageNumber) -> Int {
    var low = 0
    var high = list.count
    while low < high {
      let middle = (low + high) / 2
      if list[middle].range.end <= page { low = middle + 1 } else { high = middle }
    }
    return low
  }

  func find(_ page: PageNumber) -> Area? {
    let index = lowerBound(page)
    return index < list.count && list[index].range.contains(page) ? list[index] : nil
  }

  /// The area of a page, or the first one behind it.
  func next(from page: PageNumber) -> Area? {
    let index = lowerBound(page)
    return index < list.count ? list[index] : nil
  }

  func overlaps(_ range: PageRange) -> Bool {
    let index = lowerBound(range.first)
    return index < list.count && list[index].range.overlaps(range)
  }

  func overlapping(_ range: PageRange) -> ArraySlice<Area> {
    let first = lowerBound(range.first)
    var last = first
    while last < list.count && list[last].range.overlaps(range) { last += 1 }
    return list[first..<last]
  }

  /// Whether areas cover the range without a hole.
  func covers(_ range: PageRange) -> Bool {
    var next = range.first
    for area in overlapping(range) {
      guard area.range.first <= next else { return false }
      next = area.range.end
    }
    return next >= range.end
  }

  /// By how many areas a change of this range adds to the list at most: it cuts areas that it ends inside.
  func growth(_ range: PageRange, keepsRange: Bool) -> Int {
    func cuts(_ edge: PageNumber) -> Bool { find(edge).map { $0.range.first < edge } ?? false }
    if keepsRange { return (cuts(range.first) ? 1 : 0) + (cuts(range.end) ? 1 : 0) }
    return find(range.first)?.range.contains(range.end) == true && cuts(range.first) ? 1 : 0
  }

  mutating func insert(_ area: Area) { list.insert(area, at: lowerBound(area.range.first)) }

  /// Takes a range out, cutting areas in two where it ends inside them.
  mutating func remove(_ range: PageRange) { edit(range) { _ in nil } }

  /// Sets the rights over a range, cutting areas where it ends inside them.
  mutating func protect(_ range: PageRange, _ rights: Rights, turn: UInt64) {
    edit(range) { area in
      var changed = area
      if rights.contains(.write) && !area.rights.contains(.write) { changed.writableSinceTurn = turn }
      if !rights.isEmpty && area.rights.isEmpty { changed.sinceTurn = turn }
      changed.rights = rights
      return changed
    }
  }

  private mutating func edit(_ range: PageRange, _ body: (Area) -> Area?) {
    let first = lowerBound(range.first)
    var last = first
    var edited: [Area] = []
    while last < list.count && list[last].range.overlaps(range) {
      let area = list[last]
      if area.range.first < range.first {
        var left = area
        left.range.count = range.first - area.range.first
        edited.append(left)
      }
      let start = max(area.range.first, range.first)
      let end = min(area.range.end, range.end)
      var middle = area
      middle.range = PageRange(first: start, count: end - start)
      if let kept = body(middle) { edited.append(kept) }
      if area.range.end > range.end {
        var right = area
        right.range = PageRange(first: range.end, count: area.range.end - range.end)
        edited.append(right)
      }
      last += 1
    }
    list.replaceSubrange(first..<last, with: edited)
  }
}
