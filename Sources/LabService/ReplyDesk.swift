// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCServer
import SwiftProtobuf

/// Takes replies of one loop's machines to their calls: directly when the call is of this loop, in one batch per pass
/// when it is of another.
struct ReplyDesk {
  private let loop: RPCLoop
  private let loops: [RPCLoop]
  private var batches: [OutboundBatch?]

  init(loop: RPCLoop, loops: [RPCLoop]) {
    self.loop = loop
    self.loops = loops
    batches = Array(repeating: nil, count: loops.count)
  }

  private mutating func batch(_ call: CallID) -> OutboundBatch {
    let index = call.loopIndex
    if let batch = batches[index] { return batch }
    let batch = loops[index].takeBatch()
    batches[index] = batch
    return batch
  }

  /// One message of a stream, or the answer of a unary call.
  @inline(__always)
  mutating func send(_ call: CallID, _ bytes: UnsafeRawBufferPointer) {
    if call.loopIndex == loop.index { loop.send(call, bytes) } else { batch(call).send(call, bytes) }
  }

  mutating func send(_ call: CallID, _ codec: RPCCodec, _ message: any Message) {
    let bytes = codec == .json ? LabCodec.json(message) : LabCodec.binary(message)
    bytes.withUnsafeBytes { send(call, $0) }
  }

  mutating func finish(_ call: CallID) {
    if call.loopIndex == loop.index { loop.finish(call) } else { batch(call).finish(call) }
  }

  mutating func fail(_ call: CallID, _ error: CallError) {
    if call.loopIndex == loop.index { loop.fail(call, error.rpc) } else { batch(call).fail(call, error.rpc) }
  }

  /// Sends what this pass has for other loops.
  mutating func flush() {
    for index in batches.indices {
      guard let batch = batches[index] else { continue }
      batches[index] = nil
      loops[index].post(batch)
    }
  }
}
