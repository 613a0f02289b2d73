// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer

/// A device as the service sees it: its stream or its lease, the events that wait for it, and the unary calls that wait
/// for its answers. Belongs to its machine's loop.
final class DevicePort {
  let id: DeviceID
  /// The id's text.
  let text: String
  let epoch: UInt32

  struct Stream {
    var call: CallID
    var codec: RPCCodec
    var takesMessages: Bool
    var lastSentAt: UInt64
  }
  /// Its `Attach` or `Watch`.
  var stream: Stream?
  /// Messages that came on the stream.
  var messageCount: UInt64 = 0

  /// Events that have not left. They are numbered up to `seq`.
  var outbox: [Wire.DeviceEvent] = []
  /// The texts of the refusals among them, in order.
  var refusals: [String] = []
  /// Number of the last event.
  var seq: UInt64 = 0
  /// Events were lost before the first stream.
  var historyCut = false

  let lease: UInt64
  /// When presence ends without a stream and without a call; service's clock.
  var leaseEnds: UInt64

  /// Unary DMAs by the tag that the service gave them, with the caller's own tag.
  var dmaCalls: [UInt32: (caller: Caller, tag: UInt32)] = [:]
  var lastTag = greatestDeviceTag
  /// Unary page requests by group index.
  var pagesCalls: [UInt16: PagesCall] = [:]

  var isTouched = false
  var isGone = false

  init(_ id: DeviceID, epoch: UInt32, lease: UInt64, now: UInt64) {
    self.id = id
    text = ObjectID.text(.device, UInt128(id.rawValue))
    self.epoch = epoch
    self.lease = lease
    leaseEnds = now &+ lease
  }

  /// Adds an event. Without a stream only the newest `limit` are kept.
  @inline(__always)
  func push(_ event: Wire.DeviceEvent, limit: Int) {
    outbox.append(event)
    seq += 1
    if stream == nil, outbox.count >= 2 * limit { trim(limit) }
  }

  func trim(_ limit: Int) {
    guard outbox.count > limit else { return }
    let dropped = outbox[..<(outbox.count - limit)]
    let texts = dropped.reduce(0) { if case .refused = $1 { $0 + 1 } else { $0 } }
    refusals.removeFirst(texts)
    outbox.removeFirst(outbox.count - limit)
    historyCut = true
  }

  /// Calls that will never get their answers.
  func abandonCalls() -> [Caller] {
    var callers = dmaCalls.sorted { $0.key < $1.key }.map(\.value.caller)
    var seen: [PagesCall] = []
    for (_, call) in pagesCalls.sorted(by: { $0.key < $1.key }) where !seen.contains(where: { $0 === call }) {
      seen.append(call)
      callers.append(call.caller)
    }
    dmaCalls = [:]
    pagesCalls = [:]
    return callers
  }
}

/// A unary `RequestPages` that waits for its groups.
final class PagesCall {
  let caller: Caller
  var waitingFor = 0
  var responses: [Wire.PageResponse] = []
  var ignored: [Wire.IgnoredReason] = []
  init(_ caller: Caller) { self.caller = caller }
}
