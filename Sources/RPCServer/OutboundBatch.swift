// SPDX-License-Identifier: Apache-2.0

/// Replies to calls of one loop, made on another thread: one arena of bytes and records of ranges within it.
///
/// Take it with `RPCLoop.takeBatch`, fill it on one thread, give it to `RPCLoop.post` of the same loop and forget it: after
/// that it belongs to the loop, which applies it in one pass and puts it back into its pool. `@unchecked Sendable` rests on
/// that hand-over.
public final class OutboundBatch: RPCWork, @unchecked Sendable {
  private enum Action {
    case send, open, finish, fail
  }

  private struct Record {
    var call: CallID
    var action: Action
    var offset: Int
    var count: Int
  }

  private var records: [Record] = []
  private var bytes: [UInt8] = []
  private var errors: [RPCError] = []

  init() {}

  public var isEmpty: Bool { records.isEmpty }

  /// As `RPCLoop.send`; for a unary call it is the answer.
  public func send(_ call: CallID, _ message: UnsafeRawBufferPointer) {
    records.append(Record(call: call, action: .send, offset: bytes.count, count: message.count))
    bytes.append(contentsOf: message)
  }

  /// As `RPCLoop.open`.
  public func open(_ call: CallID) { records.append(Record(call: call, action: .open, offset: 0, count: 0)) }

  /// As `RPCLoop.finish`.
  public func finish(_ call: CallID) { records.append(Record(call: call, action: .finish, offset: 0, count: 0)) }

  /// As `RPCLoop.fail`.
  public func fail(_ call: CallID, _ error: RPCError) {
    records.append(Record(call: call, action: .fail, offset: errors.count, count: 0))
    errors.append(error)
  }

  /// Called by the loop. Replies to calls that are over are dropped.
  public func run(on loop: RPCLoop, now: UInt64) {
    bytes.withUnsafeBytes { arena in
      for record in records {
        switch record.action {
        case .send:
          let message = UnsafeRawBufferPointer(rebasing: arena[record.offset..<record.offset + record.count])
          loop.send(record.call, message)
        case .open: loop.open(record.call)
        case .finish: loop.finish(record.call)
        case .fail: loop.fail(record.call, errors[record.offset])
        }
      }
    }
    records.removeAll(keepingCapacity: records.capacity <= 4096)
    bytes.removeAll(keepingCapacity: bytes.capacity <= 1 << 20)
    errors.removeAll()
    loop.putBatch(self)
  }
}
