// SPDX-License-Identifier: Apache-2.0
// Goal: the figures can be had by one command each, for people and for programs. Method: the real program.
import Foundation
import Testing

@Suite struct CostProcessTests {
  func object(_ arguments: [String]) throws -> [String: Any] {
    let (text, ending) = try StormProcessTests.run(arguments)
    #expect(ending == "exit code 0")
    return try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
  }

  @Test func `The cost of one operation is a table, and JSON on request`() throws {
    let table = try StormProcessTests.run(["cost", "--operation", "dontneed", "--column", "now", "--runs", "2"])
    #expect(table.ending == "exit code 0" && table.text.contains("madvise(DONTNEED), full batch"))
    let json = try object(["cost", "--operation", "dontneed", "--column", "now", "--runs", "2", "--json"])
    let rows = try #require(json["rows"] as? [[String: Any]])
    #expect(rows.allSatisfy { ($0["strategies"] as? [String: Any])?["secondary-tlb"] != nil })
    #expect(json["waiting"] is [String: Any])
  }

  @Test func `A calibration says which figures are inputs`() throws {
    let json = try object(["calibrate", "--samples", "5000", "--json"])
    #expect(
      (json["inputs"] as? [[String: Any]])?.map { $0["row"] as? String } == ["svm_prq", "inv_iotlb", "inv_devtlb"])
    #expect((json["checks"] as? [Any])?.isEmpty == false && (json["load"] as? [Any])?.isEmpty == false)
  }

  @Test func `Wrong arguments end with 2, and the text says what would be right`() throws {
    for (arguments, part) in [
      (["cost", "--operation", "mmap"], "munmap"), (["cost", "--column", "2020"], "2014"),
      (["cost", "--runs", "0"], "10000"), (["calibrate", "--samples", "1"], "200000"),
    ] {
      let (text, ending) = try StormProcessTests.run(arguments, capturesError: true)
      #expect(ending == "exit code 2" && text.contains(part), "\(text)")
    }
  }
}
