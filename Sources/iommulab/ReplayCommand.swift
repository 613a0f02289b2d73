// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import IOMMUModel

/// A recorded machine, again at a desk.
struct ReplayCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replay",
    abstract: "Perform the log of a machine again: the same effects, verdicts and state.",
    discussion: """
      Logs come from `iommulab storm --record DIR`, from MachineService.GetLog and from `iommulab simulate storm \
      --record FILE`. The figures are equal for every build and machine; two runs that print the same effect digest and \
      state hash did the same.

      Exit codes: 0 replayed to the end, 1 the machine answered otherwise than the log says, 2 usage or no log.
      """)

  @Argument(help: "The log.") var file: String
  @Flag(help: "Print one JSON object.") var json = false
  @Option(help: "Print the effects of this many entries, from --from on.") var show = 0
  @Option(help: "The first entry whose effects are shown.") var from = 0
  @Flag(help: "Explain the first verdict of each kind.") var explain = false

  func validate() throws {
    guard show >= 0, from >= 0 else { throw ValidationError("--show and --from count entries, from 0 on") }
  }

  func run() throws {
    var replay = try RecordedLog(path: file).replay()
    do throws(LogError) {
      while let effects = try replay.step() {
        let entry = replay.entryCount - 1
        if entry >= from && entry - from < show {
          for effect in effects.list {
            let text = if case .verdict(let index) = effect { "\(effects.verdicts[index])" } else { "\(effect)" }
            print("\(entry)  \(replay.machine.time) ns  \(text)")
          }
        }
      }
    } catch {
      FileHandle.standardError.write(Data("iommulab replay: \(RecordedLog.text(error))\n".utf8))
      throw ExitCode(1)
    }
    json ? printJSON(replay) : printText(replay)
  }

  private func counts(_ replay: Replay) -> [(kind: VerdictKind, count: Int)] {
    VerdictKind.allCases.map { kind in (kind, replay.verdicts.count { $0.kind == kind }) }.filter { $0.count > 0 }
  }

  private func printText(_ replay: Replay) {
    print("\(replay.entryCount) entries, \(replay.machine.time) ns of machine time, recorded by \(replay.build)")
    print(
      "effects \(String(replay.effectDigest.value, radix: 16)), state \(String(replay.machine.stateHash(), radix: 16))")
    let found = counts(replay)
    print(found.isEmpty ? "no verdict" : found.map { "\($0.kind.name) \($0.count)" }.joined(separator: ", "))
    guard explain else { return }
    for (kind, _) in found {
      let first = replay.verdicts.first { $0.kind == kind }!
      let explanation = Explanation(first, device: first.accessor)
      print("\n\(explanation.sentence)")
      for line in explanation.chain { print("  \(line)") }
    }
  }

  private func printJSON(_ replay: Replay) {
    let verdicts = counts(replay).map { "\"\($0.kind.name)\":\($0.count)" }.joined(separator: ",")
    let counters = Counters.named.map { "\"\($0.name)\":\(replay.counters[keyPath: $0.path])" }.joined(separator: ",")
    print(
      "{\"version\":1,\"entries\":\(replay.entryCount),\"machineNanoseconds\":\(replay.machine.time),"
        + "\"effectDigest\":\"\(Explanation.hex(replay.effectDigest.value))\","
        + "\"stateHash\":\"\(Explanation.hex(replay.machine.stateHash()))\","
        + "\"verdicts\":{\(verdicts)},\"counters\":{\(counters)}}")
  }
}
