// SPDX-License-Identifier: Apache-2.0

/// One request of a hot unary method of `DeviceService`, read into storage that is kept between calls.
public struct DeviceCall: Sendable {
  /// The most page requests of one call.
  public static let limit = 512

  /// What the method carries.
  public enum Payload: UInt8, Sendable, CaseIterable {
    case translate, pageRequests, dma, complete, giveUp
    var field: JSONField {
      switch self {
      case .translate: .translate
      case .pageRequests: .pageRequests
      case .dma: .dma
      case .complete: .complete
      case .giveUp: .giveUp
      }
    }
  }

  /// Empty: absent.
  public private(set) var requestID = ""
  /// Ids that are none of their kind read as 0.
  public private(set) var machine: UInt128 = 0
  public private(set) var device: UInt32 = 0
  /// What the call carries, unless it is page requests.
  public private(set) var message = Wire.DeviceMessage.complete(itagVector: 0)
  /// Never empty after a success with this payload.
  public private(set) var pageRequests: [Wire.PageRequest] = []

  public init() {}

  /// Hash of what the call is about, within this process.
  public var contentHash: Int {
    var hasher = Hasher()
    hasher.combine(device)
    if pageRequests.isEmpty { hasher.combine(message) } else { hasher.combine(pageRequests) }
    return hasher.finalize()
  }

  /// Reads JSON text, which must be one whole message. After an error nothing of the call may be used.
  public mutating func read(_ payload: Payload, json bytes: UnsafeRawBufferPointer) throws(WireError) {
    do throws(WireError) {
      var cursor = JSONCursor(bytes.bindMemory(to: UInt8.self))
      try read(payload, &cursor)
    } catch {
      let body = BorrowedBytes(bytes)
      clear()
      switch payload {
      case .translate:
        try take(try error.judged { () throws in try LabTranslateRequest(jsonUTF8Bytes: body) })
      case .pageRequests:
        try take(try error.judged { () throws in try LabRequestPagesRequest(jsonUTF8Bytes: body) })
      case .dma:
        try take(try error.judged { () throws in try LabDmaRequest(jsonUTF8Bytes: body) })
      case .complete:
        try take(try error.judged { () throws in try LabCompleteInvalidationsRequest(jsonUTF8Bytes: body) })
      case .giveUp:
        try take(try error.judged { () throws in try LabGiveUpRequest(jsonUTF8Bytes: body) })
      }
    }
  }

  /// Reads the binary form.
  public mutating func read(_ payload: Payload, binary bytes: UnsafeRawBufferPointer) throws(WireError) {
    clear()
    let body = BorrowedBytes(bytes)
    let error = WireError(.malformed)
    switch payload {
    case .translate: try take(try error.judged { () throws in try LabTranslateRequest(serializedBytes: body) })
    case .pageRequests: try take(try error.judged { () throws in try LabRequestPagesRequest(serializedBytes: body) })
    case .dma: try take(try error.judged { () throws in try LabDmaRequest(serializedBytes: body) })
    case .complete:
      try take(try error.judged { () throws in try LabCompleteInvalidationsRequest(serializedBytes: body) })
    case .giveUp: try take(try error.judged { () throws in try LabGiveUpRequest(serializedBytes: body) })
    }
  }

  @inline(__always)
  private mutating func clear() {
    if !requestID.isEmpty { requestID = "" }
    machine = 0
    device = 0
    if !pageRequests.isEmpty { pageRequests.removeAll(keepingCapacity: true) }
  }

  @inline(__always)
  mutating func read(_ payload: Payload, _ cursor: inout JSONCursor) throws(WireError) {
    clear()
    var hasMachine = false
    var hasDevice = false
    var hasPayload = false
    if try cursor.beginObject() {
      repeat {
        let field: JSONField
        var name = UnsafeBufferPointer<UInt8>(start: nil, count: 0)
        if cursor.take(plain: .machine) {
          field = .machine
        } else if cursor.take(plain: .device) {
          field = .device
        } else if payload == .translate, cursor.take(plain: .translate) {
          field = .translate
        } else {
          (field, name) = try cursor.field()
        }
        switch field {
        case .machine:
          machine = try cursor.id(.machine, field)
          hasMachine = true
        case .device:
          device = UInt32(truncatingIfNeeded: try cursor.id(.device, field))
          hasDevice = true
        case .requestId:
          requestID = cursor.takeNull() ? "" : try Self.requestID(try cursor.string(field), cursor)
        default:
          guard field == payload.field else { throw cursor.unknown(name) }
          if try readPayload(payload, &cursor, isFirst: !hasPayload) { hasPayload = true }
        }
      } while try cursor.nextField()
    }
    try cursor.requireEnd()
    guard hasMachine else { throw cursor.error(.missing, .machine) }
    guard hasDevice else { throw cursor.error(.missing, .device) }
    guard hasPayload else { throw cursor.error(.missing, payload.field) }
  }

