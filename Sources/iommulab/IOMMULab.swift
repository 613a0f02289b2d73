// SPDX-License-Identifier: Apache-2.0
import ArgumentParser

struct IOMMULab: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "iommulab",
    abstract: "Simulated machines with an IOMMU, as a network service.")
}
