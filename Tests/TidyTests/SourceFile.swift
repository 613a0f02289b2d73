// SPDX-License-Identifier: Apache-2.0
import Foundation

/// One text file of the repository. `code` is its text without comments and without the insides of string literals,
/// line for line, so that a rule about code does not fire on prose.
struct SourceFile: Sendable {
  let path: String
  let lines: [String]
  let code: [String]

  init(path: String, text: String) {
    self.path = path
    lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    code = path.hasSuffix(".swift") ? Self.withoutProse(text) : lines
  }

  /// The name of the room: the folder under `Sources` or `Tests`.
  var room: String {
    let parts = path.split(separator: "/")
    return parts.count > 2 ? String(parts[1]) : ""
  }

  var isGenerated: Bool {
    path.hasSuffix(".pb.swift") || lines.prefix(5).contains { $0.contains("DO NOT EDIT") }
  }

  /// The modules that the file imports, without submodules and attributes.
  var imports: [String] {
    code.compactMap { line in
      let words = line.split(separator: " ").map(String.init)
      guard let position = words.firstIndex(of: "import"), position + 1 < words.count else { return nil }
      let modifiers: Set = ["public", "package", "internal", "private", "fileprivate"]
      let leads = words[..<position].allSatisfy { modifiers.contains($0) || $0.hasPrefix("@") }
      guard leads else { return nil }
      let kinds: Set = ["struct", "class", "enum", "protocol", "func", "var", "let", "typealias"]
      let name =
        kinds.contains(words[position + 1]) && position + 2 < words.count ? words[position + 2] : words[position + 1]
      return String(name.prefix { $0 != "." && $0 != ";" })
    }
  }

  /// Blanks comments and literals and keeps the line structure. An interpolation counts as part of its literal.
  private static func withoutProse(_ text: String) -> [String] {
    enum State { case code, lineComment, blockComment(Int), string, multilineString }
    var state = State.code
    var output: [UInt8] = []
    let bytes = Array(text.utf8)
    let newline = UInt8(ascii: "\n")
    func starts(_ prefix: StaticString, at index: Int) -> Bool {
      let count = prefix.utf8CodeUnitCount
      guard index + count <= bytes.count else { return false }
      return (0..<count).allSatisfy { bytes[index + $0] == prefix.utf8Start[$0] }
    }
    var index = 0
    while index < bytes.count {
      let byte = bytes[index]
      var width = 1
      switch state {
      case .code:
        if starts("//", at: index) {
          state = .lineComment
        } else if starts("/*", at: index) {
          (state, width) = (.blockComment(1), 2)
        } else if starts("\"\"\"", at: index) {
          (state, width) = (.multilineString, 3)
        } else if byte == UInt8(ascii: "\"") {
          state = .string
        } else if byte != newline {
          output.append(byte)
        }
      case .lineComment:
        if byte == newline { state = .code }
      case .blockComment(let depth):
        if starts("/*", at: index) {
          (state, width) = (.blockComment(depth + 1), 2)
        } else if starts("*/", at: index) {
          (state, width) = (depth == 1 ? .code : .blockComment(depth - 1), 2)
        }
      case .string:
        if byte == UInt8(ascii: "\\") {
          width = 2
        } else if byte == UInt8(ascii: "\"") || byte == newline {
          state = .code
        }
      case .multilineString:
        if byte == UInt8(ascii: "\\") {
          width = 2
        } else if starts("\"\"\"", at: index) {
          (state, width) = (.code, 3)
        }
      }
      for skipped in bytes[index..<min(index + width, bytes.count)] where skipped == newline { output.append(newline) }
      index += width
    }
    return String(decoding: output, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false).map(
      String.init)
  }
}
