// SPDX-License-Identifier: Apache-2.0
import HTTP2Session

/// The response heads, built once per loop and sent without a copy.
final class Responses {
  private let unaryJSON = Responses.head(200, "application/json")
  private let unaryProto = Responses.head(200, "application/proto")
  private let unaryViews: (json: HTTP2HeaderView, proto: HTTP2HeaderView)
  private let connect: [HTTP2HeaderList]
  private let ndjson = Responses.head(200, "application/x-ndjson")
  private let errors: [HTTP2HeaderList]
  let unknownMethod = Responses.head(404, "application/json")
  let wrongVerb: HTTP2HeaderList
  let unsupportedType = Responses.head(415, "application/json")
  let textOK = Responses.head(200, "text/plain; charset=utf-8")
  let textUnavailable = Responses.head(503, "text/plain; charset=utf-8")

  init() {
    unaryViews = (unaryJSON.view, unaryProto.view)
    connect = [Responses.head(200, "application/connect+json"), Responses.head(200, "application/connect+proto")]
    errors = RPCCode.allCases.map { Responses.head($0.httpStatus, "application/json") }
    wrongVerb = HTTP2HeaderList([
      (":status", "405"), ("allow", "POST"), ("content-type", "application/json"),
    ])
  }

  private static func head(_ status: Int, _ type: String) -> HTTP2HeaderList {
    HTTP2HeaderList([(":status", String(status)), ("content-type", type)])
  }

  @inline(__always)
  func success(_ framing: RPCFraming, _ codec: RPCCodec) -> HTTP2HeaderList {
    switch framing {
    case .unary: codec == .json ? unaryJSON : unaryProto
    case .connect: connect[Int(codec.rawValue)]
    case .ndjson: ndjson
    }
  }

  /// The head of a unary answer. The view is valid as long as this object.
  @inline(__always)
  func answer(_ codec: RPCCodec) -> HTTP2HeaderView { codec == .json ? unaryViews.json : unaryViews.proto }

  func error(_ code: RPCCode) -> HTTP2HeaderList { errors[Int(code.rawValue) - 1] }
}
