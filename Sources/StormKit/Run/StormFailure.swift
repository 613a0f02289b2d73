// SPDX-License-Identifier: Apache-2.0

/// Why a storm could not be finished. What the oracle says of a finished storm is a result, not a failure.
public enum StormFailure: Error, CustomStringConvertible, Sendable {
  case usage(String)
  /// The service does not answer.
  case unreachable(String)
  /// A call failed, a process broke down, or the contract was broken.
  case broken(String)
  case interrupted

  public var description: String {
    switch self {
    case .usage(let text), .unreachable(let text), .broken(let text): text
    case .interrupted: "interrupted"
    }
  }

  public var exitCode: Int32 {
    switch self {
    case .usage: StormExit.usage
    case .unreachable: StormExit.unreachable
    case .broken: StormExit.failure
    case .interrupted: StormExit.interrupted
    }
  }
}
