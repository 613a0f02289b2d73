// SPDX-License-Identifier: Apache-2.0

// What a device process writes: `AttachRequest`s.
extension WireWriter {
  /// The most bytes that one message or event takes, refusals with their text excepted.
  static var messageBytes: Int { 384 }

  /// Begins an `AttachRequest`; the first one of a stream says who speaks.
  public mutating func beginAttachRequest(machine: String, device: String, afterSeq: UInt64 = 0) {
    reserve(64)
    literal("{\"hello\":{")
    needsComma = false
    string("\"machine\":", machine)
    string("\"device\":", device)
    reserve(64)
    uint64("\"afterSeq\":", afterSeq)
    literal("},\"messages\":[")
    needsComma = false
  }

  /// Begins an `AttachRequest`.
  public mutating func beginAttachRequest() {
    reserve(64)
    literal("{\"messages\":[")
    needsComma = false
  }

  /// Ends it.
  public mutating func endAttachRequest() {
    reserve(2)
    literal("]}")
    needsComma = false
  }

  /// Adds one message to the batch that was begun.
  @inline(__always)
  public mutating func append(_ message: Wire.DeviceMessage) {
    reserve(Self.messageBytes)
    if needsComma { byte(0x2c) }
    needsComma = false
    switch message {
    case .translate(let request):
      literal("{\"translate\":{")
      fields(request)
    case .pageRequest(let request):
      literal("{\"pageRequest\":{")
      fields(request)
    case .dma(let access):
      literal("{\"dma\":{")
      fields(access)
    case .complete(let itagVector):
      literal("{\"complete\":{")
      hex("\"itagVector\":", UInt64(itagVector))
    case .giveUp(let abandonment):
      literal("{\"giveUp\":{")
      fields(abandonment)
    }
    literal("}}")
    needsComma = true
  }

  @inline(__always)
  private mutating func fields(_ request: Wire.TranslationRequest) {
    uint("\"tag\":", request.tag)
    uint("\"pasid\":", request.pasid)
    hex("\"address\":", request.address)
    bool("\"noWrite\":", request.noWrite)
  }

  @inline(__always)
  private mutating func fields(_ request: Wire.PageRequest) {
    uint("\"pasid\":", request.pasid)
    hex("\"address\":", request.address)
    bool("\"read\":", request.read)
    bool("\"write\":", request.write)
    uint("\"groupIndex\":", request.groupIndex)
    bool("\"last\":", request.last)
  }

  @inline(__always)
  private mutating func fields(_ access: Wire.DMAAccess) {
    uint("\"tag\":", access.tag)
    bool("\"write\":", access.write)
    bool("\"translated\":", access.translated)
    uint("\"pasid\":", access.pasid)
    hex("\"address\":", access.address)
    optionalHex("\"iova\":", access.iova)
    optionalHex("\"value\":", access.value)
  }

  @inline(__always)
  private mutating func fields(_ abandonment: Wire.Abandonment) {
    uint("\"pasid\":", abandonment.pasid)
    hex("\"address\":", abandonment.address)
    bool("\"read\":", abandonment.read)
    bool("\"write\":", abandonment.write)
  }
}
