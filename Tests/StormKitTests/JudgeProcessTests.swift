// SPDX-License-Identifier: Apache-2.0
// Goal: somebody who posts a patch has its order judged by one command. Method: the real program on files; what it
// prints and its exit code are the contract.
import Foundation
import Testing

@Suite struct JudgeProcessTests {
  func judge(_ text: String, _ more: [String] = []) throws -> (text: String, ending: String) {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent("order-\(UUID().uuidString).yaml")
    try text.write(to: file, atomically: true, encoding: .utf8)
    defer { try? FileManager.default.removeItem(at: file) }
    return try StormProcessTests.run(["judge", file.path] + more, capturesError: true)
  }

  @Test func `A safe order ends with 0 and its cost, an unsafe one with 1 and the steps that break it`() throws {
    let safe = try judge("operation: dontneed\norder: [S, P, C, I, F, E]\nstrategies: [secondary-tlb]\n")
    #expect(safe.ending == "exit code 0")
    #expect(safe.text.contains("no verdict") && safe.text.contains("on average"))
    let unsafe = try judge(
      "operation: dontneed\norder: [S, P, C, F, I, E]\nstrategy: {flush-at: [flush-site], atc: true}\n")
    #expect(unsafe.ending == "exit code 1")
    #expect(unsafe.text.contains("F: frees the page\n    the device: uses the freed page"))
  }

  @Test func `What is wrong with a file is said, every mistake at once, and ends with 2`() throws {
    let cases: [(String, [String])] = [
      (
        "operation: dontneed\norder: [E, S, C, X]\nbatch: [C]\n",
        ["'X' is none of", "P stands there 0 times", "F must come last"]
      ),
      ("operation: dontneed\nordr: [P]\n", ["unknown key 'ordr'"]),
      ("operation: mremap\norder: [P]\n", ["mremap", "munmap"]),
      ("operation: dontneed\norder: P\n", ["'order'"]),
      ("operation: dontneed\norder: [P, F]\nstrategies: [fast]\n", ["'fast' is none of"]),
      ("operation: dontneed\norder: [P, F]\nstrategy: {flush-at: [never]}\n", ["'never' is none of"]),
      ("order: [P, F\n", ["while parsing"]),
      ("", ["holds no keys"]),
    ]
    for (file, parts) in cases {
      let (text, ending) = try judge(file)
      #expect(ending == "exit code 2", "\(file): \(text)")
      for part in parts { #expect(text.contains(part), "\(file): \(text)") }
    }
  }

  @Test func `All cells are judged and tried, and the result is JSON on request`() throws {
    let (text, ending) = try StormProcessTests.run(["judge", "--operation", "munmap", "--json"])
    #expect(ending == "exit code 0")
    let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
    let cells = try #require(object?["cells"] as? [[String: Any]])
    let strategies = Set(cells.compactMap { $0["strategy"] as? String })
    #expect(strategies.count >= 9 && cells.count == 7 * strategies.count, "a munmap has seven sizes")
    #expect(cells.allSatisfy { ($0["verdicts"] as? [String]) == ($0["tried"] as? [String]) })
    let list = try StormProcessTests.run(["strategy", "list"])
    #expect(list.ending == "exit code 0" && list.text.contains("secondary-tlb"))
  }
}
