// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol

/// The greatest tag of a device; greater ones are the service's own, for unary calls.
let greatestDeviceTag: UInt32 = 0x7fff_ffff

// From what a device says to commands of its machine. Checks here are those that a command cannot express any more:
// alignment of whole addresses, and tags.
extension Command {
  @inline(__always)
  init(_ message: Wire.DeviceMessage, of device: DeviceID) throws(CallError) {
    switch message {
    case .translate(let request): self = .translate(device, try TranslationRequest(request))
    case .pageRequest(let request): self = .pageRequest(device, try PageRequest(request))
    case .dma(let access): self = .dma(device, try DMARequest(access))
    case .complete(let itagVector): self = .complete(device, itagVector: itagVector)
    case .giveUp(let abandonment):
      self = .giveUp(
        device, abandonment.pasid, try pageNumber(abandonment.address, "address"),
        Rights(read: abandonment.read, write: abandonment.write))
    }
  }
}

extension Rights {
  @inline(__always)
  init(read: Bool, write: Bool) { self.init(rawValue: (read ? 1 : 0) | (write ? 2 : 0)) }
}

/// Whether bits 63 to 47 are equal: an address of a process, or of the kernel.
@inline(__always)
private func isCanonical(_ address: UInt64) -> Bool { (address &+ 1 << 47) >> 48 == 0 }

/// The page of an aligned address.
@inline(__always)
func pageNumber(_ address: UInt64, _ field: StaticString) throws(CallError) -> PageNumber {
  guard address & 0xfff == 0 else { throw .refusal(Refusal(.misaligned, .address, figure: Page.byteCount)) }
  guard isCanonical(address) else { throw .refusal(Refusal(.notCanonical, .address)) }
  return address >> 12
}

@inline(__always)
private func checked(tag: UInt32) throws(CallError) -> UInt32 {
  guard tag <= greatestDeviceTag else {
    throw .service(.tagOutOfRange, "a tag is at most \(greatestDeviceTag)", fields: ["tag"])
  }
  return tag
}

extension TranslationRequest {
  @inline(__always)
  init(_ request: Wire.TranslationRequest) throws(CallError) {
    self.init(
      tag: try checked(tag: request.tag), pasid: request.pasid, page: try pageNumber(request.address, "address"),
      noWrite: request.noWrite)
  }
}

extension PageRequest {
  @inline(__always)
  init(_ request: Wire.PageRequest) throws(CallError) {
    guard request.groupIndex < 512 else { throw .refusal(Refusal(.groupIndexOutOfRange, .groupIndex, figure: 511)) }
    self.init(
      pasid: request.pasid, page: try pageNumber(request.address, "address"),
      rights: Rights(read: request.read, write: request.write), groupIndex: UInt16(request.groupIndex),
      last: request.last)
  }
}

extension DMARequest {
  @inline(__always)
  init(_ access: Wire.DMAAccess) throws(CallError) {
    guard access.address & 7 == 0 else { throw .refusal(Refusal(.misaligned, .address, figure: 8)) }
    guard access.translated || access.iova == 0 else {
      throw .wire(WireError(.outOfRange, field: "iova"))
    }
    if !access.translated { _ = try pageNumber(access.address & ~0xfff, "address") }
    self.init(
      tag: try checked(tag: access.tag), write: access.write, translated: access.translated, pasid: access.pasid,
      address: access.address,
      page: access.translated ? try pageNumber(access.iova, "iova") : access.address >> 12, value: access.value)
  }
}
