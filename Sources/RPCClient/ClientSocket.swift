// SPDX-License-Identifier: Apache-2.0

import Glibc

/// A connected, non-blocking stream socket.
struct ClientSocket {
  let descriptor: Int32

  enum Outcome {
    case count(Int)
    case wouldBlock
    case ended
    case failed(Int32)
  }

  /// Connects, waiting until `deadline` (CLOCK_MONOTONIC, nanoseconds) at most.
  init(_ endpoint: RPCEndpoint, deadline: UInt64) throws(RPCClientError) {
    switch endpoint {
    case .unix(let path): descriptor = try ClientSocket.connectUnix(path, endpoint, deadline)
    case .tcp(let host, let port): descriptor = try ClientSocket.connectTCP(host, port, endpoint, deadline)
    }
  }

  private static func connectUnix(
    _ path: String, _ endpoint: RPCEndpoint, _ deadline: UInt64
  ) throws(RPCClientError) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let length = socklen_t(MemoryLayout<sockaddr_un>.size)
    return try withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        Result { () throws(RPCClientError) in try connect(AF_UNIX, address, length, endpoint, deadline) }
      }
    }.get()
  }

  private static func connectTCP(
    _ host: String, _ port: UInt16, _ endpoint: RPCEndpoint, _ deadline: UInt64
  ) throws(RPCClientError) -> Int32 {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    guard getaddrinfo(host, String(port), &hints, &list) == 0, let first = list else { throw .unknownHost(host) }
    defer { freeaddrinfo(first) }
    var failure = RPCClientError.unknownHost(host)
    var next: UnsafeMutablePointer<addrinfo>? = first
    while let entry = next {
      do {
        let family = entry.pointee.ai_family
        let descriptor = try connect(family, entry.pointee.ai_addr, entry.pointee.ai_addrlen, endpoint, deadline)
        var yes: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
        return descriptor
      } catch {
        failure = error
      }
      next = entry.pointee.ai_next
    }
    throw failure
  }

  private static func connect(
    _ family: Int32, _ address: UnsafePointer<sockaddr>, _ length: socklen_t, _ endpoint: RPCEndpoint,
    _ deadline: UInt64
  ) throws(RPCClientError) -> Int32 {
    let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let descriptor = socket(family, type, 0)
    guard descriptor >= 0 else { throw .unreachable(endpoint, errno: errno) }
    if Glibc.connect(descriptor, address, length) == 0 { return descriptor }
    var number = errno
    if number == EINPROGRESS {
      guard ClientSocket(descriptor: descriptor).wait(forOutput: true, until: deadline) else {
        close(descriptor)
        throw .unreachable(endpoint, errno: ETIMEDOUT)
      }
      var size = socklen_t(MemoryLayout<Int32>.size)
      getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &number, &size)
      if number == 0 { return descriptor }
    }
    close(descriptor)
    throw .unreachable(endpoint, errno: number)
  }

  private init(descriptor: Int32) { self.descriptor = descriptor }

  func read(_ buffer: UnsafeMutableRawBufferPointer) -> Outcome {
    while true {
      let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
      if count > 0 { return .count(count) }
      if count == 0 { return .ended }
      if errno == EINTR { continue }
      return errno == EAGAIN ? .wouldBlock : .failed(errno)
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer) -> Outcome {
    while true {
      let count = Glibc.send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
      if count >= 0 { return .count(count) }
      if errno == EINTR { continue }
      return errno == EAGAIN ? .wouldBlock : .failed(errno)
    }
  }

  /// Waits until the socket has input (or, if asked, takes output) or the deadline has come; false is the deadline.
  ///
  /// poll(2) counts in milliseconds; short waits go to pselect(2), which counts in nanoseconds.
  func wait(forOutput: Bool, until deadline: UInt64) -> Bool {
    while true {
      let now = monotonicNow()
      let left = deadline > now ? deadline - now : 0
      let ready: Int32
      if left > 0, left < 10_000_000, descriptor < 1024 {
        ready = select(forOutput, left)
      } else {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN | (forOutput ? POLLOUT : 0)), revents: 0)
        let milliseconds = deadline == .max ? -1 : Int32(min(left / 1_000_000, 3_600_000))
        ready = poll(&entry, 1, milliseconds)
      }
      if ready > 0 { return true }
      if ready < 0, errno != EINTR { return true }  // the next read tells what is wrong
      if deadline <= monotonicNow() { return false }
    }
  }

  private func select(_ forOutput: Bool, _ nanoseconds: UInt64) -> Int32 {
    var input = fd_set()
    let word = Int(descriptor) / 64 * 8
    let bit = UInt64(1) << UInt64(descriptor % 64)
    withUnsafeMutableBytes(of: &input) { $0.storeBytes(of: bit, toByteOffset: word, as: UInt64.self) }
    var time = timespec(tv_sec: 0, tv_nsec: Int(nanoseconds))
    if forOutput {
      var output = input
      return pselect(descriptor + 1, &input, &output, nil, &time, nil)
    }
    return pselect(descriptor + 1, &input, nil, nil, &time, nil)
  }
}

/// CLOCK_MONOTONIC in nanoseconds.
public func monotonicNow() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
