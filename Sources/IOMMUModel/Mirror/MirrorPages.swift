// SPDX-License-Identifier: Apache-2.0

/// A page that a fault handed to a mirror, or that the mirror has installed: the oracle's account of it.
struct MirrorGrant {
  /// What took it away.
  enum End: UInt8 { case none, start, release }
  /// Number of the fault that handed it out.
  var fault: UInt64
  var frame: FrameNumber
  var generation: UInt32
  var level: UInt8
  var rights: Rights
  var at: Nanoseconds
  /// The last event that the subscriber had been sent.
  var afterEvent: UInt64
  /// An invalidation of the page was answered, or was under way, since the fault: the mirror must fault again.
  var collided = false
  /// Installed pages: the mirror has answered an event that takes the page away.
  var end = End.none
  var endedBy = OperationStamp.none
}

/// The pages of one mirror: what the last fault of a page handed out, and what is installed.
struct MirrorPages {
  struct Page {
    var handed: MirrorGrant?
    var installed: MirrorGrant?
  }
  private var map = PageMap<Page>()
  /// Pages from which on what was taken away, or came too late, is forgotten; grows with what is in use.
  private(set) var limit = 65_536

  private static func key(_ page: PageNumber) -> PageKey { PageKey(owner: 0, page: page) }

  subscript(page: PageNumber) -> Page? { map[Self.key(page)] }

  mutating func hand(_ page: PageNumber, _ grant: MirrorGrant) {
    if let slot = map.find(Self.key(page)) { return map[slot: slot].handed = grant }
    if map.count >= limit {
      map.keep { _, page in
        // What is in use, what may still be installed, and what this fault has handed out so far.
        if let installed = page.installed, installed.end == .none && !installed.collided { return true }
        guard let handed = page.handed else { return false }
        return !handed.collided || handed.fault == grant.fault
      }
      limit = max(65_536, 2 * map.count)
    }
    map.set(Self.key(page), Page(handed: grant, installed: nil))
  }

  /// What was handed out is in the mirror's own table now.
  mutating func install(_ page: PageNumber, isReleased: Bool) {
    guard let slot = map.find(Self.key(page)) else { return }
    map[slot: slot].installed = map[slot: slot].handed
    if isReleased { map[slot: slot].installed?.end = .release }
  }

  /// A fault that was under way has met an invalidation.
  /// - Parameter event: what was handed out after this event was sent is not concerned.
  mutating func collide(_ range: PageRange, before event: UInt64) {
    change(range) { page in
      if let handed = page.handed, handed.afterEvent < event { page.handed!.collided = true }
    }
  }

  /// The mirror has answered that it uses the range no more.
  /// - Parameter event: what was handed out after this event was sent is not concerned.
  mutating func retire(_ range: PageRange, _ end: MirrorGrant.End, by stamp: OperationStamp, before event: UInt64) {
    collide(range, before: event)
    change(range) { page in
      guard let installed = page.installed, installed.afterEvent < event else { return }
      guard installed.end == .none || end == .release else { return }
      page.installed?.end = end
      page.installed?.endedBy = stamp
    }
  }

  private mutating func change(_ range: PageRange, _ body: (inout Page) -> Void) {
    if range.count < UInt64(map.capacity) {
      for page in range.first..<range.end {
        if let slot = map.find(Self.key(page)) { body(&map[slot: slot]) }
      }
    } else {
      for slot in 0..<map.capacity {
        if let entry = map.entry(at: slot), range.contains(entry.key.page) { body(&map[slot: slot]) }
      }
    }
  }

  var sorted: [(key: PageKey, value: Page)] { map.sorted }
}
