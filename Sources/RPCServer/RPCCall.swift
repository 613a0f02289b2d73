// SPDX-License-Identifier: Apache-2.0
import HTTP2Session

/// A live call: a plain struct in a slot of its loop's table.
struct RPCCall {
  var slot: UInt32 = 0
  var generation: UInt32 = 0
  var method: UInt16 = 0
  var kind = RPCMethod.Kind.unary
  var codec = RPCCodec.json
  var framing = RPCFraming.unary

  /// The handler has seen an event of this call.
  var isShown = false
  /// The response head is submitted.
  var isOpen = false
  var hasDeadline = false
  /// The client's window is not given back until `resume`.
  var isPaused = false

  var stream: HTTP2StreamHandle! = nil
  var connection: Unmanaged<RPCConnection>! = nil

  /// Bytes of an incomplete message, in a block of the loop's allocator.
  var input: UnsafeMutableRawPointer?
  var inputCount = 0
  var inputCapacity = 0
  /// Time of the last piece of an incomplete message.
  var inputAt: UInt64 = 0

  /// Neighbours in the connection's list of calls; `RPCCall.none` ends it.
  var previous = RPCCall.none
  var next = RPCCall.none

  static let none = UInt32.max

  /// The handler gets the request as one event at its end.
  @inline(__always) var collectsWholeRequest: Bool { kind == .unary || kind == .serverStream }
  @inline(__always) var isLive: Bool { stream != nil }
}

/// The calls of one loop. Slots do not move, so a pointer is valid while the call lives; generations outlive it.
struct CallTable {
  private static let chunk = 256
  private var chunks: [UnsafeMutablePointer<RPCCall>] = []
  private var free = RPCCall.none
  private(set) var count = 0

  @inline(__always)
  subscript(slot: UInt32) -> UnsafeMutablePointer<RPCCall> {
    chunks[Int(slot >> 8)] + Int(slot & 255)
  }

  /// The call, or nil when it is over.
  @inline(__always)
  func find(_ id: CallID) -> UnsafeMutablePointer<RPCCall>? {
    let slot = id.slot
    guard Int(slot >> 8) < chunks.count else { return nil }
    let call = self[slot]
    return call.pointee.generation == id.generation && call.pointee.isLive ? call : nil
  }

  @inline(__always)
  mutating func take() -> UnsafeMutablePointer<RPCCall> {
    if free == RPCCall.none { grow() }
    let call = self[free]
    free = call.pointee.next
    let slot = call.pointee.slot
    let generation = call.pointee.generation
    call.pointee = RPCCall(slot: slot, generation: generation)
    count += 1
    return call
  }

  @inline(__always)
  mutating func put(_ call: UnsafeMutablePointer<RPCCall>) {
    call.pointee.stream = nil
    call.pointee.generation &+= 1
    call.pointee.next = free
    free = call.pointee.slot
    count -= 1
  }

  @inline(never)
  private mutating func grow() {
    let base = UInt32(chunks.count * CallTable.chunk)
    precondition(base < 0xFF_FF00, "too many calls on one loop")
    let calls = UnsafeMutablePointer<RPCCall>.allocate(capacity: CallTable.chunk)
    for index in (0..<CallTable.chunk).reversed() {
      (calls + index).initialize(to: RPCCall(slot: base + UInt32(index), next: free))
      free = base + UInt32(index)
    }
    chunks.append(calls)
  }
}

extension RPCCall {
  fileprivate init(slot: UInt32, generation: UInt32 = 1, next: UInt32 = RPCCall.none) {
    self.slot = slot
    self.generation = generation
    self.next = next
  }
}
