// SPDX-License-Identifier: Apache-2.0
// Goal: a recorded verdict is explained by one command. Method: the real program on a log that it has recorded itself;
// what it prints and its exit code are the contract.
import Foundation
import Testing

@Suite struct ExplainProcessTests {
  static let log: String = {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("explain-\(UUID().uuidString).log").path
    _ = try? StormProcessTests.run([
      "simulate", "storm", "--strategies", "flush-at-start", "--accesses", "200", "--record", path,
    ])
    return path
  }()

  func explain(_ more: [String], log: String = Self.log) throws -> (text: String, ending: String) {
    try StormProcessTests.run(["explain", log] + more, capturesError: true)
  }

  @Test func `A verdict is told in every form`() throws {
    let text = try explain(["--verdict", "stale_dma"])
    #expect(text.ending == "exit code 0", "\(text.text)")
    #expect(text.text.contains("P: clears the entry") && text.text.contains("STALE_DMA"))
    #expect(try explain(["--format", "mermaid"]).text.hasPrefix("sequenceDiagram\n"))
    #expect(try explain(["--format", "svg"]).text.hasPrefix("<svg xmlns"))
    let json = try explain(["--verdict", "2", "--format", "json"]).text
    let object = try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any]
    #expect(object?["number"] as? Int == 2 && object?["explanation"] is [String: Any])
  }

  @Test func `The list numbers every verdict, and its numbers can be asked for`() throws {
    let list = try explain(["--list"])
    let lines = list.text.split(separator: "\n")
    #expect(list.ending == "exit code 0" && lines.count > 1)
    let last = try #require(lines.last?.split(separator: " "))
    let told = try explain(["--verdict", String(last[0])])
    #expect(told.ending == "exit code 0" && told.text.contains(last[1]))
    let beyond = try explain(["--verdict", String(lines.count + 1)])
    #expect(beyond.ending == "exit code 2" && beyond.text.contains("--list"))
  }

  @Test func `What is wrong with the arguments ends with 2, and the text says what would be right`() throws {
    #expect(try explain([], log: "/nowhere.log").text.contains("cannot be read"))
    #expect(try explain([], log: "Package.swift").ending == "exit code 2")
    for (arguments, part) in [
      (["--verdict", "LATE"], "STALE_DMA"), (["--verdict", "0"], "from 1 on"), (["--format", "png"], "svg"),
    ] {
      let (text, ending) = try explain(arguments)
      #expect(ending == "exit code 2" && text.contains(part), "\(text)")
    }
  }

  @Test func `A judged cell is drawn as a recorded one is`() throws {
    let cell = ["judge", "--operation", "munmap", "--strategy", "flush-at-start", "--column", "2014", "--format"]
    #expect(try StormProcessTests.run(cell + ["svg"]).text.hasPrefix("<svg xmlns"))
    let mermaid = try StormProcessTests.run(cell + ["mermaid", "--verdict", "STALE_WALK"])
    #expect(mermaid.ending == "exit code 0" && mermaid.text.contains("STALE_WALK"))
    let safe = try StormProcessTests.run(
      ["judge", "--operation", "munmap", "--strategy", "secondary-tlb", "--format", "svg"], capturesError: true)
    #expect(safe.ending == "exit code 2" && safe.text.contains("no chain"))
  }
}
