// SPDX-License-Identifier: Apache-2.0
import CNghttp2

/// What all sessions of one thread share: callbacks, options, allocator, free stream slots, and the scratch of a batch.
///
/// A context belongs to one thread, and so do its sessions. It must outlive them. The scratch (`events`, `heads`,
/// `storage`, `output`) holds one session's batch at a time: feed one session, act on its events, call `endBatch`, then
/// turn to the next.
public final class HTTP2Context {
  public enum Role: Sendable { case server, client }

  public let role: Role
  public let limits: HTTP2Limits

  @usableFromInline let state: UnsafeMutablePointer<ContextState>
  let callbacks: OpaquePointer
  let options: OpaquePointer
  let nghttp2Memory: UnsafeMutablePointer<nghttp2_mem>

  public init(role: Role, limits: HTTP2Limits) {
    self.role = role
    self.limits = limits
    state = .allocate(capacity: 1)
    state.initialize(to: ContextState())
    let memory = UnsafeMutablePointer<HTTP2Memory>.allocate(capacity: 1)
    memory.initialize(to: HTTP2Memory())
    state.pointee.memory = memory
    nghttp2Memory = .allocate(capacity: 1)
    nghttp2Memory.initialize(to: HTTP2Memory.nghttp2(memory))
    callbacks = HTTP2Callbacks.make()
    options = HTTP2Context.makeOptions(limits)
  }

  deinit {
    nghttp2_session_callbacks_del(callbacks)
    nghttp2_option_del(options)
    while let stream = state.pointee.freeStreams {
      state.pointee.freeStreams = stream.pointee.next
      stream.deallocate()
    }
    state.pointee.memory.pointee.destroy()
    state.pointee.memory.deallocate()
    nghttp2Memory.deallocate()
    state.pointee.events.destroy()
    state.pointee.heads.destroy()
    state.pointee.storage.destroy()
    state.pointee.output.destroy()
    state.deallocate()
  }

  /// The events of the current batch.
  @inlinable public var events: UnsafeBufferPointer<HTTP2Event> { state.pointee.events.elements }

  /// The head that a `head` event names.
  @inlinable public func head(_ index: UInt32) -> HTTP2Head { state.pointee.heads[Int(index)] }

  /// The bytes that the ranges of events and heads point into. Valid until the next `append`, `receive` or `endBatch`.
  @inlinable public var storage: UnsafeRawBufferPointer { state.pointee.storage.bytes }

  /// Puts bytes of the owner into the batch's storage, for example a message that was put together from several frames.
  public func append(_ bytes: UnsafeRawBufferPointer) -> HTTP2Range {
    let range = HTTP2Range(offset: state.pointee.storage.count, count: bytes.count)
    if let base = bytes.baseAddress { state.pointee.storage.append(base, bytes.count) }
    return range
  }

  /// Streams of all the context's sessions that have not been released.
  public var liveStreams: Int { state.pointee.liveStreams }

  /// What the last `drain` produced; valid until the next one.
  public var output: UnsafeRawBufferPointer { state.pointee.output.bytes }

  /// A block from the thread's free lists, for buffers of the owner; give it back with `deallocate`.
  public func allocate(_ byteCount: Int) -> UnsafeMutableRawBufferPointer {
    guard let block = state.pointee.memory.pointee.allocate(max(byteCount, 1)) else {
      fatalError("out of memory: \(byteCount) bytes")
    }
    return UnsafeMutableRawBufferPointer(start: block, count: HTTP2Memory.capacity(of: block))
  }

  public func deallocate(_ block: UnsafeMutableRawPointer?) {
    state.pointee.memory.pointee.deallocate(block)
  }

  private static func makeOptions(_ limits: HTTP2Limits) -> OpaquePointer {
    var options: OpaquePointer?
    guard nghttp2_option_new(&options) == 0, let options else { fatalError("out of memory: nghttp2 options") }
    nghttp2_option_set_no_closed_streams(options, 1)
    nghttp2_option_set_no_auto_window_update(options, 1)
    nghttp2_option_set_max_outbound_ack(options, limits.outboundAcknowledgements)
    nghttp2_option_set_max_settings(options, limits.settingsEntries)
    nghttp2_option_set_max_continuations(options, limits.continuations)
    nghttp2_option_set_stream_reset_rate_limit(options, limits.peerResets.burst, limits.peerResets.perSecond)
    return options
  }
}

/// The context's state behind one pointer, so that callbacks touch neither reference counts nor exclusivity checks.
@usableFromInline
struct ContextState {
  var memory: UnsafeMutablePointer<HTTP2Memory>! = nil
  @usableFromInline var events = EventList<HTTP2Event>(capacity: 256)
  @usableFromInline var heads = EventList<HTTP2Head>(capacity: 128)
  @usableFromInline var storage = ByteStorage(capacity: 64 << 10)
  var output = ByteStorage(capacity: 64 << 10)
  var freeStreams: HTTP2StreamHandle?
  var liveStreams = 0

  mutating func takeStream(id: Int32) -> HTTP2StreamHandle {
    let stream: HTTP2StreamHandle
    if let free = freeStreams {
      freeStreams = free.pointee.next
      stream = free
    } else {
      stream = .allocate(capacity: 1)
    }
    liveStreams += 1
    stream.initialize(to: HTTP2Stream(id: id))
    return stream
  }

  mutating func putStream(_ stream: HTTP2StreamHandle) {
    liveStreams -= 1
    stream.pointee.output.removeAll(memory)
    if let headers = stream.pointee.headers {
      stream.pointee.headers = nil
      headers.release()
    }
    stream.pointee.next = freeStreams
    freeStreams = stream
  }
}

extension HTTP2Stream {
  fileprivate init(id: Int32) { self.id = id }
}
