// SPDX-License-Identifier: Apache-2.0
import Foundation

/// How long the threads of a process have waited for a CPU: the second figure of `/proc/PID/task/*/schedstat`.
public enum SchedulerWait {
  /// Nanoseconds, summed over the threads that live; nil where the kernel does not say.
  public static func nanoseconds(pid: Int32? = nil) -> UInt64? {
    let process = pid.map(String.init) ?? "self"
    guard let tasks = try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task") else { return nil }
    var sum: UInt64 = 0
    var read = false
    for task in tasks {
      guard let text = try? String(contentsOfFile: "/proc/\(process)/task/\(task)/schedstat", encoding: .utf8) else {
        continue
      }
      let figures = text.split(whereSeparator: \.isWhitespace)
      guard figures.count >= 2, let wait = UInt64(figures[1]) else { continue }
      sum += wait
      read = true
    }
    return read ? sum : nil
  }
}
