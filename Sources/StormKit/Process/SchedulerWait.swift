// SPDX-License-Identifier: Apache-2.0
import Foundation

/// How long each thread of a process has waited for a CPU: the second figure of `/proc/PID/task/*/schedstat`. Empty where
/// the kernel does not say.
public struct SchedulerWait {
  /// Nanoseconds by thread.
  private(set) var nanoseconds: [String: UInt64] = [:]

  /// Reads the figures of now; nil: of this process.
  public init(pid: Int32? = nil) {
    let process = pid.map(String.init) ?? "self"
    for task in (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task")) ?? [] {
      let path = "/proc/\(process)/task/\(task)/schedstat"
      guard let text = try? String(contentsOfFile: path, encoding: .utf8) else { continue }
      let figures = text.split(whereSeparator: \.isWhitespace)
      if figures.count >= 2, let wait = UInt64(figures[1]) { nanoseconds[task] = wait }
    }
  }

  /// What the thread that waited longest has waited since `earlier`: threads wait side by side, so the sum says nothing.
  func longest(since earlier: SchedulerWait) -> UInt64 {
    nanoseconds.map { $1 &- (earlier.nanoseconds[$0] ?? 0) }.max() ?? 0
  }
}
