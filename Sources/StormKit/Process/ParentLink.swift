// SPDX-License-Identifier: Apache-2.0
import Foundation

/// A child's side of its pipes. A thread reads the parent's lines; when they end, so does the process: at once, because
/// nobody is left to hear its result.
///
/// `@unchecked`: every mutable property is guarded by `condition`.
final class ParentLink: @unchecked Sendable {
  private let condition = NSCondition()
  private var configurationText: String?
  private var hasStarted = false
  private var wantsReport = false
  private var progressCount: UInt64 = 0
  private var limitThousandths: UInt64 = 1000
  /// Readable while a line has arrived that `forgetWake` has not been told of.
  var wakeDescriptor: Int32 { wake.output }
  private let wake = WakePipe()

  init() {
    Thread.detachNewThread { [self] in
      while let line = readLine() { take(line) }
      exit(StormExit.failure)
    }
  }

  /// The first line; waits for it.
  func configuration() -> String { wait { configurationText } }

  /// Returns when the parent has said `go`.
  func waitForStart() { wait { hasStarted ? () : nil } }

  /// Returns when all device processes together have ended that many accesses, as the parent last reported.
  func waitForProgress(_ count: UInt64) { wait { progressCount >= count ? () : nil } }

  /// Whether the parent wants the result now.
  var reportIsDue: Bool {
    condition.lock()
    defer { condition.unlock() }
    return wantsReport
  }

  /// Share of each list that may have begun, thousandths, as the parent last said.
  var limit: UInt64 {
    condition.lock()
    defer { condition.unlock() }
    return limitThousandths
  }

  func forgetWake() { wake.drain() }

  /// Never returns: the process ends with its input.
  func waitForEnd() -> Never {
    while true { wait { nil as Void? } }
  }

  /// One line to the parent.
  func send(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    var sent = 0
    while sent < bytes.count {
      let count = bytes[sent...].withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
      if count < 0 && errno == EINTR { continue }
      if count <= 0 { exit(StormExit.failure) }
      sent += count
    }
  }

  private func wait<Value>(_ value: () -> Value?) -> Value {
    condition.lock()
    defer { condition.unlock() }
    while true {
      if let value = value() { return value }
      condition.wait()
    }
  }

  private func take(_ line: String) {
    condition.lock()
    if line == "go" {
      hasStarted = true
    } else if line == "report" {
      wantsReport = true
    } else if line.hasPrefix("progress "), let count = UInt64(line.dropFirst(9)) {
      progressCount = count
    } else if line.hasPrefix("limit "), let count = UInt64(line.dropFirst(6)) {
      limitThousandths = count
    } else if configurationText == nil {
      configurationText = line
    }
    condition.broadcast()
    condition.unlock()
    wake.ring()
  }
}

/// A pipe that makes poll(2) return.
private struct WakePipe {
  let output: Int32
  private let input: Int32

  init() {
    var ends: [Int32] = [-1, -1]
    precondition(pipe(&ends) == 0, "no pipe: \(String(cString: strerror(errno)))")
    for end in ends {
      _ = fcntl(end, F_SETFD, FD_CLOEXEC)
      _ = fcntl(end, F_SETFL, O_NONBLOCK)
    }
    (output, input) = (ends[0], ends[1])
  }

  /// A full pipe is loud enough.
  func ring() {
    var byte: UInt8 = 1
    _ = write(input, &byte, 1)
  }

  func drain() {
    var bytes = [UInt8](repeating: 0, count: 256)
    while read(output, &bytes, bytes.count) == bytes.count {}
  }
}

/// What the process says with its exit code.
public enum StormExit {
  public static let success: Int32 = 0
  /// A verdict was not as expected, or the storm broke down.
  public static let failure: Int32 = 1
  public static let usage: Int32 = 2
  public static let unreachable: Int32 = 3
  public static let thresholdMissed: Int32 = 99
  public static let interrupted: Int32 = 130
}
