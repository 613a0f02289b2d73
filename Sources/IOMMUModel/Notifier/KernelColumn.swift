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

  public static func named(_ name: String) -> KernelColumn? { allCases.first { $0.name == name } }
}
