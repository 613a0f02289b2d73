// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

// DeviceService, but for its traffic.
extension Shard {
  func registerDevice(
    _ host: MachineHost, _ r: LabRegisterDeviceRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    guard let rid = UInt16(exactly: r.rid) else {
      throw .service(.ridOutOfRange, "a requester id has 16 bits; the greatest is 65535", fields: ["rid"])
    }
    let lease = try lease(r.hasLeaseMilliseconds ? r.leaseMilliseconds : nil)
    var profile = DeviceProfile(rid: rid)
    if r.hasAts { profile.ats = r.ats }
    profile.pri = r.hasPri ? r.pri : profile.ats
    if r.hasPasid { profile.pasid = r.pasid }
    if r.hasPriAllocation { profile.priAllocation = r.priAllocation }
    if r.hasRetryLimit { profile.retryLimit = r.retryLimit }
    guard profile.retryLimit <= 1_000_000 else { throw .outOfRange("retryLimit", "at most 1000000") }
    guard case .device(let id, let epoch) = try host.perform(.registerDevice(profile), now) else { return nil }
    let port = DevicePort(id, epoch: epoch, lease: lease, now: now)
    host.add(port)
    sweep(at: port.leaseEnds)
    return LabRegisterDeviceResponse.with {
      $0.device = port.text
      $0.epoch = epoch
    }
  }

  func removeDevice(
    _ host: MachineHost, _ r: LabRemoveDeviceRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try port(host, r.device)
    _ = try host.perform(.removeDevice(port.id), now)
    return LabRemoveDeviceResponse()
  }

  /// Presence was lost: surprise removal.
  func remove(_ host: MachineHost, _ port: DevicePort) {
    // A device that is gone already cannot be removed again, and nothing is to be done about it.
    _ = try? host.perform(.removeDevice(port.id), now)
    host.dispatch()
  }

  func bindPasid(
    _ host: MachineHost, _ r: LabBindPasidRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try port(host, r.device)
    let attachment: Attachment
    switch r.target {
    case .sva(let binding):
      attachment = .addressSpace(try space(binding.addressSpace), try Strategy(binding))
    case .domain(let text): attachment = .domain(try domain(text))
    case nil: throw .wire(WireError(.missing, field: "sva"))
    }
    _ = try host.perform(.attach(port.id, r.pasid, attachment), now)
    return LabBindPasidResponse()
  }

  func unbindPasid(
    _ host: MachineHost, _ r: LabUnbindPasidRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try port(host, r.device)
    return try start(host, .detach(port.id, r.pasid), r.startOnly, caller)
  }

  func enablePri(
    _ host: MachineHost, _ r: LabEnablePriRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    let port = try port(host, r.device)
    _ = try host.perform(.enablePRI(port.id, allocation: r.allocation), now)
    return LabEnablePriResponse()
  }

  /// The device that a call is for; the call renews its lease.
  func port(_ host: MachineHost, _ text: String) throws(CallError) -> DevicePort {
    try port(host, id(.device, text, "device"))
  }

  @inline(__always)
  func port(_ host: MachineHost, _ id: UInt32) throws(CallError) -> DevicePort {
    guard let port = host.port(DeviceID(rawValue: id)) else { throw .notFound(.device) }
    port.leaseEnds = now &+ port.lease
    return port
  }
}
