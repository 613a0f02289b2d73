// SPDX-License-Identifier: Apache-2.0
import Foundation
import LabProtocol
import RPCClient

/// Unary calls with JSON, as anybody would make them.
final class Calls {
  typealias Body = [String: Any]

  private let rpc: RPCClient
  private var streams: [(id: RPCStreamID, take: (UnsafeRawBufferPointer) throws -> Void)] = []

  init(_ service: String) throws {
    guard let endpoint = RPCEndpoint(service) else { throw Failure("'\(service)': write HOST:PORT") }
    rpc = try RPCClient(endpoint)
  }

  /// Follows a stream of the service. What a call has caused is known when the call after it has been answered.
  func follow(
    _ method: LabMethod, _ body: Body, _ take: @escaping (UnsafeRawBufferPointer) throws -> Void
  ) throws {
    let stream = try rpc.openStream(method.path)
    let json = try JSONSerialization.data(withJSONObject: body)
    json.withUnsafeBytes { _ = rpc.send(stream, $0) }
    rpc.halfClose(stream)
    streams.append((stream, take))
  }

  func endStreams() {
    for stream in streams { rpc.cancel(stream.id) }
    streams.removeAll()
  }

  @discardableResult
  func call(_ method: LabMethod, _ body: Body) throws -> Body { try calls([(method, body)])[0] }

  /// Calls that are sent without waiting for each other; the service takes them in their order.
  /// - Parameter refusals: reasons that are as good as an answer.
  @discardableResult
  func calls(_ list: [(method: LabMethod, body: Body)], or refusals: [String] = []) throws -> [Body] {
    for (index, item) in list.enumerated() {
      let json = try JSONSerialization.data(withJSONObject: item.body, options: .sortedKeys)
      _ = try json.withUnsafeBytes { try rpc.start(item.method.path, $0, tag: UInt64(index + 1)) }
    }
    var replies: [Int: Body] = [:]
    while replies.count < list.count {
      let events = rpc.poll(timeout: .seconds(30))
      if events.isEmpty { throw Failure("no answer: \(rpc.lossReason ?? "30 s have passed")") }
      for event in events {
        if let stream = streams.first(where: { $0.id == event.stream }) {
          if event.kind == .message { try stream.take(rpc.message(event)) }
          continue
        }
        let index = Int(event.tag) - 1
        switch event.kind {
        case .message:
          let object = try JSONSerialization.jsonObject(with: Data(rpc.message(event)))
          replies[index] = object as? Body ?? [:]
        case .failed:
          let failure = rpc.failure(event)
          guard refusals.contains(failure.reason) else {
            throw Failure("\(list[index].method.descriptor.name) \(list[index].body): \(failure)")
          }
          replies[index] = [:]
        case .opened, .ended: break
        }
      }
    }
    return list.indices.map { replies[$0]! }
  }
}

extension [String: Any] {
  /// A 64-bit number of proto3's JSON, which is text; absent: zero.
  func number(_ name: String) -> UInt64 {
    (self[name] as? String).flatMap(UInt64.init) ?? (self[name] as? NSNumber)?.uint64Value ?? 0
  }
  func text(_ name: String) -> String { self[name] as? String ?? "" }
  func object(_ name: String) -> [String: Any] { self[name] as? [String: Any] ?? [:] }
}

func hex(_ number: UInt64) -> String { "0x" + String(number, radix: 16) }
