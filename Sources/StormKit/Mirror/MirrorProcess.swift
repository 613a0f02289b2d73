// SPDX-License-Identifier: Apache-2.0
import Foundation
import RPCClient

/// `iommulab mirror`: a mirror of some address spaces, over the public API.
public enum MirrorProcess {
  /// Runs until the parent closes the input; never returns before.
  public static func run() -> Never {
    let parent = ParentLink()
    do {
      let configuration = try LineJSON.decode(MirrorProcessConfiguration.self, parent.configuration())
      let pump = try MirrorPump(configuration)
      parent.send("ready")
      parent.waitForStart()
      try pump.run(parent)
    } catch {
      parent.send("error " + LineJSON.encode("\(error)"))
      parent.waitForEnd()
    }
  }
}

/// The loop of a mirror process.
struct MirrorPump {
  /// Accesses that end between two reports of progress.
  private static let progressInterval: UInt64 = 64

  private let configuration: MirrorProcessConfiguration
  private let mirrors: [MirrorClient]

  /// Subscribes every mirror.
  init(_ configuration: MirrorProcessConfiguration) throws(StormFailure) {
    self.configuration = configuration
    var mirrors: [MirrorClient] = []
    for mirror in configuration.mirrors {
      mirrors.append(
        try MirrorClient(
          configuration.service, machine: configuration.machine, addressSpace: mirror.addressSpace,
          try configuration.endpoint(mirror)))
    }
    self.mirrors = mirrors
  }

  /// Does the accesses as the parent allows them, says how far they are and when they are done. Asked for the result, it
  /// goes on until every address space is gone, reports, and still answers events.
  func run(_ parent: ParentLink) throws(StormFailure) -> Never {
    let start = monotonicNow()
    let waitBefore = SchedulerWait()
    var result = MirrorProcessResult()
    var reported: UInt64 = 0
    var isFinished = false
    var hasReported = false
    while true {
      parent.forgetWake()
      let isLast = parent.reportIsDue
      let limit = isLast ? .max : startLimit(parent.limit)
      for mirror in mirrors {
        mirror.startLimit = limit
        try mirror.turn(timeout: .zero)
      }
      let ended = mirrors.reduce(0) { $0 + self.ended($1) }
      let isHeldBack = mirrors.contains { $0.endpoint.endedAccesses >= limit }
      if ended - reported >= Self.progressInterval || isHeldBack && ended != reported {
        parent.send("progress \(ended)")
        reported = ended
      }
      if !isFinished, !isLast, mirrors.allSatisfy({ self.ended($0) == configuration.accesses }) {
        isFinished = true
        result.wait = CPUWait(waited: SchedulerWait().longest(since: waitBefore), elapsed: monotonicNow() - start)
        parent.send("finished")
      }
      if isLast, !hasReported, mirrors.allSatisfy(\.isOver) {
        hasReported = true
        for mirror in mirrors { result.add(mirror) }
        parent.send("result " + LineJSON.encode(result))
      }
      waitForAny(parent)
    }
  }

  private func startLimit(_ thousandths: UInt64) -> UInt64 {
    let count = configuration.accesses
    if thousandths >= 1000 { return count }
    return count / 1000 * thousandths + count % 1000 * thousandths / 1000 + 1
  }

  /// Nobody waits for a mirror that will not access any more.
  private func ended(_ mirror: MirrorClient) -> UInt64 {
    mirror.isOver ? configuration.accesses : min(mirror.endpoint.endedAccesses, configuration.accesses)
  }

  /// The time-out covers what only a turn sees: output that a socket did not take.
  private func waitForAny(_ parent: ParentLink) {
    var entries = mirrors.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
    entries.append(pollfd(fd: parent.wakeDescriptor, events: Int16(POLLIN), revents: 0))
    poll(&entries, nfds_t(entries.count), 20)
  }
}
