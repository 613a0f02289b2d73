// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCServer

/// Events of one loop's calls for machines of another loop: one arena of bytes and records of ranges within it. Filled by
/// one shard in one pass, then handed over by `RPCLoop.post`; `@unchecked Sendable` rests on that hand-over.
final class ForwardBatch: RPCWork, @unchecked Sendable {
  enum Kind { case request, message, halfClosed, ended }

  private struct Record {
    var kind: Kind
    var call: CallID
    var method: LabMethod
    var codec: RPCCodec
    var end: RPCEnd
    var offset: Int
    var count: Int
  }

  private let target: Shard
  private var records: [Record] = []
  private var bytes: [UInt8] = []

  init(target: Shard) { self.target = target }

  func append(
    _ kind: Kind, _ call: CallID, _ method: LabMethod, _ codec: RPCCodec, end: RPCEnd = .none,
    _ message: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    records.append(
      Record(
        kind: kind, call: call, method: method, codec: codec, end: end, offset: bytes.count, count: message.count))
    bytes.append(contentsOf: message)
  }

  func run(on loop: RPCLoop, now: UInt64) {
    target.begin(now, forwarded: true)
    bytes.withUnsafeBytes { arena in
      for record in records {
        target.take(
          record.kind, record.call, record.method, record.codec, end: record.end,
          UnsafeRawBufferPointer(rebasing: arena[record.offset..<record.offset + record.count]))
      }
    }
    target.endPass()
  }
}

/// The owner of a stream's machine has ended the stream: its route is void.
final class RoutesEnded: RPCWork, @unchecked Sendable {
  private let target: Shard
  private let calls: [CallID]
  init(target: Shard, calls: [CallID]) {
    self.target = target
    self.calls = calls
  }
  func run(on loop: RPCLoop, now: UInt64) { for call in calls { target.routes[call] = nil } }
}