  /// Reads what the call carries. False: there was nothing in it.
  @inline(never)
  private mutating func readPayload(
    _ payload: Payload, _ cursor: inout JSONCursor, isFirst: Bool
  ) throws(WireError) -> Bool {
    let field = payload.field
    if cursor.takeNull() { throw cursor.error(.unusual, field) }
    // A second value merges into the first one: left to the generated codec.
    guard isFirst || payload == .pageRequests else { throw cursor.error(.unusual, field) }
    switch payload {
    case .translate: message = .translate(try cursor.translationRequest())
    case .dma: message = .dma(try cursor.dmaAccess())
    case .complete: message = .complete(itagVector: try cursor.invalidationCompletion())
    case .giveUp: message = .giveUp(try cursor.abandonment())
    case .pageRequests:
      guard try cursor.beginList(field) else { return false }
      repeat {
        cursor.element = pageRequests.count
        guard pageRequests.count < Self.limit else { throw cursor.error(.tooMany(Self.limit), field) }
        pageRequests.append(try cursor.pageRequest())
      } while try cursor.nextElement()
      cursor.element = -1
    }
    return true
  }

  /// The rule for every `request_id` of the contract: at most 64 bytes of printable ASCII, without quote and backslash.
  public static func isValid(requestID: some Collection<UInt8>) -> Bool {
    requestID.count <= 64 && requestID.allSatisfy { $0 > 0x20 && $0 < 0x7f && $0 != 0x22 && $0 != 0x5c }
  }

  private static func requestID(
    _ bytes: UnsafeBufferPointer<UInt8>, _ cursor: JSONCursor
  ) throws(WireError) -> String {
    guard isValid(requestID: bytes) else { throw cursor.error(.badRequestID, .requestId) }
    return String(decoding: bytes, as: UTF8.self)
  }

  private mutating func take(_ request: LabTranslateRequest) throws(WireError) {
    try head(request.requestID, request.machine, request.device, request.hasTranslate, .translate)
    message = .translate(try .init(request.translate))
  }
  private mutating func take(_ request: LabRequestPagesRequest) throws(WireError) {
    try head(request.requestID, request.machine, request.device, !request.pageRequests.isEmpty, .pageRequests)
    try WireForm.each(request.pageRequests, limit: Self.limit, into: &pageRequests) { message throws(WireError) in
      try .init(message)
    }
  }
  private mutating func take(_ request: LabDmaRequest) throws(WireError) {
    try head(request.requestID, request.machine, request.device, request.hasDma, .dma)
    message = .dma(try .init(request.dma))
  }
  private mutating func take(_ request: LabCompleteInvalidationsRequest) throws(WireError) {
    try head(request.requestID, request.machine, request.device, request.hasComplete, .complete)
    message = .complete(itagVector: try WireForm.itagVector(request.complete))
  }
  private mutating func take(_ request: LabGiveUpRequest) throws(WireError) {
    try head(request.requestID, request.machine, request.device, request.hasGiveUp, .giveUp)
    message = .giveUp(try .init(request.giveUp))
  }

  private mutating func head(
    _ requestID: String, _ machine: String, _ device: String, _ hasPayload: Bool, _ payload: JSONField
  ) throws(WireError) {
    guard Self.isValid(requestID: requestID.utf8) else {
      throw WireError(.badRequestID, field: JSONField.requestId.name)
    }
    self.requestID = requestID
    self.machine = try WireForm.id(.machine, machine, .machine)
    self.device = UInt32(truncatingIfNeeded: try WireForm.id(.device, device, .device))
    guard hasPayload else { throw WireError(.missing, field: payload.name) }
  }
}
