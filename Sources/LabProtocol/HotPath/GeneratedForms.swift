// SPDX-License-Identifier: Apache-2.0

// From generated messages to the trivial values. These conversions state what is narrower than proto3 JSON: hex fields
// must hold hex numbers, ids and hex fields marked as required must be there, exactly one field of a message or event is
// set, and enums hold a known value that is not UNSPECIFIED. They serve the binary codec, and judge whatever the
// hand-written reader does not accept.

extension Wire.DeviceMessage {
  init(_ message: LabDeviceMessage) throws(WireError) {
    switch message.kind {
    case .translate(let request): self = .translate(try .init(request))
    case .pageRequest(let request): self = .pageRequest(try .init(request))
    case .dma(let access): self = .dma(try .init(access))
    case .complete(let completion): self = .complete(itagVector: try WireForm.itagVector(completion))
    case .giveUp(let abandonment): self = .giveUp(try .init(abandonment))
    case nil: throw WireError(.notExactlyOne)
    }
  }
}

/// Checks that the conversions share.
enum WireForm {
  static func hex(_ text: String, _ field: JSONField) throws(WireError) -> UInt64? {
    if text.isEmpty { return nil }
    do throws(Hex.ParseError) { return try Hex.parse(text) } catch { throw WireError(.hex(error), field: field.name) }
  }

  static func required(_ text: String, _ field: JSONField) throws(WireError) -> UInt64 {
    guard let value = try hex(text, field) else { throw WireError(.missing, field: field.name) }
    return value
  }

  static func small(_ value: UInt32, max: UInt32, _ field: JSONField) throws(WireError) -> UInt8 {
    guard value <= max else { throw WireError(.outOfRange, field: field.name) }
    return UInt8(value)
  }

  static func value<Value: WireEnum>(_ number: Int, _ field: JSONField) throws(WireError) -> Value {
    if number == 0 { throw WireError(.missing, field: field.name) }
    guard let raw = UInt8(exactly: number), let value = Value(rawValue: raw) else {
      throw WireError(.unknownValue, field: field.name)
    }
    return value
  }

  static func id(_ kind: ObjectID.Kind, _ text: String, _ field: JSONField) throws(WireError) -> UInt128 {
    guard !text.isEmpty else { throw WireError(.missing, field: field.name) }
    return ObjectID.value(kind, text)
  }

  static func itagVector(_ completion: LabInvalidationCompletion) throws(WireError) -> UInt32 {
    guard let itags = UInt32(exactly: try required(completion.itagVector, .itagVector)) else {
      throw WireError(.outOfRange, field: JSONField.itagVector.name)
    }
    return itags
  }

  /// Runs `convert` over a list, and adds the element's index to its error.
  static func each<Message, Value>(
    _ list: [Message], limit: Int, into values: inout [Value], _ convert: (Message) throws(WireError) -> Value
  ) throws(WireError) {
    guard list.count <= limit else { throw WireError(.tooMany(limit)) }
    for (index, message) in list.enumerated() {
      do throws(WireError) {
        values.append(try convert(message))
      } catch {
        var placed = error
        placed.element = index
        throw placed
      }
    }
  }
}

extension Wire.TranslationRequest {
  public init(_ message: LabTranslationRequest) throws(WireError) {
    self.init(
      tag: message.tag, pasid: message.pasid, address: try WireForm.required(message.address, .address),
      noWrite: message.noWrite)
  }
}

extension Wire.PageRequest {
  public init(_ message: LabPageRequest) throws(WireError) {
    let address = try WireForm.hex(message.address, .address)
    guard address != nil || !(message.read || message.write) else {
      throw WireError(.missing, field: JSONField.address.name)
    }
    self.init(
      pasid: message.pasid, address: address ?? 0, read: message.read, write: message.write,
      groupIndex: message.groupIndex, last: message.last)
  }
}

extension Wire.DMAAccess {
  public init(_ message: LabDmaAccess) throws(WireError) {
    self.init(
      tag: message.tag, write: message.write, translated: message.translated, pasid: message.pasid,
      address: try WireForm.required(message.address, .address), iova: try WireForm.hex(message.iova, .iova) ?? 0,
      value: try WireForm.hex(message.value, .value) ?? 0)
  }
}

