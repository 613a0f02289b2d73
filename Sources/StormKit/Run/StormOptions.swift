// SPDX-License-Identifier: Apache-2.0

/// What a storm needs besides its plan: where it runs and what is done with the result.
public struct StormOptions: Sendable {
  /// `HOST:PORT` of a service elsewhere; nil: the storm starts one and stops it.
  public var service: String?
  /// The program whose `serve`, `device` and `mutate` are started.
  public var program = "/proc/self/exe"
  /// nil: the measured round trip over 1 µs, the modelled PCIe round trip.
  public var dilation: Double?
  /// Holds to sweep, ns of machine time; empty: no sweep.
  public var holds: [UInt64] = []
  /// Folder for the machines' logs; nil: machines do not record.
  public var recordDirectory: String?
  public var expected = ExpectedVerdicts()
  public var thresholds: [Threshold] = []
  public init() {}
}
