// SPDX-License-Identifier: Apache-2.0
import HTTP2Session
import NIOCore

/// One connection: the channel handler that feeds its session in `channelRead` and lets the loop act and flush in
/// `channelReadComplete`. All state is the loop's.
final class RPCConnection: ChannelDuplexHandler {
  typealias InboundIn = ByteBuffer
  typealias OutboundIn = ByteBuffer
  typealias OutboundOut = ByteBuffer

  private enum State {
    /// Comparing the first bytes with the connection preface.
    case sniffing
    case http2
    /// The last bytes are written; what still comes is dropped until the peer closes.
    case lingering
    case closed
  }

  let session: HTTP2Session
  unowned let loop: RPCLoop
  private var channel: ChannelHandlerContext?
  private var state = State.sniffing
  private var prefaceCount = 0
  private let bornAt: UInt64
  private var headerBlockSince: UInt64 = 0
  private var lingersSince: UInt64 = 0
  private var isWritable = true
  private var holdsRead = false
  private var hasFed = false
  private var isDraining = false
  private var reason: RPCEnd?

  /// Place in the loop's list; -1 when it is not there.
  var index = -1
  var isTouched = false
  var inputBytes = 0
  /// The list of its calls; the loop links and unlinks them.
  var firstCall = RPCCall.none

  /// Output is taken from the session in pieces of about this many bytes.
  private static let pieceBytes = 128 << 10
  private static let lingerTime: UInt64 = 1_000_000_000

  init(_ loop: RPCLoop) {
    self.loop = loop
    loop.readClock()
    bornAt = loop.now
    session = HTTP2Session(loop.http, now: loop.now)
  }

  // MARK: - Channel

  func handlerAdded(context: ChannelHandlerContext) {
    channel = context
    if !loop.add(self) { context.close(promise: nil) }
  }

  func handlerRemoved(context: ChannelHandlerContext) { lost() }

  func channelInactive(context: ChannelHandlerContext) {
    lost()
    context.fireChannelInactive()
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    let buffer = unwrapInboundIn(data)
    switch state {
    case .http2:
      buffer.withUnsafeReadableBytes { feed($0) }
    case .sniffing:
      buffer.withUnsafeReadableBytes { sniff($0) }
    case .lingering, .closed: break
    }
  }

  func channelReadComplete(context: ChannelHandlerContext) {
    guard hasFed else { return }
    hasFed = false
    loop.readCompleted(self)
    if session.isInsideHeaderBlock {
      if headerBlockSince == 0 { headerBlockSince = loop.now }
    } else {
      headerBlockSince = 0
    }
  }

  /// While our own output does not leave, nothing is read: only so do the limits on queued acknowledgements count.
  func read(context: ChannelHandlerContext) {
    if isWritable || state != .http2 {
      context.read()
    } else {
      holdsRead = true
    }
  }

  func channelWritabilityChanged(context: ChannelHandlerContext) {
    isWritable = context.channel.isWritable
    if isWritable, state == .http2 {
      loop.readClock()
      loop.touch(self)
      loop.settle()
    }
    if isWritable, holdsRead {
      holdsRead = false
      context.read()
    }
  }

  // MARK: - In

