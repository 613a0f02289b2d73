// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// DomainService.
extension Shard {
  func createDomain(
    _ host: MachineHost, _ r: LabCreateDomainRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let kind: DomainKind
    switch r.kind {
    case .paging: kind = .paging
    case .identity: kind = .identity
    case .blocked: kind = .blocked
    case .unspecified: throw .wire(WireError(.missing, field: "kind"))
    case .UNRECOGNIZED: throw .wire(WireError(.unknownValue, field: "kind"))
    }
    guard case .domain(let id) = try host.perform(.createDomain(kind), now) else { return nil }
    return LabCreateDomainResponse.with { $0.domain = ObjectID.text(.domain, UInt128(id.rawValue)) }
  }

  func destroyDomain(
    _ host: MachineHost, _ r: LabDestroyDomainRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    _ = try host.perform(.destroyDomain(try domain(r.domain)), now)
    return LabDestroyDomainResponse()
  }

  func map(_ host: MachineHost, _ r: LabMapRequest, _ caller: Caller) throws(CallError) -> (any Message)? {
    var mapping = DomainMapping(
      domain: try domain(r.domain), range: try range(r.address, r.byteCount),
      rights: Rights(read: r.read, write: r.write))
    if r.hasSource {
      mapping.source = try space(r.source.addressSpace)
      let first = try required(r.source.address, "source.address")
      guard first & 0xfff == 0 else { throw .refusal(Refusal(.misaligned, .source, figure: Page.byteCount)) }
      mapping.sourceFirst = first >> 12
    }
    _ = try host.perform(.map(mapping), now)
    return LabMapResponse()
  }

  func unmap(_ host: MachineHost, _ r: LabUnmapRequest, _ caller: Caller) throws(CallError) -> (any Message)? {
    try start(host, .unmap(try domain(r.domain), try range(r.address, r.byteCount)), r.startOnly, caller)
  }

  func domain(_ text: String) throws(CallError) -> DomainID {
    DomainID(rawValue: try id(.domain, text, "domain"))
  }
}
