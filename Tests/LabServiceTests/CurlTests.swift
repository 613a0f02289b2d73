// SPDX-License-Identifier: Apache-2.0
//
// Goal: people with nothing but curl get clear answers. Method: the real curl.
import Foundation
import LabProtocol
import RPCClient
import SwiftProtobuf
import Testing

@Suite struct CurlTests {
  static let json = ["-H", "content-type: application/json"]

  @Test("curl creates a machine, reads it with GET, and is told what is wrong")
  func curl() async throws {
    try await Lab.run(loops: 2) { lab in
      let path = "/iommulab.v1.MachineService"
      let created = try lab.curl("\(path)/CreateMachine", Self.json + ["-d", "{}"])
      #expect(created.hasSuffix("\n200"))
      let id = try #require(created.firstMatch(of: /"machine":"(m-[0-9a-f]{32})"/)?.output.1)
      let message = "{\"machine\":\"\(id)\"}"
        .addingPercentEncoding(withAllowedCharacters: .alphanumerics)!
      let read = try lab.curl("\(path)/GetMachine?encoding=json&message=\(message)", [])
      #expect(read.contains(id) && read.hasSuffix("\n200"))
      // GET is for methods without side effects.
      let changed = try lab.curl("\(path)/DeleteMachine?encoding=json&message=\(message)", [])
      #expect(changed.hasSuffix("\n405"))
      let type = try lab.curl(
        "\(path)/GetMachine", ["-H", "content-type: text/plain", "-d", "{\"machine\":\"\(id)\"}"])
      #expect(type.hasSuffix("\n415"))
      let cut = try lab.curl("\(path)/GetMachine", Self.json + ["-d", "{\"machine\":\"\(id)"])
      #expect(cut.contains("MALFORMED_JSON") && cut.hasSuffix("\n400"))
      let unknown = try lab.curl("\(path)/GetMachines", Self.json + ["-d", "{}"])
      #expect(unknown.hasSuffix("\n404"))
      let large = FileManager.default.temporaryDirectory.appending(path: "iommulab-\(UUID().uuidString)")
      try Data(repeating: 0x20, count: 3 << 20).write(to: large)
      defer { try? FileManager.default.removeItem(at: large) }
      let oversized = try lab.curl("\(path)/GetMachine", Self.json + ["--data-binary", "@\(large.path)"])
      #expect(oversized.contains("resource_exhausted") && oversized.hasSuffix("\n429"))
      // The service is well after all that.
      #expect(try lab.curl("/readyz", []).hasSuffix("\n200"))
    }
  }

  @Test("curl -N shows a stream line by line")
  func lines() async throws {
    try await Lab.run(loops: 2) { lab in
      let client = try lab.client()
      let bench = try Bench(client)
      let device = try bench.register(rid: 1)
      let body = "{\"machine\":\"\(bench.machine)\",\"device\":\"\(device)\"}"
      // curl starts the stream; the removal ends it.
      let process = Process()
      process.executableURL = URL(filePath: "/usr/bin/curl")
      process.arguments = [
        "-sN", "--max-time", "20", "--http2-prior-knowledge", "-H", "content-type: application/json", "-H",
        "accept: application/x-ndjson", "-d", body, "http://\(lab.address)\(LabMethod.watchDevice.path)",
      ]
      let pipe = Pipe()
      process.standardOutput = pipe
      try process.run()
      var output = pipe.fileHandleForReading.availableData
      #expect(String(decoding: output, as: UTF8.self).hasPrefix("{"))
      _ = try client.call(
        .removeDevice,
        LabRemoveDeviceRequest.with {
          $0.machine = bench.machine
          $0.device = device
        }, LabRemoveDeviceResponse.self)
      output += pipe.fileHandleForReading.readDataToEndOfFile()
      process.waitUntilExit()
      #expect(process.terminationStatus == 0)
      let lines = String(decoding: output, as: UTF8.self).split(separator: "\n")
      #expect(lines.count == 2)
      #expect(lines.last?.contains("DEVICE_STATE_REMOVED") == true)
    }
  }

  @Test("the binary codec carries the same messages, an answer without a byte included", arguments: [1, 2])
  func binary(loops: Int) async throws {
    try await Lab.run(loops: loops) { lab in
      let client = try lab.client()
      let bench = try Bench(client)
      let device = try bench.register(rid: 1)
      func binary(_ method: LabMethod, _ message: any Message) throws -> RPCReply {
        try LabCodec.binary(message).withUnsafeBytes { try client.rpc.call(method.path, $0, .proto) }
      }
      let translated = try binary(
        .translate,
        LabTranslateRequest.with {
          $0.machine = bench.machine
          $0.device = device
          $0.translate = .with {
            $0.tag = 4
            $0.address = "0x1000"
          }
        })
      #expect(try LabTranslateResponse(serializedBytes: translated.get()).translation.tag == 4)
      let refused = try binary(
        .translate,
        LabTranslateRequest.with {
          $0.machine = bench.machine
          $0.device = device
          $0.translate.address = "4096"
        })
      #expect(refused.failure?.reason == "DECIMAL_NUMBER")
      let removed = try binary(
        .removeDevice,
        LabRemoveDeviceRequest.with {
          $0.machine = bench.machine
          $0.device = device
        })
      #expect(removed.isSuccess && removed.body.isEmpty)
      #expect(try bench.statistics().devices == 0)
    }
  }
}
