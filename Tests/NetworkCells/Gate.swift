// SPDX-License-Identifier: Apache-2.0
import LabProtocol

/// A notifier subscriber that lets an operation wait at E, so that something else can happen between its change of
/// entries and its end; and the trace, which says that it has changed them.
final class Gate {
  private let calls: Calls
  private let machine: String
  private let subscriber: String
  private var unanswered: [LabNotifierCall] = []
  private var changed: Set<String> = []
  /// E is answered like everything else.
  var isOpen = false

  init(_ scene: Scene, _ calls: Calls) throws {
    self.calls = calls
    machine = scene.machine
    let subscribed = try calls.call(
      .subscribe,
      ["machine": machine, "addressSpace": scene.space, "kind": "SUBSCRIBER_KIND_KVM_LIKE"])
    subscriber = subscribed.text("subscriber")
    try calls.follow(.watchSubscriber, ["machine": machine, "subscriber": subscriber]) { [unowned self] bytes in
      for event in try LabCodec.decode(LabNotifierServiceWatchResponse.self, json: bytes).events
      where event.call.number > 0 { unanswered.append(event.call) }
    }
    try calls.follow(.watchTrace, ["machine": machine]) { [unowned self] bytes in
      for event in try LabCodec.decode(LabTraceServiceWatchResponse.self, json: bytes).events
      where event.step.letter == .entries { changed.insert(event.step.operation) }
    }
  }

  func hasChanged(_ operation: String) -> Bool { changed.contains(operation) }

  /// Answers what may go on.
  func answer() throws {
    let ready = unanswered.filter { isOpen || $0.hook != .end || !hasChanged($0.operation) }
    guard !ready.isEmpty else { return }
    unanswered.removeAll { call in ready.contains { $0.number == call.number } }
    try calls.call(
      .answerEvents,
      ["machine": machine, "subscriber": subscriber, "answers": ready.map { ["number": String($0.number)] }])
  }

  func close() { calls.endStreams() }
}
