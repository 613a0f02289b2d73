// SPDX-License-Identifier: Apache-2.0
import MirrorEndpoint

/// What a mirror process gets on its first input line.
struct MirrorProcessConfiguration: Codable {
  /// `HOST:PORT` of the service.
  var service: String
  var machine: String
  var addressSpace: String
  /// A name of `MirrorKind`.
  var kind: String
  var seed: UInt64 = 1
  var firstPage: UInt64
  var pageCount: UInt64
  /// Accesses; they go on until the parent asks for the result.
  var accesses: UInt64 = .max
  var concurrency = 4
  /// A name of `MirrorMisbehaviour.named`; nil: it obeys.
  var misbehaviour: String?

  func endpoint() throws(StormFailure) -> MirrorEndpoint.Configuration {
    guard let kind = MirrorKind(rawValue: kind) else { throw .usage("no mirror is called '\(kind)'") }
    var configuration = MirrorEndpoint.Configuration(
      kind: kind, seed: seed, range: MirrorRange(first: firstPage, count: pageCount), accessCount: accesses)
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

/// What a mirror process reports.
struct MirrorProcessResult: Codable {
  var subscriber: String
  var done: UInt64
  var refused: UInt64
  var fenced: UInt64
  var faults: UInt64
  var retries: UInt64
  var installs: UInt64
  var events: UInt64
  var refusals: UInt64
  var isReleased: Bool
  var isFenced: Bool
}

/// `iommulab mirror`: one mirror of an address space.
public enum MirrorProcess {
  /// Runs until the parent has read the result.
  public static func run() -> Never {
    let parent = ParentLink()
    do {
      let configuration = try LineJSON.decode(MirrorProcessConfiguration.self, parent.configuration())
      let mirror = try MirrorClient(
        configuration.service, machine: configuration.machine, addressSpace: configuration.addressSpace,
        try configuration.endpoint())
      parent.send("ready")
      parent.waitForStart()
      while !parent.reportIsDue { try mirror.turn(timeout: .milliseconds(20)) }
      parent.send("result " + LineJSON.encode(mirror.result))
    } catch {
      parent.send("error " + LineJSON.encode("\(error)"))
    }
    parent.waitForEnd()
  }
}

extension MirrorClient {
  var result: MirrorProcessResult {
    let counters = endpoint.counters
    return MirrorProcessResult(
      subscriber: subscriber, done: counters.done, refused: counters.refused, fenced: counters.fenced,
      faults: counters.faults, retries: counters.retries, installs: counters.installs, events: counters.events,
      refusals: counters.refusals, isReleased: endpoint.isReleased, isFenced: endpoint.isFenced)
  }
}
