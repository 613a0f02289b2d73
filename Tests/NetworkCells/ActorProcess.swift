// SPDX-License-Identifier: Apache-2.0
import Foundation

/// One of the processes beside the operation, in lockstep with this one: a line goes in, a line comes back.
final class ActorProcess {
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private var pending = Data()

  init(_ role: String) throws {
    process.executableURL = URL(fileURLWithPath: CommandLine.arguments[0])
    process.arguments = [role]
    process.standardInput = input
    process.standardOutput = output
    try process.run()
  }

  func send(_ line: String) { input.fileHandleForWriting.write(Data((line + "\n").utf8)) }

  /// The answer to the oldest line that is not answered yet.
  func answer() throws -> Data {
    while true {
      if let end = pending.firstIndex(of: 0x0a) {
        defer { pending.removeSubrange(...end) }
        return pending[..<end]
      }
      let more = output.fileHandleForReading.availableData
      guard !more.isEmpty else { throw Failure("\(process.arguments!.joined(separator: " ")) has ended") }
      pending += more
    }
  }

  func batch(_ line: String) throws -> DeviceActor.Reply {
    send(line)
    return try reply()
  }

  func reply() throws -> DeviceActor.Reply { try JSONDecoder().decode(DeviceActor.Reply.self, from: answer()) }

  /// Its input ends, and it with that.
  func stop() {
    try? input.fileHandleForWriting.close()
    process.waitUntilExit()
  }
}
