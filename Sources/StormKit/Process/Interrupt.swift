// SPDX-License-Identifier: Apache-2.0
import Foundation
import Synchronization

/// Whether the user has asked the storm to stop (SIGINT, SIGTERM). The second signal ends the process at once.
enum Interrupt {
  private static let count = Atomic<Int>(0)

  /// Handles the signals from now on.
  static func install() {
    _ = count.load(ordering: .relaxed)
    for number in [SIGINT, SIGTERM] {
      var action = sigaction()
      action.__sigaction_handler.sa_handler = { _ in
        if Interrupt.count.wrappingAdd(1, ordering: .relaxed).newValue > 1 { _exit(StormExit.interrupted) }
      }
      sigaction(number, &action, nil)
    }
    signal(SIGPIPE, SIG_IGN)
  }

  static var hasHappened: Bool { count.load(ordering: .relaxed) > 0 }
}
