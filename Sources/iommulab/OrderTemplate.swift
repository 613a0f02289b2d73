// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import IOMMUModel

/// The kernel's own order of an operation as a file that `iommulab judge` reads, with what each letter means.
enum OrderTemplate {
  static func text(_ operation: String?, _ column: KernelColumn) throws -> String {
    guard let operation, let kind = OperationKind.named(operation) else {
      throw ValidationError(
        "--template: give --operation, one of \(UserOrder.kinds.map(\.identifier).joined(separator: ", "))")
    }
    let own: UserOrder
    do throws(UserOrder.Mistake) { own = try UserOrder(ownOf: kind, column) } catch {
      throw ValidationError(error.text)
    }
    var lines = ["# \(kind.name), \(column.title): the kernel's own order. Move letters, then: iommulab judge FILE"]
    lines += UserOrder.alphabet(kind, column).map { letter in "#   \(letter): \(UserOrder.meaning(of: letter))" }
    lines += [
      "operation: \(kind.identifier)", "column: \(column.name)", "order: [\(own.letters.joined(separator: ", "))]",
    ]
    if UserOrder.gathers(kind, column) { lines.append("batch: [\(own.batch.joined(separator: ", "))]") }
    return lines.joined(separator: "\n") + "\n"
  }
}
