// SPDX-License-Identifier: Apache-2.0

/// The four caches of the IOMMU, each with its own invalidation (`iommu-hardware.md` A3).
struct IOMMUCaches {
  /// Device-context cache: what a requester id may do.
  struct Context {
    var device: DeviceID
  }
  /// PASID cache: where a PASID's table is.
  struct PASIDEntry {
    enum Kind: UInt8 { case table, identity, blocked }
    var kind: Kind
    var binding: BindingID
    /// Tags the IOTLB and the walk cache, as a domain id does.
    var tag: UInt32
    var root: FrameNumber
    var rootGeneration: UInt32
  }
  /// IOTLB: a whole translation.
  struct Translation {
    var frame: FrameNumber
    var generation: UInt32
    var rights: Rights
    /// The leaf's Dirty bit is known to be set, so that a write needs no walk.
    var dirty: Bool
    var throughFreedTable: Bool
    /// Where the grant of its page lay in the table of the device that asked last: a guess, and no part of the state.
    var grantSlot: UInt32 = 0

    static let none = Translation(frame: 0, generation: 0, rights: [], dirty: false, throughFreedTable: false)

    /// Whether it answers a request in full, without a walk.
    @inline(__always)
    func satisfies(wantsWrite: Bool) -> Bool { !wantsWrite || rights.contains(.write) && dirty }
    /// Whether hardware that caches rights answers from it all the same: with less than was asked.
    @inline(__always)
    var withholdsWrite: Bool { !rights.contains(.write) }
  }
  /// Walk cache: the table that an upper-level entry points to, and what the entries above allow.
  struct Walk {
    var table: FrameNumber
    var generation: UInt32
    var writable: Bool
    var throughFreedTable: Bool
  }

  var contexts: BoundedCache<Context>
  var pasids: BoundedCache<PASIDEntry>
  var translations: BoundedCache<Translation>
  var walks: BoundedCache<Walk>
  /// Leaf levels above 0 that were ever cached: lookups ask for them only then.
  var hasLargeTranslations = false

  init(_ sizes: CacheSizes) {
    contexts = BoundedCache(entryCount: sizes.deviceContext)
    pasids = BoundedCache(entryCount: sizes.pasid)
    translations = BoundedCache(entryCount: sizes.iotlb)
    walks = BoundedCache(entryCount: sizes.walk)
  }

  @inline(__always)
  static func owner(tag: UInt32, _ pasid: PASID) -> UInt64 { UInt64(tag) | UInt64(pasid) << 32 }

  /// Key of a translation or a table: the prefix of the page above `level`.
  @inline(__always)
  static func key(_ owner: UInt64, _ page: PageNumber, level: UInt8) -> BoundedCache<Translation>.Key {
    .init(owner: owner | UInt64(level) &<< 52, page: page &>> (9 &* UInt64(level)))
  }
  @inline(__always)
  static func walkKey(_ owner: UInt64, _ page: PageNumber, tableLevel: UInt8) -> BoundedCache<Walk>.Key {
    .init(owner: owner | UInt64(tableLevel) &<< 52, page: page &>> (9 &* (UInt64(tableLevel) &+ 1)))
  }

  /// The IOMMU's part of I: PASID cache entry of the function, then IOTLB and walk cache of the PASID over the range.
  mutating func invalidate(rid: UInt16, _ pasid: PASID) {
    pasids.remove(.init(owner: UInt64(rid), page: UInt64(pasid)))
  }

  mutating func invalidate(tag: UInt32, _ pasid: PASID, _ range: PageRange) {
    let owner = Self.owner(tag: tag, pasid)
    let ownerMask = UInt64(1) << 52 - 1
    // I of a whole address space is one of the whole PASID: what is cached of the kernel's half goes with it.
    if range == .all {
      translations.remove { $0.owner & ownerMask == owner }
      walks.remove { $0.owner & ownerMask == owner }
      return
    }
    if range.count <= 64 && !hasLargeTranslations {
      for page in range.first..<range.end { translations.remove(Self.key(owner, page, level: 0)) }
    } else {
      translations.remove { key in
        let shift = 9 * (key.owner >> 52)
        return key.owner & ownerMask == owner
          && PageRange(first: key.page << shift, count: 1 << shift).overlaps(range)
      }
    }
    walks.remove { key in
      let shift = 9 * (key.owner >> 52 + 1)
      return key.owner & ownerMask == owner && PageRange(first: key.page << shift, count: 1 << shift).overlaps(range)
    }
  }
}
