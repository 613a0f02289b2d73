// SPDX-License-Identifier: Apache-2.0

extension Machine {
  /// What is owed has somebody who waits for it, and what is open will be closed.
  func checkSubscribers() {
    for id in subscribers.ids {
      let subscriber = subscribers[id]
      check(!subscriber.isLost || subscriber.owed.isEmpty, "a lost subscriber owes nothing")
      check(subscriber.pages.sorted.count <= subscriber.pages.limit, "the account of a mirror is bounded")
      for owed in subscriber.owed {
        let operation = owed.event.operation
        check(
          kind(operation) != nil && operations[operation.slot]!.owed > 0, "an owed answer has an operation that waits")
        check(operations[operation.slot]!.telling != .nothing, "an operation that waits for answers is telling")
      }
      for window in subscriber.windows {
        check(
          kind(window.operation) != nil && operations[window.operation.slot]!.isWindowOpen,
          "the window of a subscriber is a running operation's")
      }
      if spaces.contains(subscriber.space) {
        check(spaces[subscriber.space].notifier.subscribers.contains(id), "an address space knows its subscribers")
      }
    }
    for id in spaces.ids {
      let notifier = spaces[id].notifier
      let open = spaces[id].operations.count { operations[$0.slot]!.isWindowOpen }
      check(notifier.openWindows == open, "\(notifier.openWindows) windows are counted, \(open) are open")
      check(!notifier.isInvalidating || open > 0, "the sequence is odd only inside a window")
      check(notifier.readers.isEmpty || notifier.isInvalidating, "a reader sleeps only while an invalidation runs")
      for subscriber in notifier.subscribers {
        check(
          subscribers.contains(subscriber) && subscribers[subscriber].space == id,
          "a subscriber knows its address space")
      }
    }
    for case let operation? in operations where !operation.isWindowOpen && operation.telling == .nothing {
      check(
        operation.awaitEnd.isEmpty && operation.awaitFinish.isEmpty, "nobody waits for the end of what is over")
    }
  }
}
