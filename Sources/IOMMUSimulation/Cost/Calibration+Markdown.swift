// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

extension Calibration {
  /// The whole file.
  public var markdown: String {
    func published(_ value: UInt32?) -> String { value.map { CostTable.micro(Double($0)) } ?? "–" }
    let lean = PublishedFigure.pageRequestService.distribution.lean
    var lines = [
      "# Calibration", "",
      "Simulated beside published, in virtual time, from seed \(seed); printed by `iommulab calibrate`. Nothing here is tuned",
      "to come out: inputs are distributions that somebody published, and what follows from them, follows.", "",
      "## Inputs", "",
      "Rows and buckets are those of Linux's `dmar_perf_latency`. Simulated: \(sampleCount) requests one after the other,",
      "measured on the machine from outside. An input must come out within \(Int(Self.tolerance)) percentage points in each",
      "bucket.", "",
    ]
    lines += CostTable.table(
      ["Row", "Bucket", "published %", "simulated %", "points off", "source"],
      inputs.flatMap { histogram in
        zip(histogram.figure.buckets, histogram.shares).map { bucket, share in
          [
            histogram.figure.row,
            "\(Explanation.span(Nanoseconds(bucket.low))) – \(Explanation.span(Nanoseconds(bucket.high)))",
            CostTable.tenths(Double(bucket.share) / 10), CostTable.tenths(share / 10),
            Self.signed((share - Double(bucket.share)) / 10), histogram.figure.provenance,
          ]
        }
      })
    lines += [""]
    lines += CostTable.table(
      ["Row", "published mean µs", "simulated", "published greatest µs", "simulated", "least µs"],
      inputs.map { histogram in
        [
          histogram.figure.row, published(histogram.figure.mean), CostTable.micro(histogram.mean),
          published(histogram.figure.greatest), CostTable.micro(Double(histogram.greatest)),
          CostTable.micro(Double(histogram.least)),
        ]
      })
    lines += [
      "",
      "A mean that was published is an input too: shares of buckets leave it open, and values lean to the low ends of their",
      "buckets as far as it wants (\(CostTable.tenths(Double(lean) / 10)) % of the draws take the lesser of two places). Where none was published, values are",
      "uniform in their bucket.", "",
      "Source of \(PublishedFigure.all[0].provenance): \(PublishedFigure.all[0].source).", "",
      "Assumed, because nobody published it in this form: "
        + Self.assumed.map { "\($0.name) \($0.text)" }.joined(separator: ", ") + ".", "",
      "## Not inputs", "",
      "The handler's rate follows from the mean, if the machine adds nothing to it; the wait under load follows from the whole",
      "distribution, whose rare long values make it. Nobody published it for this machine: the expected figure is queueing",
      "theory's.", "",
    ]
    lines += Self.table(checks)
    lines += [
      "", "### Under load", "",
      "Page requests come by themselves, with exponential gaps, to one serial handler: \(sampleCount * Self.loadFactor) in each row. Few long",
      "values make most of the wait, and the fuller the handler the more of them meet: other seeds move the",
      "last two rows by up to 10 and 20 %.", "",
    ]
    lines += Self.table(load)
    if !windows.isEmpty { lines += stale }
    return lines.joined(separator: "\n") + "\n"
  }

  /// The deferred-window curve: only its shape can be compared, since what was published are the bounds.
  private var stale: [String] {
    [
      "", "### Deferred windows", "",
      "How long pages stay in reach of a device after their operation returned, under `deferred`. Linux's bounds are 256",
      "entries and 10 ms for each CPU (dma-iommu.c); the others stand around them. The shape to expect: the window grows with",
      "the time limit until the entries run out first, fewer entries close it earlier, and what it saves in invalidations it",
      "costs in accesses that reach what is gone.", "",
    ]
      + CostTable.table(
        ["Entries", "time limit ms", "windows", "mean ms", "p99 ms", "greatest ms", "stale accesses", "of", "saved"],
        windows.map { point in
          func milli(_ nanoseconds: Double) -> String { CostTable.tenths(nanoseconds / 1_000_000) }
          return [
            "\(point.entries)", milli(Double(point.timeout)), "\(point.windows.closed.count)",
            milli(point.windows.mean),
            milli(Double(point.windows.quantile(990))), milli(Double(point.windows.quantile(1000))),
            "\(point.staleAccesses)", "\(point.counters.dmaChecked)", "\(point.savedInvalidations)",
          ]
        })
  }

  private static func table(_ checks: [Check]) -> [String] {
    CostTable.table(
      ["Figure", "simulated", "expected", "unit", "deviation", "expected from"],
      checks.map {
        [
          $0.name, number($0.simulated), number($0.expected), $0.unit, signed($0.deviation) + " %", $0.source,
        ]
      })
  }

  private static func number(_ value: Double) -> String {
    value >= 1000 ? "\(CostTable.rounded(value))" : CostTable.tenths(value)
  }
  private static func signed(_ value: Double) -> String {
    let text = CostTable.tenths(value)
    return text.hasPrefix("−") ? text : "+" + text
  }

  /// Durations of the model that nobody published in this form.
  private static var assumed: [(name: String, text: String)] {
    let costs = CostModel()
    let list: [(String, Distribution)] = [
      ("S", costs.start), ("E", costs.end), ("an entry", costs.entry), ("C", costs.cpuFlush),
      ("the free of a frame", costs.frameFree), ("a CPU's fault", costs.cpuFault), ("the interrupt", costs.interrupt),
      ("a DMA's way", costs.dmaLanding),
    ]
    return list.map { name, distribution in
      (
        name,
        "\(Explanation.span(Nanoseconds(distribution.a.low))) – \(Explanation.span(Nanoseconds(distribution.a.high)))"
      )
    }
  }

  /// One JSON object.
  public var json: String {
    let inputs = inputs.map { histogram in
      let buckets = zip(histogram.figure.buckets, histogram.shares).map { bucket, share in
        "{\"lowNanoseconds\":\(bucket.low),\"highNanoseconds\":\(bucket.high),\"publishedThousandths\":\(bucket.share),"
          + "\"simulatedThousandths\":\(share)}"
      }
      return "{\"row\":\"\(histogram.figure.row)\",\"provenance\":\"\(histogram.figure.provenance)\","
        + "\"buckets\":[\(buckets.joined(separator: ","))],\"meanNanoseconds\":\(histogram.mean)}"
    }
    let windows = windows.map { point in
      "{\"entries\":\(point.entries),\"timeoutNanoseconds\":\(point.timeout),"
        + "\"meanNanoseconds\":\(UInt64(point.windows.mean)),\"p99Nanoseconds\":\(point.windows.quantile(990)),"
        + "\"staleAccesses\":\(point.staleAccesses),\"savedInvalidations\":\(point.savedInvalidations)}"
    }
    func list(_ checks: [Check]) -> String {
      "["
        + checks.map {
          "{\"name\":\(Explanation.quoted($0.name)),\"unit\":\"\($0.unit)\",\"simulated\":\($0.simulated),"
            + "\"expected\":\($0.expected),\"expectedFrom\":\(Explanation.quoted($0.source))}"
        }.joined(separator: ",") + "]"
    }
    return "{\"version\":1,\"seed\":\(seed),\"samples\":\(sampleCount),\"inputs\":[\(inputs.joined(separator: ","))],"
      + "\"checks\":\(list(checks)),\"load\":\(list(load)),\"deferredWindows\":[\(windows.joined(separator: ","))]}"
  }
}
