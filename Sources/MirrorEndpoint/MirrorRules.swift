// SPDX-License-Identifier: Apache-2.0

/// The counters and sequences by which a mirror knows whether a fault's answer may be installed, each as its kernel
/// subsystem keeps them.
///
///     mirror                          address space
///     snapshot
///     fault ───────────────────────▶  finds the old page
///              start ◀──────────────  munmap
///     drops, answers ──────────────▶  clears the entry, frees the page
///              end ◀────────────────
///     mustRetry(snapshot) is true here: the page that was found is not the address space's any more
struct MirrorRules {
  private let kind: MirrorKind
  /// Windows between start and end: `mmu_invalidate_in_progress`, `ms_range_active`.
  private(set) var inProgress: UInt32
  /// KVM merges the ranges of all that are in progress.
  private var merged: MirrorRange
  /// KVM: ends. GRU: starts. Secondary TLB: flushes. Interval notifiers: the sequence of the last invalidation.
  private(set) var sequence: UInt64

  struct Snapshot: Equatable {
    var sequence: UInt64
  }

  init(_ kind: MirrorKind, sequence: UInt64, openWindows: UInt32) {
    self.kind = kind
    self.sequence = sequence
    inProgress = openWindows
    merged = MirrorRange(first: 0, count: openWindows > 0 ? 1 << 52 : 0)
  }

  /// Taken before a fault is sent.
  var snapshot: Snapshot { Snapshot(sequence: sequence) }

  mutating func take(_ event: MirrorEvent) {
    switch (kind, event.hook) {
    case (.kvm, .start):
      merged = inProgress == 0 ? event.range : merged.union(event.range)
      inProgress += 1
    case (.kvm, .end):
      sequence += 1
      inProgress -= 1
    // 2014's invalidate_page.
    case (.kvm, .invalidate): sequence += 1
    case (.gru, .start):
      sequence += 1
      inProgress += 1
    case (.gru, .end): inProgress -= 1
    case (.gru, .invalidate), (.secondaryTLB, .invalidate): sequence += 1
    case (_, .invalidate): sequence = event.sequence
    default: break
    }
  }

  /// Nothing of the range may come in before the end of a window.
  func isClosed(_ range: MirrorRange) -> Bool {
    switch kind {
    case .kvm: inProgress > 0 && merged.overlaps(range)
    case .gru: inProgress > 0
    default: false
    }
  }

  /// `mmu_invalidate_retry_gfn`, `mmu_interval_read_retry` and their like.
  /// - Parameter read: the sequence that the fault answered; interval notifiers compare with it.
  func mustRetry(_ snapshot: Snapshot, read: UInt64, _ range: MirrorRange) -> Bool {
    isClosed(range) || (kind.isInterval ? read : snapshot.sequence) != sequence
  }
}
