// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Where a server is: `HOST:PORT`, `http://HOST:PORT` or `unix:PATH`.
public enum RPCEndpoint: Sendable, Equatable, CustomStringConvertible {
  case tcp(host: String, port: UInt16)
  case unix(path: String)

  /// Nil when the text has none of the forms.
  public init?(_ text: String) {
    if text.hasPrefix("unix:") {
      let path = String(text.dropFirst(5))
      guard !path.isEmpty, path.utf8.count < 108 else { return nil }
      self = .unix(path: path)
      return
    }
    var rest = text[...]
    if rest.hasPrefix("http://") { rest = rest.dropFirst(7) }
    if rest.hasSuffix("/") { rest = rest.dropLast() }
    guard let colon = rest.lastIndex(of: ":"), let port = UInt16(rest[rest.index(after: colon)...]) else { return nil }
    var host = String(rest[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") { host = String(host.dropFirst().dropLast()) }
    guard !host.isEmpty else { return nil }
    self = .tcp(host: host, port: port)
  }

  public var description: String {
    switch self {
    case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    case .unix(let path): "unix:\(path)"
    }
  }

  /// The `:authority` of requests.
  var authority: String {
    if case .unix = self { return "localhost" }
    return description
  }
}

/// Why a client could not go on.
public enum RPCClientError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The server cannot be reached; the system's error number.
  case unreachable(RPCEndpoint, errno: Int32)
  case unknownHost(String)
  /// No answer in time. The call may have had its effect.
  case timeout
  /// The connection is gone. Calls without an answer may have had their effect.
  case connectionLost(String)

  public var description: String {
    switch self {
    case .unreachable(let endpoint, let number): "cannot reach \(endpoint): \(String(cString: strerror(number)))"
    case .unknownHost(let host): "unknown host: \(host)"
    case .timeout: "no answer in time"
    case .connectionLost(let why): "the connection is lost: \(why)"
    }
  }
}
