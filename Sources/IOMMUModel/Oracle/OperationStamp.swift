// SPDX-License-Identifier: Apache-2.0

/// Who did something to a page or a frame, and when. Short, because every frame and page keeps one;
/// `OperationHistory` has the rest.
public struct OperationStamp: Equatable, Sendable {
  public var operation: OperationID
  public var at: Nanoseconds
  public static let none = OperationStamp(operation: .none, at: 0)
}

/// What explanations need of operations, kept after they returned: the last 4,096.
struct OperationHistory {
  struct Record {
    var operation: OperationID
    var kind: OperationKind
    var startedAt: Nanoseconds = 0
    var flushedAt: Nanoseconds = 0
  }
  static let capacity = 4096
  private(set) var records: [Record] = []

  mutating func begin(_ operation: OperationID, _ kind: OperationKind) {
    let record = Record(operation: operation, kind: kind)
    let slot = Self.slot(operation)
    while records.count <= slot { records.append(record) }
    records[slot] = record
  }

  mutating func started(_ operation: OperationID, at time: Nanoseconds) {
    let slot = Self.slot(operation)
    if records[slot].startedAt == 0 { records[slot].startedAt = time }
  }

  mutating func flushed(_ operation: OperationID, at time: Nanoseconds) { records[Self.slot(operation)].flushedAt = time }

  func mark(_ stamp: OperationStamp) -> OperationMark {
    let slot = Self.slot(stamp.operation)
    guard stamp.operation != .none, slot < records.count, records[slot].operation == stamp.operation else { return .none }
    let record = records[slot]
    return OperationMark(
      operation: stamp.operation, kind: record.kind, at: stamp.at, startedAt: record.startedAt,
      flushedAt: record.flushedAt <= stamp.at ? record.flushedAt : 0)
  }

  private static func slot(_ operation: OperationID) -> Int { Int(truncatingIfNeeded: operation.number & UInt64(capacity - 1)) }
}
