// SPDX-License-Identifier: Apache-2.0
import Foundation

/// The repository's own text files: sources, tests, clients, scripts, documents.
struct SourceTree: Sendable {
  static let shared = SourceTree()
  let files: [SourceFile]

  private init() {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    var found: [SourceFile] = []
    var folders = [""]
    while let folder = folders.popLast() {
      let names = (try? FileManager.default.contentsOfDirectory(atPath: root.path + "/" + folder)) ?? []
      for name in names.sorted() where !Self.ignored(name) {
        let path = folder.isEmpty ? name : folder + "/" + name
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: root.path + "/" + path, isDirectory: &isFolder) else { continue }
        if isFolder.boolValue {
          folders.append(path)
        } else if let data = FileManager.default.contents(atPath: root.path + "/" + path),
          let text = String(bytes: data, encoding: .utf8)
        {
          found.append(SourceFile(path: path, text: text))
        }
      }
    }
    files = found.sorted { $0.path < $1.path }
  }

  /// What git ignores, and git itself.
  private static func ignored(_ name: String) -> Bool {
    name == ".git" || name.hasPrefix(".build") || name == ".venv" || name == "__pycache__" || name == "node_modules"
      || name == "Package.resolved"
  }

  func swift(under folder: String) -> [SourceFile] {
    files.filter { $0.path.hasPrefix(folder + "/") && $0.path.hasSuffix(".swift") }
  }
}
