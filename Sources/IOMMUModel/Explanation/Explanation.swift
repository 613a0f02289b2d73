// SPDX-License-Identifier: Apache-2.0

/// Why a verdict was spoken: one sentence, and the shortest chain of events that led to it, oldest first.
///
/// Three makers fill it: the marks that a verdict carries (`init(_:device:)`), a recorded log (`Retrace`), and a step list
/// that was judged before anything ran (`StepJudge`). Four forms show it: text, JSON, Mermaid and SVG.
public struct Explanation: Equatable, Sendable {
  /// A participant: a lane of the diagram.
  public struct Lane: Equatable, Sendable {
    public enum Role: UInt8, Sendable { case cpu, operation, iommu, device }
    public var role: Role
    public var name: String
    /// What else is worth a line under the name; empty: nothing.
    public var detail: String

    public init(_ role: Role, _ name: String, detail: String = "") {
      self.role = role
      self.name = name
      self.detail = detail
    }
  }

  public struct Event: Equatable, Sendable {
    public enum Kind: UInt8, Sendable, CaseIterable {
      case step
      /// What should have happened, and did not.
      case missing
      /// The access that earned the verdict.
      case verdict

      public var name: String {
        switch self {
        case .step: "step"
        case .missing: "missing"
        case .verdict: "verdict"
        }
      }
    }
    /// Machine time; nil: judged before anything ran.
    public var at: Nanoseconds?
    public var kind: Kind
    /// Index of the lane in which it happens, and of the one to which it goes; equal: it stays there.
    public var from: Int
    public var to: Int
    public var text: String
  }

  public let kind: VerdictKind
  public let sentence: String
  public let lanes: [Lane]
  public let events: [Event]

  /// Drops lanes in which nothing happens.
  init(_ kind: VerdictKind, _ sentence: String, _ lanes: [Lane], _ events: [Event]) {
    self.kind = kind
    self.sentence = sentence
    let used = lanes.indices.filter { lane in events.contains { $0.from == lane || $0.to == lane } }
    self.lanes = used.map { lanes[$0] }
    self.events = events.map { event in
      var event = event
      event.from = used.firstIndex(of: event.from)!
      event.to = used.firstIndex(of: event.to)!
      return event
    }
  }

  /// The most events of a chain, the access among them.
  public static let eventLimit = 14

  /// When the verdict was spoken; nil: before anything ran.
  var end: Nanoseconds? { events.last?.at }
}
