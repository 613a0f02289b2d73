// SPDX-License-Identifier: Apache-2.0
import LabProtocol

/// A thread of the process on CPU 0: each line is `MACHINE SPACE PAGE…`, and it begins a load from each page. Where a
/// load faults, it waits for the locks, as the thread would; when the process exits, the thread is gone.
final class CPUActor {
  private let calls: Calls

  init(_ service: String) throws { calls = try Calls(service) }

  func take(_ line: String) throws {
    let words = line.split(separator: " ").map(String.init)
    try calls.calls(
      words.dropFirst(2).map { page in
        (
          .load,
          [
            "machine": words[0], "addressSpace": words[1], "cpu": 0, "address": "0x" + page + "000", "startOnly": true,
          ]
        )
      }, or: ["ADDRESS_SPACE_EXITING", "UNKNOWN_ADDRESS_SPACE"])
  }
}
