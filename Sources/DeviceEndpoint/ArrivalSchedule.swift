// SPDX-License-Identifier: Apache-2.0

/// When accesses arrive. In the closed loop an access begins when an earlier one has ended. In the open loops accesses
/// arrive by the clock whether the device keeps up or not, and an access that had to wait is late from its intended
/// time on.
public enum ArrivalSchedule: Equatable, Sendable {
  case closedLoop
  /// One access every `interval` ns.
  case constant(interval: UInt64)
  /// Exponentially distributed gaps with mean `interval` ns.
  case poisson(interval: UInt64)
  /// `size` accesses at once, every `size` · `interval` ns.
  case burst(size: UInt64, interval: UInt64)
}

/// The intended times of a schedule, one at a time.
struct ArrivalClock: Sendable {
  let schedule: ArrivalSchedule
  /// Intended time of the next arrival; meaningless in the closed loop.
  private(set) var next: UInt64
  private var leftInBurst: UInt64
  private var generator: StreamGenerator

  init(_ schedule: ArrivalSchedule, start: UInt64, seed: UInt64) {
    self.schedule = schedule
    next = start
    generator = StreamGenerator(seed: seed)
    leftInBurst = 0
    if case .burst(let size, _) = schedule { leftInBurst = size }
  }

  var isClosedLoop: Bool { schedule == .closedLoop }

  /// Takes the arrival at `next` and moves on to the one after it.
  mutating func take() -> UInt64 {
    let taken = next
    switch schedule {
    case .closedLoop: break
    case .constant(let interval): next &+= interval
    case .poisson(let interval): next &+= generator.nextExponential(mean: interval)
    case .burst(let size, let interval):
      leftInBurst -= 1
      if leftInBurst == 0 {
        leftInBurst = size
        next &+= size &* interval
      }
    }
    return taken
  }
}
