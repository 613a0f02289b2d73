// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol

extension Strategy {
  /// The strategy of a binding: one that has a name, or one that the caller wrote.
  init(_ binding: LabSvaBinding) throws(CallError) {
    guard binding.hasOwnStrategy else {
      guard let named = Strategy.named(binding.strategy) else {
        throw .service(
          .unknownStrategy,
          "no strategy of this name; there are \(Strategy.named.map(\.name).joined(separator: ", "))",
          fields: ["sva.strategy"])
      }
      self = named
      return
    }
    guard binding.strategy.isEmpty else {
      throw .service(
        .unknownStrategy, "a name and a strategy of your own; give one of them",
        fields: ["sva.strategy", "sva.ownStrategy"])
    }
    let own = binding.ownStrategy
    do throws(Strategy.Mistakes) {
      self = try Strategy(
        flushAt: own.flushAt, emptyTable: own.emptyTable.isEmpty ? EmptyTable.none.name : own.emptyTable,
        deferral: own.deferral.isEmpty ? Deferral.none.name : own.deferral,
        wholeFrom: own.hasWholeFromPages ? own.wholeFromPages : nil, perPage: own.commandPerPage,
        flushesATC: own.hasAtc ? own.atc : true, release: own.hasRelease ? own.release : true)
    } catch {
      var fields: [String] = []
      for field in error.list.map({ "sva.ownStrategy." + Self.field($0.part) }) where !fields.contains(field) {
        fields.append(field)
      }
      throw .service(.unknownStrategy, error.list.map(\.text).joined(separator: "; "), fields: fields)
    }
  }

  private static func field(_ part: Mistake.Part) -> String {
    switch part {
    case .flushAt: "flushAt"
    case .emptyTable: "emptyTable"
    case .deferral: "deferral"
    case .wholeFrom: "wholeFromPages"
    }
  }
}
