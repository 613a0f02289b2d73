// SPDX-License-Identifier: Apache-2.0
import Histogram
import IOMMUModel
import LabProtocol

/// What a machine's turns added up to.
struct MachineFigures {
  var counters = Counters()
  private(set) var pageRequestService = Figure()
  private(set) var invalidationCompletion = Figure()

  /// A distribution in nanoseconds, two significant digits, made at its first sample.
  struct Figure {
    private var histogram: Histogram<UInt64>?
    private(set) var greatest: UInt64 = 0

    mutating func record(_ nanoseconds: UInt64) {
      if histogram == nil { histogram = Histogram(numberOfSignificantValueDigits: .two) }
      histogram!.record(nanoseconds)
      greatest = max(greatest, nanoseconds)
    }

    var latency: LabLatency {
      guard let histogram else { return LabLatency() }
      return .with {
        $0.count = histogram.totalCount
        $0.p50Nanoseconds = min(histogram.valueAtPercentile(50), greatest)
        $0.p99Nanoseconds = min(histogram.valueAtPercentile(99), greatest)
        $0.p999Nanoseconds = min(histogram.valueAtPercentile(99.9), greatest)
        $0.maxNanoseconds = greatest
      }
    }
  }

  mutating func note(_ response: PageResponse) {
    pageRequestService.record(response.serviceNanoseconds)
  }

  mutating func note(_ end: InvalidationEnd) {
    if end.kind == .completed { invalidationCompletion.record(end.nanoseconds) }
  }
}
