// SPDX-License-Identifier: Apache-2.0
//
// Goal: the `.proto` files, the generated code and `LabMethod` say the same. Method: the files are read as text.
import Foundation
import LabProtocol
import Testing

@Suite struct ContractTests {
  static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  static func texts(_ directory: String, _ ext: String) throws -> [String] {
    let folder = root.appending(path: directory)
    return try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
      .filter { $0.lastPathComponent.hasSuffix(ext) }
      .sorted { $0.path < $1.path }
      .map { try String(contentsOf: $0, encoding: .utf8) }
  }

  static func protoFiles() throws -> [String] { try texts("clients/proto/iommulab/v1", ".proto") }

  @Test("the method table equals the services of the .proto files")
  func methodTableEqualsProto() throws {
    var fromProto: [String] = []
    for text in try Self.protoFiles() {
      guard let service = text.firstMatch(of: /\nservice (\w+) \{/)?.output.1 else { continue }
      let rpc =
        #/rpc (\w+)\((stream )?(\w+)\) returns \((stream )?(\w+)\)(;| \{\n    option idempotency_level = NO_SIDE_EFFECTS;\n  \})/#
      for match in text.matches(of: rpc) {
        let kind =
          switch (match.output.2 != nil, match.output.4 != nil) {
          case (false, false): "unary"
          case (false, true): "serverStream"
          case (true, true): "bidirectional"
          case (true, false): "clientStream"
          }
        fromProto.append("/iommulab.v1.\(service)/\(match.output.1) \(kind) \(match.output.6 != ";")")
      }
      #expect(
        text.matches(of: #/\n  rpc \w/#).count == text.matches(of: rpc).count,
        "an rpc of \(service) is written in another way")
    }
    let fromTable = LabMethod.allCases.map { "\($0.path) \($0.descriptor.kind) \($0.descriptor.sideEffectFree)" }
    #expect(fromTable.sorted() == fromProto.sorted())
  }

  @Test("the generated code holds exactly the messages, enums, fields and numbers of the .proto files")
  func generatedCodeEqualsProto() throws {
    let protos = try Self.protoFiles()
    let generated = try Self.texts("Sources/LabProtocol/Generated", ".pb.swift")
    #expect(protos.count >= 10)
    #expect(protos.count == generated.count)
    for (proto, code) in zip(protos, generated) {
      let messages = proto.matches(of: /\nmessage (\w+) \{/).map { String($0.output.1) }
      let generatedMessages = code.matches(of: /protoMessageName: String = _protobuf_package \+ "\.(\w+)"/)
        .map { String($0.output.1) }
      #expect(messages == generatedMessages)

      let fields = proto.matches(of: /\n +(?:optional |repeated )?[\w.]+ (\w+) = (\d+);/)
      let values = proto.matches(of: /\n  ([A-Z][A-Z0-9_]+) = \d+;/).map { String($0.output.1) }
      let names = code.matches(of: /_NameMap\(bytecode: "([^"]*)"\)/).flatMap {
        $0.output.1.matches(of: /([A-Za-z]\w*)\\0/).map { String($0.output.1) }
      }
      #expect((fields.map { String($0.output.1) } + values).sorted() == names.sorted())

      let numbers = code.matches(of: #/\n +case (\d+): try/#).map { String($0.output.1) }
      #expect(fields.map { String($0.output.2) }.sorted() == numbers.sorted())
    }
  }
}
