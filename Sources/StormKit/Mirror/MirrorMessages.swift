// SPDX-License-Identifier: Apache-2.0
import MirrorEndpoint

/// What a mirror process gets on its first input line.
struct MirrorProcessConfiguration: Codable {
  struct Mirror: Codable {
    var addressSpace: String
    var seed: UInt64
  }
  struct Run: Codable {
    var firstPage: UInt64
    var pageCount: UInt64
  }
  /// `HOST:PORT` of the service.
  var service: String
  var machine: String
  /// A name of `MirrorKind`.
  var kind: String
  /// Each on a connection of its own.
  var mirrors: [Mirror]
  /// What each of them has in its table: in ascending order, disjoint, none of them empty.
  var runs: [Run]
  /// Accesses of each mirror; when the parent asks for the result they go on until the release.
  var accesses: UInt64 = .max
  var concurrency = 4
  /// A name of `MirrorMisbehaviour.named`; nil: it obeys.
  var misbehaviour: String?

  func endpoint(_ mirror: Mirror) throws(StormFailure) -> MirrorEndpoint.Configuration {
    guard let kind = MirrorKind(rawValue: kind) else { throw .usage("no mirror is called '\(kind)'") }
    var end: UInt64 = 0
    for run in runs {
      let (next, overflow) = run.firstPage.addingReportingOverflow(run.pageCount)
      guard run.firstPage >= end, run.pageCount > 0, !overflow else {
        throw .usage("the runs of a mirror are in ascending order, disjoint and not empty")
      }
      end = next
    }
    guard end > 0 else { throw .usage("a mirror needs a run of pages") }
    var configuration = MirrorEndpoint.Configuration(
      kind: kind, seed: mirror.seed, runs: runs.map { MirrorRange(first: $0.firstPage, count: $0.pageCount) },
      accessCount: .max)
    configuration.concurrency = concurrency
    if kind.isInterval { configuration.faultPages = 4 }
    if let misbehaviour {
      guard let named = MirrorMisbehaviour.named.first(where: { $0.name == misbehaviour }) else {
        throw .usage("no misbehaviour of a mirror is called '\(misbehaviour)'")
      }
      configuration.misbehaviour = named.value
    }
    return configuration
  }
}

/// What a mirror process reports, of all its mirrors together.
struct MirrorProcessResult: Codable {
  var subscribers: [String] = []
  /// Uses of pages.
  var done: UInt64 = 0
  /// Uses of pages that could not be had.
  var refused: UInt64 = 0
  var fenced: UInt64 = 0
  var faults: UInt64 = 0
  var retries: UInt64 = 0
  var installs: UInt64 = 0
  var events: UInt64 = 0
  /// Events that were answered with EAGAIN.
  var refusals: UInt64 = 0
  /// Mirrors that saw the release.
  var released = 0
  /// Mirrors that did not answer in time.
  var lost = 0
  var wait = CPUWait()

  mutating func add(_ mirror: MirrorClient) {
    let counters = mirror.endpoint.counters
    subscribers.append(mirror.subscriber)
    done += counters.done
    refused += counters.refused
    fenced += counters.fenced
    faults += counters.faults
    retries += counters.retries
    installs += counters.installs
    events += counters.events
    refusals += counters.refusals
    released += mirror.endpoint.isReleased ? 1 : 0
    lost += mirror.endpoint.isFenced ? 1 : 0
  }
}
