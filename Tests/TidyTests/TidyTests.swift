// SPDX-License-Identifier: Apache-2.0
import Testing

// Goal: the rules that keep the rooms apart and the machine pure hold in every file.
// Method: each rule reads the text of the tree; beside it, a small file that breaks the rule shows that it fires.

@Suite("The source tree")
struct TidyTests {
  private func check(_ rule: (SourceFile) -> [String]) {
    let breaches = SourceTree.shared.files.flatMap(rule)
    #expect(breaches.isEmpty, "\(breaches.joined(separator: "\n"))")
  }

  @Test("is found, with every room")
  func treeIsFound() {
    let rooms = Set(SourceTree.shared.swift(under: "Sources").map(\.room))
    #expect(rooms.isSuperset(of: Rules.pureRooms.union(Rules.importsAllowed.keys).union(Rules.importsBanned.keys)))
  }

  @Test("keeps every room to its imports") func imports() { check(Rules.imports) }
  @Test("keeps clocks, tasks, randomness, classes and pointers out of the pure rooms") func words() {
    check(Rules.pureWords)
  }
  @Test("has no file over 500 lines") func length() { check(Rules.length) }
  @Test("carries the licence in every file") func licence() { check(Rules.licence) }
  @Test("has no leftovers and no paths of anyone's machine") func leftovers() { check(Rules.leftoverWords) }
}

@Suite("A rule of the source tree fires on")
struct TidyCanaryTests {
  private func file(_ path: String, _ text: String) -> SourceFile {
    SourceFile(path: path, text: "// SPDX-License-Identifier: Apache-2.0\n" + text)
  }

  @Test(
    "an import that a room must not have",
    arguments: [
      ("IOMMUModel", "Foundation"), ("IOMMUModel", "Glibc"), ("IOMMUModel", "Logging"), ("IOMMUSimulation", "NIOCore"),
      ("DeviceEndpoint", "Foundation"), ("DeviceEndpoint", "IOMMUModel"), ("MirrorEndpoint", "IOMMUModel"),
      ("StormKit", "IOMMUModel"),
      ("RPCServer", "CNghttp2"), ("RPCServer", "IOMMUModel"), ("HTTP2Session", "NIOCore"), ("LabService", "StormKit"),
    ])
  func bannedImport(room: String, module: String) {
    for form in ["import \(module)", "@preconcurrency import \(module)", "public import struct \(module).Thing"] {
      #expect(Rules.imports(file("Sources/\(room)/A.swift", form)).count == 1, "\(form)")
    }
  }

  @Test("an allowed import, never") func allowedImport() {
    #expect(Rules.imports(file("Sources/IOMMUModel/A.swift", "import DequeModule\n// import Foundation")).isEmpty)
    #expect(Rules.imports(file("Sources/HTTP2Session/A.swift", "import CNghttp2")).isEmpty)
  }

  @Test(
    "a word that breaks determinism",
    arguments: [
      "var h = Hasher()", "x.hashValue", "Int.random(in: 0..<4)", "list.shuffled()", "let d = Date()", "Task { }",
      "ContinuousClock.now", "DispatchQueue.main", "final class Node {}", "var p: UnsafePointer<Int>",
      "a.withUnsafeBufferPointer { $0 }", "func f() async {}",
    ])
  func bannedWord(line: String) {
    for room in Rules.pureRooms { #expect(Rules.pureWords(file("Sources/\(room)/A.swift", line)).count == 1) }
    #expect(Rules.pureWords(file("Sources/RPCServer/A.swift", line)).isEmpty)
  }

  @Test("a banned word in prose, never") func prose() {
    let text =
      "// a class of Date\n/* Task /* nested */ Hasher */ let x = \"class \\\"Task\\\"\"\nlet r = Int.random(in: 0..<4, using: &g)"
    #expect(Rules.pureWords(file("Sources/IOMMUModel/A.swift", text)).isEmpty)
    #expect(
      Rules.pureWords(file("Sources/IOMMUModel/A.swift", text + "\nclass A {}")) == [
        "Sources/IOMMUModel/A.swift:5: class: values only"
      ])
  }

  @Test("a file over the limit") func longFile() {
    let body = String(repeating: "\n", count: Rules.lineLimit)
    #expect(Rules.length(file("Sources/IOMMUModel/A.swift", body)).count == 1)
    #expect(Rules.length(file("Sources/IOMMUModel/A.swift", String(body.dropLast()))).isEmpty)
    #expect(Rules.length(file("Sources/LabProtocol/a.pb.swift", body)).isEmpty)
  }

  @Test("a file without a licence") func missingLicence() {
    for path in ["Sources/A/A.swift", "clients/curl/a.sh", "Makefile", "clients/proto/a.proto"] {
      #expect(Rules.licence(SourceFile(path: path, text: "nothing\n")).count == 1)
    }
  }

  @Test("a leftover or a path of somebody's machine") func leftover() {
    for mark in Rules.leftovers + Rules.workplacePaths {
      #expect(Rules.leftoverWords(file("README.md", "see \(mark)")).count == 1)
    }
  }
}
