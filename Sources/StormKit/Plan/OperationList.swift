// SPDX-License-Identifier: Apache-2.0
import DeviceEndpoint

/// One step of a mutator: a memory operation, or a short run of them that belongs together.
public struct MutatorStep: Codable, Equatable, Sendable {
  public enum Kind: String, Codable, CaseIterable, Sendable {
    /// madvise(MADV_DONTNEED) on pages that devices use.
    case dontNeed
    /// munmap, then mmap of the same range.
    case remap
    /// fork, a CPU store to each page of the range (copy-on-write), exit of the child.
    case forkAndWrite
    /// DONTNEED of the mutator's own pages, then a store to each: they take the frames that were freed last.
    case recycle
    /// A load of each of the mutator's own pages, compared with what was stored.
    case verify
    /// mprotect to read and back.
    case protect
    /// mremap to the spare place and back.
    case move
    case numaHint, clearSoftDirty, clearYoung, ksmWriteProtect, migrate
    /// Reclaim: pages go to the swap device.
    case reclaim
    /// A file of its own at the spare place: stores, writeback, stores, reclaim, retracted tables, loads that are compared.
    case file
    /// Memory of its own at the spare place: stores, collapse, loads that are compared, split, loads again.
    case hugePages
    /// A hugetlbfs file, whose page table a child shares: stores of both, mprotect, DONTNEED, loads that are compared.
    case hugetlb
    /// Two equal pages of its own at the spare place: write-protected, merged, written to, loads that are compared.
    case ksmMerge
    /// Kernel memory is mapped, and unmapped by the next such step; its page tables go with it.
    case kernelMemory
    // Today's kernels only.
    case madviseFree, deviceMigrate, deviceExclusive
    /// UFFDIO_WRITEPROTECT, and its end.
    case userfaultProtect
    /// fork, the OOM reaper on the child, its exit. Today's kernels only.
    case reap
    /// UFFDIO_MOVE of the mutator's own pages to the spare place and back. Today's kernels only.
    case userfaultMove
  }
  public var kind: Kind
  public var firstPage: UInt64
  public var pageCount: UInt64
}

/// How many steps of each kind a mutator does to one address space over `StormPlan.referenceAccesses`, and how large
/// they are.
public struct OperationMix: Codable, Equatable, Sendable {
  /// Ranges below the gather batch.
  public var smallDontNeeds = 200
  public var smallPages: ClosedRange<UInt64> = 1...8
  /// Ranges of several gather batches.
  public var largeDontNeeds = 88
  public var largeRemaps = 8
  public var largePages: ClosedRange<UInt64> = 32...64
  public var forks = 8
  public var forkPages: UInt64 = 4
  public var recycles = 24
  public var recyclePages: UInt64 = 16
  // What memory management does of its own accord; none in the usual mix.
  public var protects = 0
  public var moves = 0
  public var numaHints = 0
  public var softDirtyClears = 0
  public var youngClears = 0
  public var ksmProtects = 0
  public var migrations = 0
  public var reaps = 0
  public var userfaultMoves = 0
  public var reclaims = 0
  public var files = 0
  public var hugePages = 0
  public var hugetlbs = 0
  public var ksmMerges = 0
  public var kernelMappings = 0
  public var lazyFrees = 0
  public var deviceMigrations = 0
  public var deviceExclusives = 0
  public var userfaultProtects = 0
  public init() {}

  /// Every operation that a kernel has.
  public static var all: OperationMix {
    var mix = OperationMix()
    mix.protects = 16
    mix.moves = 8
    mix.numaHints = 24
    mix.softDirtyClears = 8
    mix.youngClears = 16
    mix.ksmProtects = 16
    mix.migrations = 48
    mix.reaps = 4
    mix.userfaultMoves = 8
    mix.reclaims = 24
    mix.files = 4
    mix.hugePages = 4
    mix.hugetlbs = 4
    mix.ksmMerges = 8
    mix.kernelMappings = 32
    mix.lazyFrees = 12
    mix.deviceMigrations = 16
    mix.deviceExclusives = 16
    mix.userfaultProtects = 8
    return mix
  }

  /// The same mix for a list of accesses of another length.
  func scaled(_ accesses: UInt64, over reference: UInt64, isKernelOfNow: Bool) -> OperationMix {
    func scale(_ count: Int, atLeast least: Int = 1) -> Int {
      max(least, Int((Double(count) * Double(accesses) / Double(reference)).rounded(.up)))
    }
    var mix = self
    mix.smallDontNeeds = scale(smallDontNeeds)
    mix.largeDontNeeds = scale(largeDontNeeds)
    mix.largeRemaps = scale(largeRemaps)
    mix.forks = scale(forks)
    mix.recycles = scale(recycles, atLeast: 2)
    for path in Self.more where mix[keyPath: path] > 0 { mix[keyPath: path] = scale(mix[keyPath: path]) }
    if !isKernelOfNow { for path in Self.ofNow { mix[keyPath: path] = 0 } }
    return mix
  }