extension Wire.Abandonment {
  public init(_ message: LabAbandonment) throws(WireError) {
    self.init(
      pasid: message.pasid, address: try WireForm.required(message.address, .address), read: message.read,
      write: message.write)
  }
}

extension Wire.DeviceEvent {
  init(_ message: LabDeviceEvent) throws(WireError) {
    switch message.kind {
    case .translation(let translation): self = .translation(try .init(translation))
    case .pageResponse(let response): self = .pageResponse(try .init(response))
    case .invalidation(let invalidation): self = .invalidation(try .init(invalidation))
    case .dma(let result): self = .dma(try .init(result))
    case .device(let change):
      self = .device(try WireForm.value(change.state.rawValue, .state), allocation: change.allocation)
    case .ignored(let message): self = .ignored(try WireForm.value(message.reason.rawValue, .reason))
    case .refused(let message): self = .refused(message: message.message, ErrorReason(name: message.reason))
    case .heartbeat(let heartbeat): self = .heartbeat(timeNanoseconds: heartbeat.timeNanoseconds)
    case nil: throw WireError(.notExactlyOne)
    }
  }
}

extension Wire.Translation {
  public init(_ message: LabTranslation) throws(WireError) {
    self.init(
      tag: message.tag, status: try WireForm.value(message.status.rawValue, .status), pasid: message.pasid,
      address: try WireForm.required(message.address, .address),
      physicalAddress: try WireForm.hex(message.physicalAddress, .physicalAddress) ?? 0,
      sizeLog2: try WireForm.small(message.sizeLog2, max: 63, .sizeLog2), read: message.read, write: message.write,
      order: message.order)
  }
}

extension Wire.PageResponse {
  public init(_ message: LabPageResponse) throws(WireError) {
    self.init(
      pasid: message.pasid, groupIndex: message.groupIndex, code: try WireForm.value(message.code.rawValue, .code),
      serviceNanoseconds: message.serviceNanoseconds, memberCount: message.memberCount)
  }
}

extension Wire.Invalidation {
  public init(_ message: LabInvalidation) throws(WireError) {
    self.init(
      itag: try WireForm.small(message.itag, max: 31, .itag), pasid: message.pasid,
      address: try WireForm.required(message.address, .address),
      sizeLog2: try WireForm.small(message.sizeLog2, max: 63, .sizeLog2), order: message.order)
  }
}

extension Wire.DMAResult {
  public init(_ message: LabDmaResult) throws(WireError) {
    self.init(
      tag: message.tag, status: try WireForm.value(message.status.rawValue, .status), write: message.write,
      value: try WireForm.hex(message.value, .value) ?? 0)
  }
}

// From the trivial values to generated messages, for traces and the binary codec.

extension LabTranslation {
  public init(_ translation: Wire.Translation) {
    self.init()
    tag = translation.tag
    status = LabTranslationStatus(rawValue: Int(translation.status.rawValue))!
    pasid = translation.pasid
    address = Hex.string(translation.address)
    if translation.physicalAddress != 0 { physicalAddress = Hex.string(translation.physicalAddress) }
    sizeLog2 = UInt32(translation.sizeLog2)
    read = translation.read
    write = translation.write
    order = translation.order
  }
}

extension LabPageResponse {
  public init(_ response: Wire.PageResponse) {
    self.init()
    pasid = response.pasid
    groupIndex = response.groupIndex
    code = LabPageResponseCode(rawValue: Int(response.code.rawValue))!
    serviceNanoseconds = response.serviceNanoseconds
    memberCount = response.memberCount
  }
}

extension LabInvalidation {
  public init(_ invalidation: Wire.Invalidation) {
    self.init()
    itag = UInt32(invalidation.itag)
    pasid = invalidation.pasid
    address = Hex.string(invalidation.address)
    sizeLog2 = UInt32(invalidation.sizeLog2)
    order = invalidation.order
  }
}

extension LabDmaResult {
  public init(_ result: Wire.DMAResult) {
    self.init()
    tag = result.tag
    status = LabDmaStatus(rawValue: Int(result.status.rawValue))!
    write = result.write
    if result.value != 0 { value = Hex.string(result.value) }
  }
}
