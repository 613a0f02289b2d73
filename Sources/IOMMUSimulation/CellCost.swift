// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// What an operation of a cell takes, on average, under the cost model's distributions: on the scene of the trial, with
/// devices that hold its pages in their ATCs and complete at once. Machine time; no network is in it.
public struct CellCost: Sendable {
  /// From acceptance to return, and the part of it that was spent on I: flushing and waiting for completions.
  public private(set) var nanoseconds: Double = 0
  public private(set) var flushNanoseconds: Double = 0
  /// Invalidations pushed to the two devices, for one operation.
  public private(set) var invalidations: Double = 0

  /// Device-TLB invalidation on an Intel machine: 67 % 0.1–1 µs, 33 % 1–10 µs (QEMU docs, qpl-compression.rst).
  public static let completion = Distribution(.init(upTo: 670, 100, 1000), .init(upTo: 1000, 1000, 10_000))

  public init(_ cell: Cell, costs: CostModel = CostModel(), runs: UInt64 = 200) {
    for seed in 1...runs {
      var run = Run(cell, costs, seed: seed)
      run.perform()
      nanoseconds += Double(run.duration)
      flushNanoseconds += Double(run.flushing)
      invalidations += Double(run.invalidations)
    }
    nanoseconds /= Double(runs)
    flushNanoseconds /= Double(runs)
    invalidations /= Double(runs)
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
    var flushing: Nanoseconds = 0
    var invalidations: UInt64 = 0
    var isOver = false
    /// What devices will complete, by time.
    var owed: [(at: Nanoseconds, device: DeviceID, itag: UInt8)] = []

    init(_ cell: Cell, _ costs: CostModel, seed: UInt64) {
      (scene, machine) = CellScene.make(cell, costs: costs, seed: seed)
      request = scene.request(cell)
      generator = SeededGenerator(seed: seed, purpose: "completions")
    }

    mutating func perform() {
      let page = CellScene.first
      for device in scene.devices {
        apply(.translate(device, TranslationRequest(tag: 1, pasid: CellScene.pasid, page: page, noWrite: false)))
      }
      began = machine.time
      if let request {
        guard case .operation(let id)? = apply(.start(request)) else { return }
        operation = id
      } else {
        apply(
          .pageRequest(
            scene.devices[1],
            PageRequest(pasid: CellScene.pasid, page: page, rights: .readWrite, groupIndex: 1, last: true)))
      }
      lastLetter = began
      take()
      while !isOver {
        owed.sort { $0.at < $1.at }
        let due = machine.nextDue()
        if let next = owed.first, due == nil || next.at <= due! {
          owed.removeFirst()
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
      for effect in effects.list {
        switch effect {
        case .invalidation(let device, let invalidation):
          invalidations += 1
          owed.append((machine.time + CellCost.completion.draw(&generator), device, invalidation.itag))
        case .step(let step):
          if step.letter == .flushed { flushing += machine.time - lastLetter }
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
      effects.removeAll()
    }
  }
}
