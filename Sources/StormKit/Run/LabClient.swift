// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCClient
import SwiftProtobuf

/// A connection to the service with the contract's messages: one blocking call at a time.
final class LabClient {
  let rpc: RPCClient

  /// `service`: `HOST:PORT`.
  init(_ service: String) throws(StormFailure) {
    guard let endpoint = RPCEndpoint(service) else { throw .usage("'\(service)': write HOST:PORT") }
    do { rpc = try RPCClient(endpoint) } catch { throw .unreachable("\(error)") }
  }

  /// Calls a unary method. An error of the service is a failure of the storm, with the method's name.
  func call<Request: Message, Response: Message>(
    _ method: LabMethod, _ request: Request
  ) throws(StormFailure) -> Response {
    let body = try encode(request)
    let reply: RPCReply
    do {
      reply = try body.withUnsafeBytes { bytes in
        Result { () throws(RPCClientError) in
          try rpc.call(method.path, bytes, timeout: .seconds(120))
        }
      }.get()
    } catch {
      throw .unreachable("\(method.descriptor.name): \(error)")
    }
    do {
      return try Response(jsonUTF8Bytes: try reply.get())
    } catch let failure as RPCFailure where Self.ofUsage.contains(failure.reason) {
      throw .usage("\(failure.message)")
    } catch {
      throw .broken("\(method.descriptor.name): \(error)")
    }
  }

  /// Calls a server-streaming method and hands over each message.
  func stream<Request: Message, Response: Message>(
    _ method: LabMethod, _ request: Request, _ each: (Response) throws(StormFailure) -> Void
  ) throws(StormFailure) {
    let body = try encode(request)
    let stream: RPCStreamID
    do { stream = try rpc.openStream(method.path) } catch { throw .unreachable("\(error)") }
    _ = body.withUnsafeBytes { rpc.send(stream, $0) }
    rpc.halfClose(stream)
    while true {
      let events = rpc.poll(timeout: .seconds(60))
      if events.isEmpty { throw .unreachable("\(method.descriptor.name): \(rpc.lossReason ?? "no answer in time")") }
      for event in events where event.stream == stream {
        switch event.kind {
        case .opened: break
        case .ended: return
        case .failed: throw .broken("\(method.descriptor.name): \(rpc.failure(event))")
        case .message:
          let response: Response
          do { response = try Response(jsonUTF8Bytes: Array(rpc.message(event))) } catch {
            throw .broken("\(method.descriptor.name): \(error)")
          }
          try each(response)
        }
      }
    }
  }

  /// Shortest round trip of a small call, ns: that of the wire and the service. What a sleepy or busy host adds to the
  /// median, 60 to 240 µs here, changes from minute to minute and would stretch every modelled duration with it.
  func roundTrip(samples: Int = 1001) throws(StormFailure) -> UInt64 {
    var request = LabListMachinesRequest()
    request.pageSize = 1
    var times: [UInt64] = []
    for _ in 0..<samples {
      let start = monotonicNow()
      let _: LabListMachinesResponse = try call(.listMachines, request)
      times.append(monotonicNow() - start)
    }
    return times.min()!
  }

  /// What a service refuses because of the storm's own options: it alone knows its strategies and its bounds.
  private static let ofUsage = ["UNKNOWN_STRATEGY", "BAD_SETTINGS"]

  private func encode(_ request: some Message) throws(StormFailure) -> [UInt8] {
    do { return try request.jsonUTF8Bytes() } catch { throw .broken("\(error)") }
  }
}