  private static var more: [WritableKeyPath<OperationMix, Int>] {
    [
      \.protects, \.moves, \.numaHints, \.softDirtyClears, \.youngClears, \.ksmProtects, \.migrations, \.reclaims,
      \.files, \.hugePages, \.hugetlbs, \.ksmMerges, \.kernelMappings,
    ] + ofNow
  }

  private static var ofNow: [WritableKeyPath<OperationMix, Int>] {
    [\.reaps, \.userfaultMoves, \.lazyFrees, \.deviceMigrations, \.deviceExclusives, \.userfaultProtects]
  }
}

/// The steps for one address space, by seed alone.
public struct OperationList: Codable, Equatable, Sendable {
  public var steps: [MutatorStep]

  /// `shared`: the range that devices use; `own`: the mutator's pages.
  public init(seed: UInt64, mix: OperationMix, shared: DeviceSpec.Target, own: DeviceSpec.Target) {
    var generator = StreamGenerator(seed: seed)
    func range(_ pages: ClosedRange<UInt64>) -> (UInt64, UInt64) {
      let wanted = pages.lowerBound + generator.next(below: pages.upperBound - pages.lowerBound + 1)
      let count = min(wanted, shared.pageCount)
      return (shared.firstPage + generator.next(below: shared.pageCount - count + 1), count)
    }
    var steps: [MutatorStep] = []
    func add(_ kind: MutatorStep.Kind, _ count: Int, _ pages: ClosedRange<UInt64>) {
      for _ in 0..<count {
        let (first, pageCount) = range(pages)
        steps.append(MutatorStep(kind: kind, firstPage: first, pageCount: pageCount))
      }
    }
    add(.dontNeed, mix.smallDontNeeds, mix.smallPages)
    add(.dontNeed, mix.largeDontNeeds, mix.largePages)
    add(.remap, mix.largeRemaps, mix.largePages)
    add(.forkAndWrite, mix.forks, mix.forkPages...mix.forkPages)
    add(.protect, mix.protects, mix.smallPages)
    add(.move, mix.moves, mix.largePages)
    add(.numaHint, mix.numaHints, mix.largePages)
    add(.clearSoftDirty, mix.softDirtyClears, mix.smallPages)
    add(.clearYoung, mix.youngClears, mix.largePages)
    add(.ksmWriteProtect, mix.ksmProtects, mix.smallPages)
    add(.migrate, mix.migrations, mix.smallPages)
    add(.reap, mix.reaps, mix.smallPages)
    add(.reclaim, mix.reclaims, mix.smallPages)
    add(.file, mix.files, mix.smallPages)
    add(.hugePages, mix.hugePages, mix.smallPages)
    add(.hugetlb, mix.hugetlbs, mix.smallPages)
    add(.ksmMerge, mix.ksmMerges, mix.smallPages)
    add(.kernelMemory, mix.kernelMappings, mix.smallPages)
    add(.madviseFree, mix.lazyFrees, mix.smallPages)
    add(.deviceMigrate, mix.deviceMigrations, mix.smallPages)
    add(.deviceExclusive, mix.deviceExclusives, mix.smallPages)
    add(.userfaultProtect, mix.userfaultProtects, mix.smallPages)
    // The mutator's own pages go the same ways, so that their data can be verified.
    func addOwn(_ kind: MutatorStep.Kind, _ count: Int) {
      for _ in 0..<count {
        steps.append(MutatorStep(kind: kind, firstPage: own.firstPage, pageCount: min(mix.recyclePages, own.pageCount)))
      }
    }
    addOwn(.move, mix.moves / 2)
    addOwn(.migrate, mix.migrations / 4)
    addOwn(.userfaultMove, mix.userfaultMoves)
    addOwn(.reclaim, mix.reclaims / 4)
    addOwn(.deviceMigrate, mix.deviceMigrations / 4)
    addOwn(.deviceExclusive, mix.deviceExclusives / 4)
    for index in 0..<mix.recycles {
      let kind: MutatorStep.Kind = index % 2 == 0 ? .recycle : .verify
      steps.append(
        MutatorStep(kind: kind, firstPage: own.firstPage, pageCount: min(mix.recyclePages, own.pageCount)))
    }
    for index in stride(from: steps.count - 1, to: 0, by: -1) {
      steps.swapAt(index, Int(generator.next(below: UInt64(index + 1))))
    }
    steps.append(MutatorStep(kind: .verify, firstPage: own.firstPage, pageCount: min(mix.recyclePages, own.pageCount)))
    self.steps = steps
  }

  public func hash(into hash: inout StreamHash) {
    for step in steps {
      hash.combine(UInt64(MutatorStep.Kind.allCases.firstIndex(of: step.kind)!))
      hash.combine(step.firstPage)
      hash.combine(step.pageCount)
    }
  }
}
