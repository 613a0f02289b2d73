// SPDX-License-Identifier: Apache-2.0
// Goal: translation requests that come together in one message of an Attach stream are performed together and look as
// if they had come one by one. Method: a recorded machine, its events in order, and its log performed again by `apply`.
import IOMMUModel
import LabProtocol
import LabService
import RPCClient
import SwiftProtobuf
import Testing

@Suite("Translation requests that come together on Attach", .serialized)
struct AttachBatchTests {
  @Test("they are answered in order around what is refused, and the log has each as a command of its own")
  func together() async throws {
    try await Lab.run { lab in
      let client = try lab.client()
      let bench = try Bench(client, record: true)
      try bench.mmap()
      let device = try bench.register(rid: 1)
      try bench.bind(device)
      _ = try bench.requestPage(device)
      let stream = try client.open(.attach)
      // Tag, PASID, address: two that are there, a PASID that no table has, two, one that is not aligned, one.
      let asked: [(UInt32, UInt32, UInt64)] = [
        (1, 1, 0), (2, 1, 0), (3, 1 << 20, 0), (4, 1, 0), (5, 2, 0), (6, 1, 1), (7, 1, 0),
      ]
      client.send(
        stream,
        LabAttachRequest.with {
          $0.hello = bench.hello(device).hello
          $0.messages = asked.map { tag, pasid, offset in
            .with {
              $0.translate = .with {
                $0.tag = tag
                $0.pasid = pasid
                $0.address = Hex.string(Bench.base + offset)
              }
            }
          }
        })
      _ = try client.next(stream, LabAttachResponse.self)
      let events = try client.events(stream, 7)
      #expect(events.map(\.translation.tag) == [1, 2, 0, 4, 5, 0, 7])
      #expect(events.map(\.refused.message) == [0, 0, 3, 0, 0, 6, 0])
      #expect(events[2].refused.reason == "PASID_OUT_OF_RANGE" && events[5].refused.reason == "MISALIGNED")
      #expect(events.map(\.translation.write) == [true, true, false, true, false, false, true])
      let orders = events.map(\.translation.order).filter { $0 > 0 }
      #expect(orders.count == 5 && orders == orders.sorted() && Set(orders).count == 5)

      let hash = try bench.stateHash()
      let logStream = try client.watch(.getLog, LabGetLogRequest.with { $0.machine = bench.machine })
      var reader = try LogReader(client.all(logStream, LabGetLogResponse.self).flatMap { Array($0.chunk) })
      var machine = IOMMUModel.Machine(settings: reader.settings)
      var effects = Effects()
      var tags: [UInt32] = []
      while let entry = try reader.next() {
        switch entry.turn {
        case .command(let command, let reply):
          if case .translate(_, let request) = command { tags.append(request.tag) }
          #expect(try machine.apply(command, at: entry.time, into: &effects) == reply)
        case .pending(let sequence): #expect(machine.apply(pending: sequence, at: entry.time, into: &effects))
        }
      }
      #expect(tags == [1, 2, 4, 5, 7])
      #expect(Hex.string(machine.stateHash()) == hash)
    }
  }
}
