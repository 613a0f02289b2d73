// SPDX-License-Identifier: Apache-2.0
import Foundation

/// The rules of the source tree, as functions from a file to the breaches in it, so that each can be shown to fire.
enum Rules {
  /// The rooms that hold no I/O, no clock, no task and no ambient randomness (ARCHITECTURE.md).
  static let pureRooms: Set = ["IOMMUModel", "DeviceEndpoint", "MirrorEndpoint", "IOMMUSimulation"]

  static let collections: Set = [
    "BasicContainers", "BitCollections", "ContainersPreview", "DequeModule", "HashTreeCollections", "HeapModule",
    "OrderedCollections",
  ]

  /// What a room may import besides the Swift standard library. A room that is not named may import anything that its
  /// target depends on, short of `owners`.
  static let importsAllowed: [String: Set<String>] = [
    "IOMMUModel": collections,
    "DeviceEndpoint": collections,
    "MirrorEndpoint": collections,
    "IOMMUSimulation": collections.union(["IOMMUModel", "DeviceEndpoint", "MirrorEndpoint"]),
    "LabProtocol": ["SwiftProtobuf", "Foundation", "FoundationEssentials"],
    "HTTP2Session": collections.union(["CNghttp2", "Glibc", "Musl"]),
  ]

  /// What a room may never import.
  static let importsBanned: [String: Set<String>] = [
    "RPCServer": ["IOMMUModel", "LabProtocol", "LabService", "DeviceEndpoint", "MirrorEndpoint", "StormKit"],
    "RPCClient": [
      "IOMMUModel", "LabProtocol", "LabService", "DeviceEndpoint", "MirrorEndpoint", "StormKit", "RPCServer",
    ],
    "LabService": ["StormKit", "DeviceEndpoint", "MirrorEndpoint", "IOMMUSimulation", "RPCClient"],
    "StormKit": ["IOMMUModel", "IOMMUSimulation", "LabService", "RPCServer"],
  ]

  /// Modules that exactly one room may import.
  static let owners: [String: String] = ["CNghttp2": "HTTP2Session"]

  static func imports(_ file: SourceFile) -> [String] {
    guard file.path.hasPrefix("Sources/"), file.path.hasSuffix(".swift") else { return [] }
    return file.imports.compactMap { module in
      if let owner = owners[module], owner != file.room { return "\(file.path): only \(owner) imports \(module)" }
      if let allowed = importsAllowed[file.room], !allowed.contains(module) {
        return "\(file.path): \(file.room) does not import \(module)"
      }
      if importsBanned[file.room]?.contains(module) == true {
        return "\(file.path): \(file.room) never imports \(module)"
      }
      return nil
    }
  }

  /// Whole words that a pure room never uses, each with its replacement.
  static let bannedWords: [(word: String, instead: String)] = [
    ("Hasher", "the state hash is our own"),
    ("hashValue", "the state hash is our own"),
    ("Date", "time is an argument"),
    ("Task", "one call, one turn"),
    ("ContinuousClock", "time is an argument"),
    ("SuspendingClock", "time is an argument"),
    ("DispatchQueue", "one call, one turn"),
    ("SystemRandomNumberGenerator", "a seeded generator per purpose"),
    ("async", "one call, one turn"),
    ("await", "one call, one turn"),
    ("actor", "values only"),
    ("class", "values only"),
  ]

  static func pureWords(_ file: SourceFile) -> [String] {
    guard file.path.hasPrefix("Sources/"), file.path.hasSuffix(".swift"), pureRooms.contains(file.room) else {
      return []
    }
    var breaches: [String] = []
    for (number, line) in file.code.enumerated() {
      let words = Set(line.split { !($0.isLetter || $0.isNumber || $0 == "_") }.map(String.init))
      for banned in bannedWords where words.contains(banned.word) {
        breaches.append("\(file.path):\(number + 1): \(banned.word): \(banned.instead)")
      }
      for word in words where word.hasPrefix("Unsafe") || word.hasPrefix("withUnsafe") || word == "Unmanaged" {
        breaches.append("\(file.path):\(number + 1): \(word): pointers belong to HTTP2Session")
      }
      for method in [".random(", ".randomElement(", ".shuffled(", ".shuffle("] where line.contains(method) {
        if !line.contains("using:") {
          breaches.append("\(file.path):\(number + 1): \(method) without a seeded generator")
        }
      }
    }
    return breaches
  }

  static let lineLimit = 500

  static func length(_ file: SourceFile) -> [String] {
    let isText = file.path.hasPrefix("Sources/") || file.path.hasPrefix("Tests/") || file.path.hasPrefix("clients/")
    let isTable = file.path.hasSuffix(".json") || file.path.hasSuffix(".lock")
    guard isText, !isTable, !file.isGenerated, file.lines.count > lineLimit + 1 else { return [] }
    return ["\(file.path): \(file.lines.count - 1) lines, the limit is \(lineLimit): split it by noun"]
  }

  static func licence(_ file: SourceFile) -> [String] {
    let name = file.path.split(separator: "/").last.map(String.init) ?? ""
    let kinds = [".swift", ".h", ".c", ".py", ".sh", ".proto", ".js", ".ts", ".yaml", ".yml"]
    let needed = kinds.contains { name.hasSuffix($0) } || name == "Makefile" || file.lines[0].hasPrefix("#!")
    guard needed, !file.isGenerated, name != "Package.swift" else { return [] }
    let found = file.lines.prefix(3).contains { $0.contains("SPDX-License-Identifier: Apache-2.0") }
    return found ? [] : ["\(file.path): no SPDX line at the top"]
  }

  // Spelled in halves, so that this file passes its own rules.
  static let leftovers = ["TO" + "DO", "FIX" + "ME", "XX" + "X:"]
  static let workplacePaths = ["/wo" + "rk/", "/ho" + "me/", "/ro" + "ot/", "/tm" + "p/bash", "/Us" + "ers/"]

  static func leftoverWords(_ file: SourceFile) -> [String] {
    guard file.path != "LICENSE", !file.isGenerated else { return [] }
    var breaches: [String] = []
    for (number, line) in file.lines.enumerated() {
      for mark in leftovers where line.contains(mark) { breaches.append("\(file.path):\(number + 1): \(mark)") }
      for path in workplacePaths where line.contains(path) { breaches.append("\(file.path):\(number + 1): \(path)") }
    }
    return breaches
  }
}
