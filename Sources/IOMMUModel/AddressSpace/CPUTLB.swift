// SPDX-License-Identifier: Apache-2.0

/// The TLBs of the machine's CPUs: direct-mapped, 4 KiB entries.
struct CPUTLB {
  struct Entry {
    var space: AddressSpaceID
    var page: PageNumber
    var frame: FrameNumber
    var generation: UInt32
    var writable: Bool
    var at: Nanoseconds
  }
  private(set) var entries: [[Entry?]]
  private let mask: UInt64

  init(cpuCount: UInt8, entryCount: UInt32) {
    entries = Array(repeating: Array(repeating: nil, count: Int(entryCount)), count: Int(cpuCount))
    mask = UInt64(entryCount) - 1
  }

  func find(_ cpu: UInt8, _ space: AddressSpaceID, _ page: PageNumber) -> Entry? {
    guard let entry = entries[Int(cpu)][Int(page & mask)], entry.space == space, entry.page == page else { return nil }
    return entry
  }

  mutating func insert(_ cpu: UInt8, _ entry: Entry) { entries[Int(cpu)][Int(entry.page & mask)] = entry }

  /// C: the shoot-down of a range on every CPU.
  mutating func flush(_ space: AddressSpaceID, _ range: PageRange) {
    for cpu in entries.indices {
      if range.count <= mask {
        for page in range.first..<range.end {
          if let entry = entries[cpu][Int(page & mask)], entry.space == space, entry.page == page {
            entries[cpu][Int(page & mask)] = nil
          }
        }
      } else {
        for slot in entries[cpu].indices {
          if let entry = entries[cpu][slot], entry.space == space, range.contains(entry.page) { entries[cpu][slot] = nil }
        }
      }
    }
  }
}
