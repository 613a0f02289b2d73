// SPDX-License-Identifier: Apache-2.0
import Glibc
import HTTP2Session

// From body bytes to messages.
extension RPCClient {
  func hold(_ slot: UInt32, _ range: HTTP2Range) {
    let bytes = range.of(context.storage)
    guard !bytes.isEmpty else { return }
    let index = Int(slot)
    let total = calls[index].inputCount + bytes.count
    if total > calls[index].inputCapacity {
      let grown = context.allocate(max(total, calls[index].inputCapacity * 2))
      if let old = calls[index].input { memcpy(grown.baseAddress!, old, calls[index].inputCount) }
      context.deallocate(calls[index].input)
      calls[index].input = grown.baseAddress
      calls[index].inputCapacity = grown.count
    }
    memcpy(calls[index].input! + calls[index].inputCount, bytes.baseAddress!, bytes.count)
    calls[index].inputCount = total
  }

  /// Takes whole envelopes out of new bytes; what is incomplete waits.
  func envelopes(_ slot: UInt32, _ range: HTTP2Range) {
    let index = Int(slot)
    let stream = calls[index].stream
    var offset = Int(range.offset)
    let end = offset + Int(range.count)
    while offset < end, isLive(slot, stream) {
      let rest = UnsafeRawBufferPointer(rebasing: context.storage[offset..<end])
      if calls[index].inputCount == 0 {
        guard rest.count >= 5 else { return hold(slot, HTTP2Range(offset: offset, count: rest.count)) }
        guard let length = length(slot, rest) else { return }
        guard rest.count - 5 >= length else {
          return hold(slot, HTTP2Range(offset: offset, count: rest.count))
        }
        envelope(slot, rest[0], HTTP2Range(offset: offset + 5, count: length))
        offset += 5 + length
        continue
      }
      let held = calls[index].held
      var wanted = 5 - held.count
      if held.count >= 5 {
        guard let length = length(slot, held) else { return }
        wanted = 5 + length - held.count
      }
      let taken = min(wanted, rest.count)
      hold(slot, HTTP2Range(offset: offset, count: taken))
      offset += taken
      let grown = calls[index].held
      guard grown.count >= 5 else { return }
      guard let length = length(slot, grown) else { return }
      if grown.count == 5 + length {
        let flags = grown[0]
        let whole = context.append(grown)
        calls[index].inputCount = 0
        envelope(slot, flags, HTTP2Range(offset: Int(whole.offset) + 5, count: length))
      }
    }
  }

  /// The message length in an envelope's header; nil ends the call, for the server is not to be believed.
  private func length(_ slot: UInt32, _ header: UnsafeRawBufferPointer) -> Int? {
    let length = Int(UInt32(bigEndian: header.loadUnaligned(fromByteOffset: 1, as: UInt32.self)))
    if length <= RPCClient.largestMessage { return length }
    let stream = calls[Int(slot)].stream!
    emit(.failed, slot, code: .protocolError)
    session.reset(stream, .cancel)
    forget(slot)
    return nil
  }

  private func envelope(_ slot: UInt32, _ flags: UInt8, _ range: HTTP2Range) {
    if flags & 2 == 0 { return emit(.message, slot, range) }
    // EndStreamResponse: `{}` or `{"error":…}`, Connect protocol "Streaming-Response".
    let failed = RPCFailure(json: range.of(context.storage)) != nil
    emit(failed ? .failed : .ended, slot, range)
    forget(slot)
  }

  static func failureWithoutBody(_ status: UInt16, _ code: HTTP2ErrorCode, _ loss: String?) -> RPCFailure {
    if let loss { return RPCFailure(code: "unavailable", reason: "CONNECTION_LOST", message: loss) }
    if status != 0, status != 200 {
      return RPCFailure(code: "unknown", reason: "HTTP_STATUS", message: "HTTP status \(status)")
    }
    // gRPC's and Connect's mapping of HTTP/2 error codes, as far as a lab's server uses them.
    let name = code == .enhanceYourCalm ? "resource_exhausted" : "unavailable"
    return RPCFailure(code: name, reason: "STREAM_RESET", message: "HTTP/2 error code \(code.rawValue)")
  }
}
