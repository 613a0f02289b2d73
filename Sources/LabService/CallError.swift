// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer

/// Why a call was refused; nothing has changed then.
enum CallError: Error {
  /// The text of the request is not the message that it should be.
  case wire(WireError)
  /// The machine refused the command.
  case refusal(Refusal)
  /// The service refused it.
  case service(ErrorReason, String, fields: [String] = [])

  /// The one answer for ids that name nothing, whether they never existed, are gone, or belong to somebody else.
  static func notFound(_ kind: ObjectID.Kind) -> CallError {
    switch kind {
    case .machine: .service(.unknownMachine, "no machine of this id; CreateMachine gives ids", fields: ["machine"])
    case .operation:
      .service(
        .unknownOperation, "no operation of this id or request_id; only the newest are kept",
        fields: ["operation"])
    case .addressSpace: .refusal(Refusal(.unknownAddressSpace, .addressSpace))
    case .domain: .refusal(Refusal(.unknownDomain, .domain))
    case .device: .refusal(Refusal(.unknownDevice, .device))
    case .file: .refusal(Refusal(.unknownFile, .file))
    case .subscriber: .refusal(Refusal(.unknownSubscriber, .subscriber))
    }
  }

  /// A number of the request outside its bounds.
  static func outOfRange(_ field: String, _ bounds: String) -> CallError {
    .service(.valueOutOfRange, "\(field) must be \(bounds)", fields: [field])
  }

  var rpc: RPCError {
    RPCError(reason.code, "\(reason.name)", text, fields: fields)
  }

  var reason: ErrorReason {
    switch self {
    case .wire(let error): error.reason
    case .refusal(let refusal): refusal.errorReason
    case .service(let reason, _, _): reason
    }
  }

  var text: String {
    switch self {
    case .wire(let error): error.text
    case .refusal(let refusal): refusal.text
    case .service(_, let text, _): text
    }
  }

  private var fields: [String] {
    switch self {
    case .wire(let error):
      if case .unknownField(let name) = error.problem { [name] } else { error.field.isEmpty ? [] : [error.field] }
    case .refusal(let refusal): refusal.fieldNames
    case .service(_, _, let fields): fields
    }
  }
}
