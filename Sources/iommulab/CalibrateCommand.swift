// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import IOMMUSimulation

struct CalibrateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "calibrate",
    abstract: "Simulated beside published figures: which are inputs, and what follows from them.",
    discussion: """
      Page requests, IOTLB and device-TLB invalidations are measured on machines with the default cost model, in virtual \
      time, and stand beside the published buckets that they are drawn from; an input must come out within \
      \(Int(Calibration.tolerance)) percentage points. Below stand figures that nobody put in: what one serial fault handler \
      serves, and how long a request takes under load. Without options the output is docs/calibration.md.

      Exit codes: 0 every input is reproduced, 1 one is not, 2 usage.
      """)

  @Option(help: "Everything random follows from it.") var seed: UInt64 = 1
  @Option(help: "Samples of each input.") var samples = Calibration.sampleCount
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    // With fewer, chance alone moves a bucket by more than the tolerance.
    guard (5000...200_000).contains(samples) else { throw ValidationError("--samples: 5000 to 200000") }
  }

  func run() throws {
    let calibration = Calibration(seed: seed, sampleCount: samples)
    print(json ? calibration.json + "\n" : calibration.markdown, terminator: "")
    if calibration.inputs.contains(where: { $0.distance > Calibration.tolerance }) { throw ExitCode(1) }
  }
}
