// SPDX-License-Identifier: Apache-2.0
import DeviceEndpoint
import IOMMUModel

/// One device, one serial fault handler, and page requests that come one after the other, or by the clock.
struct FaultBench {
  /// How page requests come.
  enum Arrivals {
    /// So many are outstanding at any time.
    case closed(Int)
    /// Exponential gaps with this mean: an open loop.
    case poisson(Nanoseconds)
  }
  /// Of each request: from its arrival until its answer, and the part of it that the handler served it.
  struct Sample {
    var response: Nanoseconds
    var service: Nanoseconds
  }
  private(set) var samples: [Sample] = []
  /// Machine time from the first arrival until the last answer.
  private(set) var duration: Nanoseconds = 0

  private var machine: Machine
  private var device = DeviceID(rawValue: 0)
  private var effects = Effects()
  private var arrivedAt: [Nanoseconds]
  /// When the driver's interrupt thread took the request over.
  private var takenAt: [Nanoseconds]
  private var freeGroups: [UInt16]
  private var waitingGroups: [UInt16] = []
  private var nextPage = Self.area.first
  private var lastAnswer: Nanoseconds = 0

  private static let pasid: PASID = 1
  private static let area = PageRange(first: 0x10000, count: 1 << 20)
  private static let groupCount = 512

  init(costs: CostModel, seed: UInt64) {
    var settings = Settings()
    settings.seed = seed
    settings.costs = costs
    settings.handlerWorkers = 1
    settings.frameCount = 1 << 21
    settings.pageRequestQueueCapacity = UInt32(Self.groupCount)
    machine = Machine(settings: settings)
    arrivedAt = Array(repeating: 0, count: Self.groupCount)
    takenAt = arrivedAt
    freeGroups = (0..<UInt16(Self.groupCount)).reversed()
    guard case .addressSpace(let space)? = apply(.createAddressSpace),
      case .device(let device, _)? = apply(
        .registerDevice(DeviceProfile(rid: 8, priAllocation: UInt32(Self.groupCount))))
    else { preconditionFailure("a new machine takes them") }
    self.device = device
    apply(.start(.mmap(space, Self.area, .readWrite, pageSizeLog2: 12)))
    apply(.attach(device, Self.pasid, .addressSpace(space, .invalidateRange)))
    machine.run(until: .max, limit: 1000, into: &effects)
    effects.removeAll()
  }

  /// Serves so many page requests, each for a page of its own.
  mutating func run(_ arrivals: Arrivals, count: Int, seed: UInt64) {
    samples.reserveCapacity(count)
    let start = machine.time
    switch arrivals {
    case .closed(let outstanding):
      for _ in 0..<min(outstanding, count) { request() }
      while samples.count < count {
        machine.applyNext(at: 0, into: &effects)
        for _ in 0..<take() where nextPage - Self.area.first < UInt64(count) { request() }
      }
    case .poisson(let gap):
      var generator = StreamGenerator(seed: seed)
      var next = start + generator.nextExponential(mean: gap)
      while samples.count < count {
        let due = machine.nextDue()
        if nextPage - Self.area.first < UInt64(count), due == nil || next <= due!, !freeGroups.isEmpty {
          request(at: next)
          next += generator.nextExponential(mean: gap)
        } else {
          machine.applyNext(at: 0, into: &effects)
          take()
        }
      }
    }
    duration = machine.time - start
  }

  private mutating func request(at time: Nanoseconds? = nil) {
    let group = freeGroups.removeLast()
    arrivedAt[Int(group)] = time ?? machine.time
    waitingGroups.append(group)
    apply(
      .pageRequest(
        device, PageRequest(pasid: Self.pasid, page: nextPage, rights: .readWrite, groupIndex: group, last: true)),
      at: time)
    nextPage += 1
    take()
  }

  /// - Returns: how many were answered.
  @discardableResult
  private mutating func take() -> Int {
    if effects.counters.faultInterrupts > 0 {
      for group in waitingGroups { takenAt[Int(group)] = machine.time }
      waitingGroups.removeAll(keepingCapacity: true)
    }
    var answered = 0
    for effect in effects.list {
      guard case .pageResponse(_, let response) = effect else { continue }
      let group = Int(response.groupIndex)
      precondition(response.code == .success, "every page has its area and a frame")
      // The handler is serial: it began with this one when it had answered the one before.
      let began = max(takenAt[group], lastAnswer)
      samples.append(Sample(response: machine.time - arrivedAt[group], service: machine.time - began))
      lastAnswer = machine.time
      freeGroups.append(response.groupIndex)
      answered += 1
    }
    effects.removeAll()
    return answered
  }

  @discardableResult
  private mutating func apply(_ command: Command, at time: Nanoseconds? = nil) -> Reply? {
    do throws(Refusal) {
      return try machine.apply(command, at: time ?? machine.time, into: &effects)
    } catch {
      preconditionFailure("the bench asks for what there is: \(error)")
    }
  }
}
