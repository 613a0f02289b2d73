// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import Foundation
import IOMMUModel
import Yams

/// A file with an order of letters, and the strategies under which it is to be judged.
struct OrderFile {
  let order: UserOrder
  let strategies: [(name: String, strategy: Strategy)]

  private struct Content: Decodable {
    var operation: String
    var column: String?
    var order: [String]
    var batch: [String]?
    var strategies: [String]?
    var strategy: Hooks?
  }

  private struct Hooks: Decodable {
    enum CodingKeys: String, CodingKey, CaseIterable {
      case flushAt = "flush-at"
      case emptyTable = "empty-table"
      case deferral, atc, release
      case wholeFrom = "whole-from-pages"
      case perPage = "command-per-page"
    }
    var flushAt: [String]?
    var emptyTable: String?
    var deferral: String?
    var wholeFrom: UInt32?
    var perPage: Bool?
    var atc: Bool?
    var release: Bool?
  }

  private static let keys = ["operation", "column", "order", "batch", "strategies", "strategy"]
  private static let hookKeys = Hooks.CodingKeys.allCases.map(\.stringValue)

  /// - Throws: what is wrong with the file, with every mistake that can be told.
  init(path: String) throws {
    guard let bytes = FileManager.default.contents(atPath: path) else {
      throw ValidationError("'\(path)' cannot be read. Give the path of an order, as YAML.")
    }
    let text = String(decoding: bytes, as: UTF8.self)
    let content: Content
    do {
      try Self.refuseUnknownKeys(text)
      content = try YAMLDecoder().decode(Content.self, from: text)
    } catch let error as DecodingError {
      throw ValidationError("'\(path)': \(Self.text(error))")
    } catch {
      throw ValidationError("'\(path)': \(error)")
    }
    guard let kind = OperationKind.named(content.operation) else {
      throw ValidationError(
        "'\(path)': operation: '\(content.operation.prefix(64))' is none of \(UserOrder.kinds.map(\.identifier).joined(separator: ", "))"
      )
    }
    guard let column = KernelColumn.named(content.column ?? KernelColumn.now.name) else {
      throw ValidationError("'\(path)': column: '\(content.column ?? "")' is neither 2014 nor now")
    }
    do throws(UserOrder.Mistake) {
      order = try UserOrder(kind, column, letters: content.order, batch: content.batch ?? UserOrder.usualBatch)
    } catch {
      throw ValidationError("'\(path)':\n\(error.text)")
    }
    var chosen = try (content.strategies ?? (content.strategy == nil ? Strategy.named.map(\.name) : [])).map { name in
      guard let strategy = Strategy.named(name) else {
        throw ValidationError(
          "'\(path)': strategies: '\(name)' is none of \(Strategy.named.map(\.name).joined(separator: ", "))")
      }
      return (name: name, strategy: strategy)
    }
    guard content.strategies?.isEmpty != true else {
      throw ValidationError("'\(path)': strategies: the list is empty; name one, or leave it out for all")
    }
    if let hooks = content.strategy { chosen.append(("its own strategy", try Self.strategy(hooks, path))) }
    strategies = chosen
  }

  private static func strategy(_ hooks: Hooks, _ path: String) throws -> Strategy {
    do throws(Strategy.Mistakes) {
      return try Strategy(
        flushAt: hooks.flushAt ?? [], emptyTable: hooks.emptyTable ?? "none", deferral: hooks.deferral ?? "none",
        wholeFrom: hooks.wholeFrom, perPage: hooks.perPage ?? false, flushesATC: hooks.atc ?? true,
        release: hooks.release ?? true)
    } catch {
      let lines = error.list.map { "strategy: \(key($0.part).stringValue): \($0.text)" }
      throw ValidationError("'\(path)':\n" + lines.joined(separator: "\n"))
    }
  }

  private static func key(_ part: Strategy.Mistake.Part) -> Hooks.CodingKeys {
    switch part {
    case .flushAt: .flushAt
    case .emptyTable: .emptyTable
    case .deferral: .deferral
    case .wholeFrom: .wholeFrom
    }
  }

  /// A key that is not known would be passed over by the decoder, and what it says be lost.
  private static func refuseUnknownKeys(_ text: String) throws {
    guard let mapping = try Yams.compose(yaml: text)?.mapping else {
      throw ValidationError("the file holds no keys; it needs operation and order")
    }
    func unknown(_ node: Node.Mapping?, _ known: [String], _ place: String) -> [String] {
      (node.map { Array($0.keys) } ?? []).map { $0.string ?? "a key that is no text" }.filter { !known.contains($0) }
        .map { "\(place)unknown key '\($0.prefix(64))'; there are \(known.joined(separator: ", "))" }
    }
    let mistakes =
      unknown(mapping, Self.keys, "") + unknown(mapping["strategy"]?.mapping, Self.hookKeys, "strategy: ")
    guard mistakes.isEmpty else { throw ValidationError(mistakes.joined(separator: "\n")) }
  }

  private static func text(_ error: DecodingError) -> String {
    switch error {
    case .keyNotFound(let key, _): "'\(key.stringValue)' is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context):
      "'\(context.codingPath.map(\.stringValue).joined(separator: "."))' has another form than it needs: \(context.debugDescription)"
    case .dataCorrupted(let context):
      "it is no YAML: \(context.underlyingError.map { "\($0)" } ?? context.debugDescription)"
    @unknown default: "\(error)"
    }
  }
}
