// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A process that this one started, with a pipe to its standard input and one from its standard output; standard error
/// is shared. A child of a storm ends when its standard input ends, so none outlives its parent.
final class ChildProcess {
  enum Failure: Error, CustomStringConvertible {
    case cannotStart(String, errno: Int32)
    var description: String {
      switch self {
      case .cannotStart(let program, let number): "cannot start \(program): \(String(cString: strerror(number)))"
      }
    }
  }

  let name: String
  let pid: pid_t
  let output: Int32
  private var input: Int32
  private var pending: [UInt8] = []
  private(set) var outputEnded = false
  /// As waitpid(2) gives it; nil while the process runs.
  private(set) var status: Int32?

  /// `capturesError`: standard error joins standard output in the pipe instead of going to the terminal.
  init(name: String, program: String, arguments: [String], capturesError: Bool = false) throws(Failure) {
    var toChild: [Int32] = [0, 0]
    var fromChild: [Int32] = [0, 0]
    guard pipe(&toChild) == 0, pipe(&fromChild) == 0 else { throw .cannotStart(program, errno: errno) }
    for descriptor in toChild + fromChild { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawn_file_actions_adddup2(&actions, toChild[0], 0)
    posix_spawn_file_actions_adddup2(&actions, fromChild[1], 1)
    if capturesError { posix_spawn_file_actions_adddup2(&actions, fromChild[1], 2) }
    var argv: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
    defer { argv.forEach { free($0) } }
    var child: pid_t = 0
    let code = posix_spawn(&child, program, &actions, nil, &argv, environ)
    posix_spawn_file_actions_destroy(&actions)
    close(toChild[0])
    close(fromChild[1])
    guard code == 0 else {
      close(toChild[1])
      close(fromChild[0])
      throw .cannotStart(program, errno: code)
    }
    self.name = name
    pid = child
    input = toChild[1]
    output = fromChild[0]
    _ = fcntl(output, F_SETFL, O_NONBLOCK)
  }

  deinit {
    closeInput()
    close(output)
  }

  /// Writes one line. A child that is gone is noticed elsewhere.
  func send(_ line: String) {
    guard input >= 0 else { return }
    let bytes = Array((line + "\n").utf8)
    var sent = 0
    while sent < bytes.count {
      let count = bytes[sent...].withUnsafeBytes { write(input, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      if count <= 0 { return closeInput() }
      sent += count
    }
  }

  /// The signal to go: devices and mutators end when they read the end of their input.
  func closeInput() {
    if input >= 0 { close(input) }
    input = -1
  }

  /// Whole lines that have arrived; never blocks.
  func lines() -> [String] {
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while !outputEnded {
      let count = read(output, &buffer, buffer.count)
      if count > 0 {
        pending += buffer[..<count]
      } else if count == 0 {
        outputEnded = true
      } else if errno != EINTR {
        break
      }
    }
    var lines: [String] = []
    var start = 0
    while let newline = pending[start...].firstIndex(of: 0x0a) {
      lines.append(String(decoding: pending[start..<newline], as: UTF8.self))
      start = newline + 1
    }
    pending.removeFirst(start)
    return lines
  }

  /// Whether the process has ended; collects its status.
  func hasEnded() -> Bool {
    if status != nil { return true }
    var value: Int32 = 0
    if waitpid(pid, &value, WNOHANG) == pid { status = value }
    return status != nil
  }

  /// Waits for the process to end.
  func wait() {
    closeInput()
    var value: Int32 = 0
    while status == nil {
      if waitpid(pid, &value, 0) == pid { status = value } else if errno != EINTR { status = 0 }
    }
  }

  func signal(_ number: Int32) { if status == nil { kill(pid, number) } }

  /// How it ended, in words.
  var ending: String {
    guard let status else { return "still running" }
    return status & 0x7f == 0 ? "exit code \((status >> 8) & 0xff)" : "signal \(status & 0x7f)"
  }
}

/// Waits for output of any of the processes, or for the time-out in milliseconds.
func waitForOutput(_ children: [ChildProcess], milliseconds: Int32) {
  var entries = children.filter { !$0.outputEnded }.map { pollfd(fd: $0.output, events: Int16(POLLIN), revents: 0) }
  poll(&entries, nfds_t(entries.count), milliseconds)
}
