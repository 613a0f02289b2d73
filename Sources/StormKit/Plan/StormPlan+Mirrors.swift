// SPDX-License-Identifier: Apache-2.0
import DeviceEndpoint
import MirrorEndpoint

/// Mirrors in a storm: of each kind that the plan names one process, with a mirror of every address space.
extension StormPlan {
  /// The kinds of mirrors that a kernel has.
  public static func mirrorKinds(isKernelOfNow: Bool) -> [String] {
    MirrorKind.allCases.filter { isKernelOfNow || !$0.isInterval }.map(\.rawValue)
  }

  /// Accesses of each mirror: a call each, and three for a fault, where devices send batches.
  public var accessesPerMirror: UInt64 { mirrors.isEmpty ? 0 : max(16, accessesPerDevice / 8) }

  private static let mostMirrors = 64

  /// Pages of each of the mutator's other places that a mirror has in its table, beside the pages that devices use.
  private static let mirroredPages: UInt64 = 16

  /// Where mutators and devices meet mirrors: the mutator's own pages are nobody else's, so that it can verify them.
  private var mirrorRuns: [MirrorProcessConfiguration.Run] {
    var runs = [
      MirrorProcessConfiguration.Run(firstPage: Self.spareFirstPage, pageCount: Self.mirroredPages),
      MirrorProcessConfiguration.Run(firstPage: Self.sharedFirstPage, pageCount: sharedPages),
    ]
    if mix.hugetlbs > 0 {
      runs.append(MirrorProcessConfiguration.Run(firstPage: Self.hugetlbFirstPage, pageCount: Self.mirroredPages))
    }
    return runs
  }

  var complaintOfMirrors: String? {
    let kinds = Self.mirrorKinds(isKernelOfNow: true).joined(separator: ", ")
    for kind in mirrors where MirrorKind(rawValue: kind) == nil {
      return "--mirrors '\(kind)': all, or some of \(kinds)"
    }
    if mirrors.count > Self.mostMirrors { return "--mirrors: at most \(Self.mostMirrors) processes" }
    let kindsOfThen = Self.mirrorKinds(isKernelOfNow: isKernelOfNow)
    for kind in mirrors where !kindsOfThen.contains(kind) {
      return "--mirrors \(kind): the kernels of 2014 have no interval notifiers; take --kernel now, or "
        + "--mirrors \(kindsOfThen.joined(separator: ","))"
    }
    return nil
  }

  /// What mirror process `index` is called. A kind may stand in the plan more than once.
  func mirrorName(_ index: Int) -> String {
    let earlier = mirrors[..<index].count { $0 == mirrors[index] }
    return "mirror \(mirrors[index])" + (earlier > 0 ? " \(earlier + 1)" : "")
  }

  private func mirrorSeed(_ index: Int, _ addressSpace: Int) -> UInt64 {
    derivedSeed(.mirror, index * addressSpaces + addressSpace)
  }

  func mirror(
    _ index: Int, service: String, _ machine: String, addressSpaces: [String]
  ) -> MirrorProcessConfiguration {
    MirrorProcessConfiguration(
      service: service, machine: machine, kind: mirrors[index],
      mirrors: addressSpaces.enumerated().map {
        MirrorProcessConfiguration.Mirror(addressSpace: $1, seed: mirrorSeed(index, $0))
      },
      runs: mirrorRuns, accesses: accessesPerMirror)
  }

  func hashMirrors(into hash: inout StreamHash) {
    for (index, kind) in mirrors.enumerated() {
      hash.combine(UInt64(MirrorKind.allCases.firstIndex { $0.rawValue == kind } ?? 0))
      hash.combine(accessesPerMirror)
      for space in 0..<addressSpaces { hash.combine(mirrorSeed(index, space)) }
    }
  }
}
