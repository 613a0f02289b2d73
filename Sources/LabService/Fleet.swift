// SPDX-License-Identifier: Apache-2.0
import Logging
import NIOConcurrencyHelpers
import RPCServer

/// What the shards share: the list of machines, behind a lock that no request for a machine takes.
final class Fleet: Sendable {
  struct Record: Sendable {
    var id: UInt128
    var order: UInt64
    var loop: Int
    var tenant: Tenant
  }

  private struct State {
    var records: [Record] = []
    var lastOrder: UInt64 = 0
    var nextLoop = 0
  }

  private let state = NIOLockedValueBox(State())
  private let loopCount: Int
  private let logger: Logger

  init(loopCount: Int, logger: Logger) {
    self.loopCount = loopCount
    self.logger = logger
  }

  /// The loop of the next machine.
  func nextLoop() -> Int {
    state.withLockedValue { state in
      defer { state.nextLoop = (state.nextLoop + 1) % loopCount }
      return state.nextLoop
    }
  }

  /// Gives a new machine its id, in whose last byte its loop stands; nil: the limit is reached.
  func add(loop: Int, tenant: Tenant, limit: Int) -> (UInt128, order: UInt64)? {
    var random = SystemRandomNumberGenerator()
    let high = random.next()
    let low = random.next() & ~0xff | UInt64(loop)
    let id = UInt128(high | 1) << 64 | UInt128(low)
    return state.withLockedValue { state in
      guard state.records.count < limit else { return nil }
      state.lastOrder += 1
      state.records.append(Record(id: id, order: state.lastOrder, loop: loop, tenant: tenant))
      return (id, state.lastOrder)
    }
  }

  func remove(_ id: UInt128) {
    state.withLockedValue { state in state.records.removeAll { $0.id == id } }
  }

  func list(after order: UInt64, limit: Int, tenant: Tenant) -> ([Record], more: Bool) {
    state.withLockedValue { state in
      let found = state.records.filter { $0.order > order && $0.tenant == tenant }
      return (Array(found.prefix(limit)), found.count > limit)
    }
  }

  func noteSlowReader(_ device: String, _ machine: String, _ end: RPCEnd) {
    logger.warning(
      "device removed: its stream does not read",
      metadata: ["device": "\(device)", "machine": "\(machine)", "end": "\(end)"])
  }
}
