// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// What an operation of a cell takes under the cost model's distributions: on the scene of the trial, with devices that
/// hold its pages in their ATCs and complete at once. Machine time; no network is in it.
public struct CellCost: Sendable {
  /// Time that was spent waiting for I.
  public struct Wait: Sendable {
    /// Of one site of one run.
    public var longest: Nanoseconds = 0
    /// Of one run, on average.
    public var mean: Double = 0
  }
  /// From acceptance to return, on average, and the part of it that was spent on I: flushing and waiting for completions.
  public private(set) var nanoseconds: Double = 0
  public var flushNanoseconds: Double { waiting.mean }
  /// Invalidations pushed to the devices, for one operation.
  public private(set) var invalidations: Double = 0
  /// All of the waiting for I, and the parts of it that fell under a page-table lock and under the mmap lock.
  public private(set) var waiting = Wait()
  public private(set) var underPageTableLock = Wait()
  public private(set) var underMmapLock = Wait()
  /// What a wait that sleeps would give back to the CPU: nobody sleeps under a page-table lock.
  public var sleepable: Double { waiting.mean - underPageTableLock.mean }

  /// - Parameters:
  ///   - sharers: devices that share the address space, each with a notifier of its own.
  ///   - callsHooks: whether S and E are called at all; a caller that asks first whether anybody needs them does not.
  public init(
    _ cell: Cell, sharers: Int = 2, callsHooks: Bool = true, costs: CostModel = CostModel(), runs: UInt64 = 200
  ) {
    var costs = costs
    if !callsHooks { (costs.start, costs.end) = (.constant(0), .constant(0)) }
    // One scene for all seeds: setting it up takes longer than the operation.
    let scene = Run(cell, costs, sharers: sharers)
    for seed in 1...runs {
      var run = scene
      run.reseed(seed)
      run.perform()
      nanoseconds += Double(run.duration)
      invalidations += Double(run.invalidations)
      for wait in run.waits {
        waiting.add(wait.duration)
        if wait.locks.contains(.pageTable) { underPageTableLock.add(wait.duration) }
        if wait.locks.contains(.mmap) { underMmapLock.add(wait.duration) }
      }
    }
    let runs = Double(runs)
    nanoseconds /= runs
    invalidations /= runs
    waiting.mean /= runs
    underPageTableLock.mean /= runs
    underMmapLock.mean /= runs
  }

  private struct Run {
    let scene: CellScene
    let request: OperationRequest?
    var machine: Machine
    var effects = Effects()
    var generator: SeededGenerator
    var operation: OperationID?
    var began: Nanoseconds = 0
    var lastLetter: Nanoseconds = 0
    var duration: Nanoseconds = 0
    var waits: [(duration: Nanoseconds, locks: HeldLocks)] = []
    var invalidations: UInt64 = 0
    var isOver = false
    /// What devices will complete; the next is the last.
    var owed: [(at: Nanoseconds, device: DeviceID, itag: UInt8)] = []

    init(_ cell: Cell, _ costs: CostModel, sharers: Int) {
      (scene, machine) = CellScene.make(cell, costs: costs, seed: 1, sharers: sharers)
      request = scene.request(cell)
      generator = SeededGenerator(seed: 1, purpose: "completions")
      for device in scene.devices {
        apply(
          .translate(
            device, TranslationRequest(tag: 1, pasid: CellScene.pasid, page: CellScene.page(cell), noWrite: false)))
      }
      effects.removeAll()
    }

    mutating func reseed(_ seed: UInt64) {
      machine.reseed(seed)
      generator = SeededGenerator(seed: seed, purpose: "completions")
    }

    mutating func perform() {
      began = machine.time
      if let request {
        guard case .operation(let id)? = apply(.start(request)) else { return }
        operation = id
      } else if let device = scene.devices.last {
        apply(
          .pageRequest(
            device,
            PageRequest(
              pasid: CellScene.pasid, page: CellScene.first, rights: .readWrite, groupIndex: 1, last: true)))
      }
      lastLetter = began
      take()
      while !isOver {
        let due = machine.nextDue()
        if let next = owed.last, due == nil || next.at <= due! {
          owed.removeLast()
          apply(.complete(next.device, itagVector: 1 << UInt32(next.itag)), at: next.at)
        } else if let due {
          machine.applyNext(at: due, into: &effects)
        } else {
          return
        }
        take()
      }
    }

    @discardableResult
    private mutating func apply(_ command: Command, at time: Nanoseconds? = nil) -> Reply? {
      do throws(Refusal) { return try machine.apply(command, at: time ?? machine.time, into: &effects) } catch {
        return nil
      }
    }

    private mutating func take() {
      let count = owed.count
      for effect in effects.list {
        switch effect {
        case .invalidation(let device, let invalidation):
          invalidations += 1
          let service = PublishedFigure.deviceTLBInvalidation.distribution.draw(&generator)
          owed.append((machine.time + service, device, invalidation.itag))
        case .step(let step):
          if step.letter == .flushed {
            waits.append((machine.time - lastLetter, machine.locks(of: step.operation)))
          }
          lastLetter = machine.time
        case .operation(let outcome) where outcome.operation == operation:
          duration = outcome.nanoseconds
          isOver = true
        case .pageResponse where operation == nil:
          duration = machine.time - began
          isOver = true
        default: break
        }
      }
      if owed.count > count { owed.sort { ($0.at, $0.device.rawValue) > ($1.at, $1.device.rawValue) } }
      effects.removeAll()
    }
  }
}

extension CellCost.Wait {
  fileprivate mutating func add(_ duration: Nanoseconds) {
    longest = max(longest, duration)
    mean += Double(duration)
  }
}