  private static let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)

  /// Compares with the connection preface, RFC 9113 §3.4.
  private func sniff(_ bytes: UnsafeRawBufferPointer) {
    let preface = RPCConnection.preface
    var index = 0
    while index < bytes.count, prefaceCount < preface.count {
      guard bytes[index] == preface[prefaceCount] else { return refuseHTTP1() }
      index += 1
      prefaceCount += 1
    }
    guard prefaceCount == preface.count else { return }
    state = .http2
    preface.withUnsafeBytes { feed($0) }
    if index < bytes.count { feed(UnsafeRawBufferPointer(rebasing: bytes[index...])) }
  }

  private func feed(_ bytes: UnsafeRawBufferPointer) {
    hasFed = true
    if !session.receive(bytes, now: loop.now), reason == nil { reason = .badRequest }
  }

  private func refuseHTTP1() {
    let body =
      "iommulab speaks HTTP/2 without an upgrade: with curl, add --http2-prior-knowledge to the same command.\n"
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    var buffer = ByteBuffer(string: head + "content-length: \(body.utf8.count)\r\n\r\n" + body)
    write(&buffer)
    linger()
  }

  // MARK: - Out

  /// Takes output from the session while the channel takes it.
  func flush() {
    guard state == .http2 else { return }
    var alive = true
    while isWritable, alive, state == .http2 {
      let drained = session.drain(limit: RPCConnection.pieceBytes, now: loop.now)
      alive = drained.alive
      if drained.bytes.isEmpty { break }
      loop.writeBuffer.clear()
      loop.writeBuffer.writeBytes(drained.bytes)
      write(&loop.writeBuffer)
    }
    if !loop.http.events.isEmpty { loop.collect(self) }
    session.endBatch()
    guard state == .http2 else { return }
    if reason != nil || !alive || session.isDone { linger() }
  }

  private func write(_ buffer: inout ByteBuffer) {
    channel?.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
  }

  // MARK: - Ending

  /// First step of the drain: GOAWAY without a last stream, and a PING (RFC 9113 §6.8).
  func drain() {
    guard !isDraining else { return }
    isDraining = true
    if state == .sniffing { return linger() }
    session.announceShutdown()
    loop.touch(self)
  }

  /// The peer has seen the announcement; what it sent before is here.
  func pingAcknowledged() {
    guard isDraining else { return }
    session.goaway()
    loop.touch(self)
  }

  func end(_ code: HTTP2ErrorCode, _ text: String) {
    if state == .sniffing { return linger() }
    session.end(code, text)
    loop.touch(self)
  }

  /// Ends a connection that does not read: GOAWAY(ENHANCE_YOUR_CALM), as far as the socket takes it.
  func cut(_ end: RPCEnd) {
    guard reason == nil else { return }
    reason = end
    loop.logger.warning("connection cut", metadata: ["reason": "\(end)", "pendingBytes": "\(session.pendingOutput)"])
    endCalls(end)
    self.end(.enhanceYourCalm, "this client reads too slowly: \(session.pendingOutput) bytes wait")
  }

  /// Closes our side after what is written, and drops what still comes, so that the last frame is not lost to a reset.
  private func linger() {
    guard state != .closed, state != .lingering else { return }
    state = .lingering
    lingersSince = loop.now
    endCalls(reason ?? .connectionLost)
    if holdsRead {
      holdsRead = false
      channel?.read()
    }
    channel?.close(mode: .output, promise: nil)
  }

  private func lost() {
    guard state != .closed else { return }
    state = .closed
    channel = nil
    endCalls(reason ?? .connectionLost)
    loop.remove(self)
    loop.settle()
  }

  private func endCalls(_ end: RPCEnd) {
    while firstCall != RPCCall.none { loop.end(loop.calls[firstCall], end) }
  }

  // MARK: - Time

  func checkTimes() {
    let now = loop.now
    let limits = loop.limits
    switch state {
    case .sniffing:
      if now &- bornAt > limits.preface { channel?.close(promise: nil) }
    case .lingering:
      if now &- lingersSince > RPCConnection.lingerTime { channel?.close(promise: nil) }
    case .http2:
      if headerBlockSince != 0, now &- headerBlockSince > limits.headerBlock {
        reason = .badRequest
        end(.enhanceYourCalm, "a header block did not end in time")
      } else if session.pendingOutput > 0 || !isWritable, now &- session.progressAt > limits.writeStall {
        cut(.writeStall)
      } else {
        checkCalls(now, limits)
      }
    case .closed: break
    }
  }

  private func checkCalls(_ now: UInt64, _ limits: RPCLimits) {
    var slot = firstCall
    while slot != RPCCall.none {
      let call = loop.calls[slot]
      slot = call.pointee.next
      let stream = call.pointee.stream!
      let waits = call.pointee.inputCount > 0 || (call.pointee.collectsWholeRequest && !stream.pointee.remoteEnded)
      if waits, now &- call.pointee.inputAt > limits.body {
        let text = "the request's body did not come in time"
        loop.failCall(call, RPCError(.deadlineExceeded, "BODY_TIMEOUT", text))
      } else if stream.pointee.pendingOutput > 0, now &- stream.pointee.progressAt > limits.writeStall {
        loop.cut(self, stream, .writeStall)
      }
    }
  }
}
