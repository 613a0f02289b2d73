// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import IOMMUModel

/// A log in a file, and what people are told when it is none.
struct RecordedLog {
  let path: String
  let bytes: [UInt8]

  /// - Throws: usage; the file cannot be read.
  init(path: String) throws {
    guard let content = FileManager.default.contents(atPath: path) else {
      throw ValidationError("'\(path)' cannot be read. Give the path of a log.")
    }
    self.path = path
    bytes = Array(content)
  }

  /// - Throws: usage; it is no log that this build reads.
  func replay(keepsVerdicts: Bool = true) throws -> Replay {
    do throws(LogError) {
      return try Replay(bytes, keepsVerdicts: keepsVerdicts)
    } catch {
      throw ValidationError("'\(path)': \(Self.text(error))")
    }
  }

  static func text(_ error: LogError) -> String {
    switch error {
    case .notALog: "no log of a machine: it does not begin with IOMMULAB"
    case .unknownVersion(let version): "format version \(version); this build reads 1 to \(Log.version)"
    case .torn(let offset): "the log ends inside an entry, at byte \(offset): everything before it was replayed"
    case .malformed(let offset): "byte \(offset) is no entry"
    case .diverged(let entry):
      "entry \(entry): the machine answered otherwise than the log says; another build wrote it"
    }
  }
}
