// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import IOMMUModel

/// One verdict of a recorded machine, told.
struct ExplainCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "explain",
    abstract: "The chain of events that led to a verdict of a recorded machine.",
    discussion: """
      Performs the log again up to the verdict, and shows what led to it: who was given the page and through which cache, \
      which step of which operation took it away, which one freed the frame, which invalidation or completion came or did \
      not, and the access. At most \(Explanation.eventLimit) events; times are counted back from the access.

      Logs come from `iommulab storm --record DIR`, from MachineService.GetLog and from `iommulab simulate storm --record \
      FILE`. For a live machine there is MachineService.ExplainVerdict.

        iommulab explain storm.log                        # the first verdict
        iommulab explain storm.log --verdict STALE_WALK   # the first of a kind
        iommulab explain storm.log --verdict 17           # the 17th of all
        iommulab explain storm.log --format svg > why.svg # for a browser; mermaid is for Markdown
        iommulab explain storm.log --list                 # every verdict in a line

      Exit codes: 0 explained, 1 the machine answered otherwise than the log says, 2 usage, no log, or no such verdict.
      """)

  @Argument(help: "The log.") var file: String
  @Option(help: ArgumentHelp("Which one: its number, from 1 on, or the first of a kind.", valueName: "number|KIND"))
  var verdict = "1"
  @Option(help: "text, json, mermaid or svg.") var format = ExplanationFormat.text
  @Flag(help: "List every verdict with its number instead.") var list = false

  private enum Choice {
    case number(UInt64)
    case first(VerdictKind)
  }

  func run() throws {
    let log = try RecordedLog(path: file)
    let choice = try choice()
    guard let (number, verdict) = try find(log, choice) else {
      if list { return }
      throw ValidationError("'\(file)': the log ends before such a verdict; --list shows those that it has")
    }
    print(format.render(try explain(log, verdict, number), number: number), terminator: "")
  }

  private func choice() throws -> Choice {
    if let number = UInt64(verdict), number > 0 { return .number(number) }
    if let kind = VerdictKind.allCases.first(where: { $0.name == verdict.uppercased() }) { return .first(kind) }
    throw ValidationError(
      "--verdict: '\(verdict)' is neither a number from 1 on nor one of \(VerdictKind.allCases.map(\.name).joined(separator: ", "))"
    )
  }

  /// Replays up to the chosen verdict, or to the end for a list; nil: there is none.
  private func find(_ log: RecordedLog, _ choice: Choice) throws -> (number: UInt64, verdict: Verdict)? {
    var replay = try log.replay(keepsVerdicts: false)
    var number: UInt64 = 0
    do throws(LogError) {
      while let effects = try replay.step() {
        for verdict in effects.verdicts {
          number += 1
          if list {
            print("\(number)  \(Explanation(verdict, device: verdict.accessor).line)")
            continue
          }
          switch choice {
          case .number(number): return (number, verdict)
          case .first(verdict.kind): return (number, verdict)
          default: break
          }
        }
      }
    } catch .torn {
      // All before it holds; so does what follows from it.
      FileHandle.standardError.write(Data("iommulab explain: the log ends inside an entry\n".utf8))
    } catch {
      throw complaint(error)
    }
    if list && number == 0 { print("no verdict") }
    return nil
  }

  private func explain(_ log: RecordedLog, _ verdict: Verdict, _ number: UInt64) throws -> Explanation {
    do throws(LogError) {
      var retrace = try Retrace(log.bytes, of: verdict, number: number, device: verdict.accessor)
      while true {
        switch try retrace.advance(100_000) {
        case .underWay: continue
        case .found(let explanation): return explanation
        case .absent: preconditionFailure("the same log has the same verdicts")
        }
      }
    } catch {
      throw complaint(error)
    }
  }

  private func complaint(_ error: LogError) -> ExitCode {
    FileHandle.standardError.write(Data("iommulab explain: \(RecordedLog.text(error))\n".utf8))
    return ExitCode(1)
  }
}

/// The forms in which an explanation is printed.
enum ExplanationFormat: String, ExpressibleByArgument, CaseIterable {
  case text, json, mermaid, svg

  /// - Parameter number: the verdict's, for JSON.
  func render(_ explanation: Explanation, number: UInt64) -> String {
    switch self {
    case .text: explanation.text
    case .json: "{\"version\":1,\"number\":\(number),\"explanation\":\(explanation.json)}\n"
    case .mermaid: explanation.mermaid
    case .svg: explanation.svg
    }
  }
}
