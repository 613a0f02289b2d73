// SPDX-License-Identifier: Apache-2.0
import Foundation

enum NetworkCells {
  static func run(_ arguments: [String]) -> Int32 {
    do {
      let url = ProcessInfo.processInfo.environment["IOMMULAB_URL"] ?? ""
      guard arguments.count > 1, url.hasPrefix("http://") else {
        throw Failure("usage: IOMMULAB_URL=http://HOST:PORT NetworkCells TABLE [WORD …]")
      }
      let service = String(url.dropFirst("http://".count))
      switch arguments[1] {
      case "device":
        let device = try DeviceActor(service)
        try serve { try JSONEncoder().encode(device.take($0)) }
      case "cpu":
        let cpu = try CPUActor(service)
        try serve {
          try cpu.take($0)
          return Data()
        }
      default: return try tryAll(arguments[1], words: arguments.dropFirst(2), service)
      }
      return 0
    } catch {
      FileHandle.standardError.write(Data("NetworkCells \(arguments.dropFirst().first ?? ""): \(error)\n".utf8))
      return 1
    }
  }

  /// Answers each line of the input with a line, until the input ends.
  private static func serve(_ answer: (String) throws -> Data) throws {
    while let line = readLine() {
      FileHandle.standardOutput.write(try answer(line) + Data("\n".utf8))
    }
  }

  private static func tryAll(_ file: String, words: ArraySlice<String>, _ service: String) throws -> Int32 {
    let table = try ExpectedTable(markdown: String(contentsOfFile: file, encoding: .utf8))
    let cells = table.cells.filter { cell in
      words.allSatisfy { [cell.operation, cell.strategy, cell.kernel].contains($0) }
    }
    let cast = try Trial.Cast(service)
    defer { cast.stop() }
    var disagreements = 0
    var acts = 0
    let began = Date()
    for cell in cells {
      let name = "\(cell.kernel), \(cell.operation), \(cell.strategy)"
      let trials = try [false, true].map { usesCPU in
        do { return try Trial(cell, usesCPU: usesCPU, cast) } catch { throw Failure("\(name): \(error)") }
      }
      let tried = trials[0].verdicts.union(trials[1].verdicts)
      acts += trials[0].acts + trials[1].acts
      let complaints = trials.flatMap(\.complaints)
      guard tried != cell.verdicts || !complaints.isEmpty else { continue }
      disagreements += 1
      print(
        "\(name): expected \(text(cell.verdicts)), tried \(text(tried))"
          + complaints.map { "; " + $0 }.joined())
    }
    let seconds = String(format: "%.1f", Date().timeIntervalSince(began))
    print("\(cells.count) cells, \(2 * cells.count) trials, \(acts) acts in \(seconds) s: \(disagreements) disagree")
    return disagreements == 0 && !cells.isEmpty ? 0 : 1
  }

  private static func text(_ verdicts: Set<String>) -> String {
    verdicts.isEmpty ? "none" : verdicts.sorted().joined(separator: " ")
  }
}
