// SPDX-License-Identifier: Apache-2.0
import IOMMUModel

/// The log of a machine that records, in memory, in pieces. It stops growing at its limit; what is there stays good.
struct MachineLog {
  /// What stands in the head of every log of this build.
  static let build = "iommulab"

  private var writer: LogWriter
  private var pieces: [[UInt8]] = []
  private var byteCount = 0
  private let limit: Int
  private(set) var isFull = false

  init(settings: Settings, limit: Int) {
    writer = LogWriter(settings: settings, build: Self.build)
    self.limit = limit
  }

  mutating func append(_ command: Command, _ reply: Reply, at time: Nanoseconds) {
    if isFull { return }
    writer.append(command, reply, at: time)
    cut()
  }

  mutating func append(pending sequence: UInt64, at time: Nanoseconds) {
    if isFull { return }
    writer.append(pending: sequence, at: time)
    cut()
  }

  @inline(__always)
  private mutating func cut() {
    if writer.byteCount >= 128 << 10 { close() }
  }

  private mutating func close() {
    let piece = writer.take()
    byteCount += piece.count
    pieces.append(piece)
    if byteCount >= limit { isFull = true }
  }

  /// Bytes that a snapshot would have.
  var size: Int { byteCount + writer.byteCount }

  /// The whole log so far.
  mutating func snapshot() -> [[UInt8]] {
    if writer.byteCount > 0 { close() }
    return pieces
  }

  /// The whole log so far, in one.
  var bytes: [UInt8] {
    mutating get {
      let pieces = snapshot()
      var bytes: [UInt8] = []
      bytes.reserveCapacity(byteCount)
      for piece in pieces { bytes += piece }
      return bytes
    }
  }
}
