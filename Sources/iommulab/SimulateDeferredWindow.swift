// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import IOMMUModel
import IOMMUSimulation

struct SimulateDeferredWindow: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "deferred-window",
    abstract: "The stale window of deferred flushes, against the entries and the time limit of the flush queue.",
    discussion: """
      One storm in virtual time for each point: an address space under `deferred`, two devices that use it all the time.
      A window is open from the return of an operation until the flush that covers it is complete; an access that reaches
      what is gone is counted. Defaults of Linux's dma-iommu: 256 entries, 10 ms.
      """)

  @Option(help: "Everything random follows from it.") var seed: UInt64 = 1
  @Option(help: "The strategy: deferred, or deferred-held, which keeps the frames.") var strategy = "deferred"
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard Strategy.named(strategy).map({ $0.deferral != .none }) == true else {
      let names = Strategy.all.filter { $0.strategy.deferral != .none }.map(\.name)
      throw ValidationError("--strategy: '\(strategy)' is none of \(names.joined(separator: ", "))")
    }
  }

  func run() {
    let chosen = Strategy.named(strategy)!
    if !json {
      print("seed \(seed), \(strategy)")
      print(
        Self.line([
          "entries", "time limit", "windows", "mean", "p99", "max", "stale accesses", "flushes", "pushed", "saved",
        ]))
    }
    var points: [String] = []
    for (entries, timeout) in DeferredWindow.points {
      let point = DeferredWindow(entries: entries, timeout: timeout, seed: seed, strategy: chosen)
      let windows = point.windows
      if json {
        points.append(
          "{\"entries\":\(entries),\"timeoutNanoseconds\":\(timeout),\"windows\":\(windows.closed.count),"
            + "\"meanNanoseconds\":\(UInt64(windows.mean)),\"p99Nanoseconds\":\(windows.quantile(990)),"
            + "\"maxNanoseconds\":\(windows.quantile(1000)),\"staleAccesses\":\(point.staleAccesses),"
            + "\"checkedAccesses\":\(point.counters.dmaChecked),\"queueFlushes\":\(point.counters.queueFlushes),"
            + "\"invalidations\":\(point.counters.invalidations),\"savedInvalidations\":\(point.savedInvalidations)}")
      } else {
        print(
          Self.line([
            "\(entries)", Self.span(timeout), "\(windows.closed.count)", Self.span(UInt64(windows.mean)),
            Self.span(windows.quantile(990)), Self.span(windows.quantile(1000)),
            "\(point.staleAccesses) of \(point.counters.dmaChecked)", "\(point.counters.queueFlushes)",
            "\(point.counters.invalidations)", "\(point.savedInvalidations)",
          ]))
      }
    }
    if json {
      print(
        "{\"version\":1,\"seed\":\(seed),\"strategy\":\"\(strategy)\",\"points\":[\(points.joined(separator: ","))]}")
    }
  }

  private static let widths = [7, 12, 9, 10, 10, 10, 16, 9, 8, 7]

  private static func line(_ cells: [String]) -> String {
    zip(cells, widths).map { String(repeating: " ", count: max(0, $1 - $0.count)) + $0 }.joined()
  }

  /// Microseconds or milliseconds, with three digits.
  private static func span(_ nanoseconds: UInt64) -> String {
    let (size, unit): (UInt64, String) = nanoseconds >= 1_000_000 ? (1_000_000, "ms") : (1000, "µs")
    let whole = nanoseconds / size
    if whole >= 100 { return "\(whole) \(unit)" }
    let hundredths = nanoseconds / (size / 100) % 100
    let digits = whole >= 10 ? "\(hundredths / 10)" : (hundredths < 10 ? "0" : "") + "\(hundredths)"
    return "\(whole).\(digits) \(unit)"
  }
}
