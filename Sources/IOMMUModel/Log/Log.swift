// SPDX-License-Identifier: Apache-2.0

/// A machine's log: what happened to it, enough to make it happen again, byte for byte.
///
///     "IOMMULAB"  8 bytes
///     version     4; 1 had no kernel in the settings, 2 no flush queue, cached rights or notifier subscribers, 3 no
///                 `kernelTableFree`
///     build       length, UTF-8
///     settings    `Settings.encode`
///     entries     until the end:
///       0, time, command, reply      a command that was accepted, with the choices that it was given
///       1, time, sequence            an internal turn, by the sequence of its scheduling
///
/// Every number is unsigned LEB128; `time` is the difference to the entry before. Refused commands changed nothing and
/// are not there. A tail that ends inside an entry is torn: all before it holds.
public enum Log {
  public static let magic = Array("IOMMULAB".utf8)
  public static let version: UInt64 = 4

  public enum Turn: Equatable, Sendable {
    case command(Command, Reply)
    case pending(sequence: UInt64)
  }
  public struct Entry: Equatable, Sendable {
    public var time: Nanoseconds
    public var turn: Turn
  }
}

/// Writes a log into a buffer that its owner takes away now and then.
public struct LogWriter: Sendable {
  private var encoder = ByteEncoder()
  private var lastTime: Nanoseconds = 0

  public init(settings: Settings, build: String) {
    encoder.put(raw: Log.magic)
    encoder.put(Log.version)
    encoder.put(build)
    settings.encode(to: &encoder)
  }

  /// - Parameter time: machine time of the turn (`Machine.time` after it).
  public mutating func append(_ command: Command, _ reply: Reply, at time: Nanoseconds) {
    encoder.put(0)
    put(time)
    command.encode(to: &encoder)
    reply.encode(to: &encoder)
  }

  public mutating func append(pending sequence: UInt64, at time: Nanoseconds) {
    encoder.put(1)
    put(time)
    encoder.put(sequence)
  }

  private mutating func put(_ time: Nanoseconds) {
    encoder.put(time - lastTime)
    lastTime = time
  }

  public var byteCount: Int { encoder.bytes.count }

  /// The bytes written since the last call.
  public mutating func take() -> [UInt8] {
    defer { encoder = ByteEncoder() }
    return encoder.bytes
  }
}

/// Reads a log.
public struct LogReader: Sendable {
  public let settings: Settings
  public let build: String
  private var decoder: ByteDecoder
  private var time: Nanoseconds = 0

  /// - Throws: `notALog`, `unknownVersion`, or what is wrong with the head.
  public init(_ bytes: [UInt8]) throws(LogError) {
    decoder = ByteDecoder(bytes)
    guard bytes.count >= Log.magic.count, try decoder.raw(Log.magic.count) == Log.magic else { throw .notALog }
    let version = try decoder.number()
    guard (1...Log.version).contains(version) else { throw .unknownVersion(version) }
    build = try decoder.text()
    settings = try Settings(from: &decoder, version: version)
    guard settings.isUsable else { throw .malformed(offset: decoder.offset) }
  }

  /// The next entry; nil at the end.
  public mutating func next() throws(LogError) -> Log.Entry? {
    if decoder.isAtEnd { return nil }
    let start = decoder.offset
    do throws(LogError) {
      return try entry()
    } catch .torn {
      throw .torn(offset: start)
    }
  }

  private mutating func entry() throws(LogError) -> Log.Entry {
    let kind = try decoder.number()
    let (sum, overflow) = time.addingReportingOverflow(try decoder.number())
    guard !overflow else { throw .malformed(offset: decoder.offset) }
    time = sum
    switch kind {
    case 0:
      let command = try Command(from: &decoder)
      return Log.Entry(time: time, turn: .command(command, try Reply(from: &decoder)))
    case 1: return Log.Entry(time: time, turn: .pending(sequence: try decoder.number()))
    default: throw .malformed(offset: decoder.offset)
    }
  }
}
