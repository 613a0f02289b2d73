// SPDX-License-Identifier: Apache-2.0
import DeviceEndpoint
import Foundation

/// What a device process gets on its first input line.
struct DeviceProcessConfiguration: Codable {
  /// `HOST:PORT` of the service.
  var service: String
  var machine: String
  var devices: [DeviceSpec]
}

/// What a device process reports when its list is done. Latencies are client wall time, ns.
struct DeviceProcessResult: Codable {
  var accesses: UInt64 = 0
  var done: UInt64 = 0
  var refused: UInt64 = 0
  var gaveUp: UInt64 = 0
  var fenced: UInt64 = 0
  var atcHits: UInt64 = 0
  var translations: UInt64 = 0
  var discardedAnswers: UInt64 = 0
  var retries: UInt64 = 0
  var unexpected: UInt64 = 0
  var faults = MessageFaults()
  var pageRequests = LatencyHistogram()
  var invalidations = LatencyHistogram()
  var accessLatency = LatencyHistogram()
  var wait = CPUWait()

  mutating func add(_ counters: EndpointCounters) {
    accesses += counters.accesses
    done += counters.done
    refused += counters.refused
    gaveUp += counters.gaveUp
    fenced += counters.fenced
    atcHits += counters.atcHits
    translations += counters.translations
    discardedAnswers += counters.discardedAnswers
    retries += counters.retries
    unexpected += counters.unexpected
  }

  mutating func add(_ other: MessageFaults) {
    faults.refused += other.refused
    faults.ignored += other.ignored
    if faults.firstReason == nil { faults.firstReason = other.firstReason }
  }

  /// Records and empties what a device has measured.
  mutating func take(_ out: inout EndpointOutput) {
    for finished in out.finished where finished.result == .done {
      accessLatency.record(finished.endedAt &- finished.intendedAt)
    }
    for nanoseconds in out.pageRequestNanoseconds { pageRequests.record(nanoseconds) }
    for nanoseconds in out.invalidationNanoseconds { invalidations.record(nanoseconds) }
    out.removeAll()
  }
}

/// What a mutator process gets on its first input line.
struct MutatorConfiguration: Codable {
  struct Lane: Codable {
    var addressSpace: String
    var cpu: UInt32
    var own: DeviceSpec.Target
    var steps: [MutatorStep]
  }
  var service: String
  var machine: String
  /// Address spaces that this process changes, each by a list of its own, side by side.
  var lanes: [Lane]
  /// Accesses of all devices: step i of n is due when i/n of them have ended.
  var totalAccesses: UInt64
}

/// What a mutator process reports when its lists are done.
struct MutatorResult: Codable {
  var operations: UInt64 = 0
  var loadsVerified: UInt64 = 0
  var mismatches: UInt64 = 0
  var operationLatency = LatencyHistogram()
  var wait = CPUWait()
}

/// Time that a process (its thread that waited longest) spent in the run queue, out of the time that the storm took.
struct CPUWait: Codable, Equatable {
  var waited: UInt64 = 0
  var elapsed: UInt64 = 0
  var share: Double { elapsed > 0 ? Double(waited) / Double(elapsed) : 0 }
}

/// JSON on one line, for pipes and for `--json`.
enum LineJSON {
  static func encode(_ value: some Encodable, pretty: Bool = false) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting =
      pretty ? [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes] : [.withoutEscapingSlashes]
    // Every value here is made of numbers, strings, arrays and objects with string keys: encoding cannot fail.
    return String(decoding: try! encoder.encode(value), as: UTF8.self)
  }
  static func decode<Value: Decodable>(_ type: Value.Type, _ text: String) throws(StormFailure) -> Value {
    do {
      return try JSONDecoder().decode(type, from: Data(text.utf8))
    } catch {
      throw .broken("a process of the storm sent text that is not its message: \(error)")
    }
  }
}
