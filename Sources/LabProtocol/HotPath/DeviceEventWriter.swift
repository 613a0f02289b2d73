// SPDX-License-Identifier: Apache-2.0

// What the service writes: `AttachResponse`s and `DeviceServiceWatchResponse`s, and the answers of the hot unary calls.
extension WireWriter {
  /// Begins a batch of events.
  @inline(__always)
  public mutating func beginEvents() {
    reserve(128)
    literal("{\"events\":[")
    needsComma = false
  }

  /// Ends it. `seq`: number of the last event so far.
  @inline(__always)
  public mutating func endEvents(epoch: UInt32, seq: UInt64, historyCut: Bool = false) {
    reserve(128)
    byte(0x5d)
    needsComma = true
    uint("\"epoch\":", epoch)
    uint64("\"seq\":", seq)
    bool("\"historyCut\":", historyCut)
    byte(0x7d)
    needsComma = false
  }

  /// Adds one event to the batch that was begun. A refusal comes without its text; see `appendRefused`.
  @inline(__always)
  public mutating func append(_ event: Wire.DeviceEvent) {
    reserve(Self.messageBytes)
    if needsComma { byte(0x2c) }
    needsComma = false
    switch event {
    case .translation(let translation):
      literal("{\"translation\":{")
      fields(translation)
    case .pageResponse(let response):
      literal("{\"pageResponse\":{")
      fields(response)
    case .invalidation(let invalidation):
      literal("{\"invalidation\":{")
      fields(invalidation)
    case .dma(let result):
      literal("{\"dma\":{")
      fields(result)
    case .device(let state, let allocation):
      literal("{\"device\":{")
      value("\"state\":", state)
      uint("\"allocation\":", allocation)
    case .ignored(let reason):
      literal("{\"ignored\":{")
      value("\"reason\":", reason)
    case .refused(let message, let reason):
      literal("{\"refused\":{")
      uint64("\"message\":", message)
      if let reason {
        field("\"reason\":\"")
        literal(reason.name)
        byte(0x22)
      }
    case .heartbeat(let time):
      literal("{\"heartbeat\":{")
      uint64("\"timeNanoseconds\":", time)
    }
    literal("}}")
    needsComma = true
  }

  /// Adds a refusal with its text for people.
  public mutating func appendRefused(message: UInt64, _ reason: ErrorReason, text: String) {
    reserve(Self.messageBytes)
    if needsComma { byte(0x2c) }
    needsComma = false
    literal("{\"refused\":{")
    uint64("\"message\":", message)
    field("\"reason\":\"")
    literal(reason.name)
    byte(0x22)
    string("\"text\":", text)
    reserve(2)
    literal("}}")
    needsComma = true
  }

  // MARK: - Answers of unary calls

  /// `TranslateResponse`.
  @inline(__always)
  public mutating func response(_ translation: Wire.Translation) {
    reserve(Self.messageBytes)
    needsComma = false
    literal("{\"translation\":{")
    fields(translation)
    literal("}}")
  }

  /// `DmaResponse`.
  @inline(__always)
  public mutating func response(_ result: Wire.DMAResult) {
    reserve(Self.messageBytes)
    needsComma = false
    literal("{\"dma\":{")
    fields(result)
    literal("}}")
  }

  /// `RequestPagesResponse`, and with no `responses` also `CompleteInvalidationsResponse`.
  public mutating func response(_ responses: [Wire.PageResponse], ignored: [Wire.IgnoredReason]) {
    reserve(64)
    byte(0x7b)
    if !responses.isEmpty {
      literal("\"pageResponses\":[")
      for (index, response) in responses.enumerated() {
        reserve(Self.messageBytes)
        if index > 0 { byte(0x2c) }
        byte(0x7b)
        needsComma = false
        fields(response)
        byte(0x7d)
      }
      byte(0x5d)
    }
    reserve(64)
    if !ignored.isEmpty {
      if !responses.isEmpty { byte(0x2c) }
      literal("\"ignored\":[")
      for (index, reason) in ignored.enumerated() {
        reserve(Self.messageBytes)
        if index > 0 { byte(0x2c) }
        byte(0x7b)
        needsComma = false
        value("\"reason\":", reason)
        byte(0x7d)
      }
      byte(0x5d)
    }
    byte(0x7d)
  }

  /// A response without a field.
  @inline(__always)
  public mutating func emptyResponse() {
    reserve(2)
    literal("{}")
  }

  // MARK: - Fields

  @inline(__always)
  private mutating func fields(_ translation: Wire.Translation) {
    uint("\"tag\":", translation.tag)
    value("\"status\":", translation.status)
    uint("\"pasid\":", translation.pasid)
    hex("\"address\":", translation.address)
    optionalHex("\"physicalAddress\":", translation.physicalAddress)
    uint("\"sizeLog2\":", UInt32(translation.sizeLog2))
    bool("\"read\":", translation.read)
    bool("\"write\":", translation.write)
    uint64("\"order\":", translation.order)
  }

  @inline(__always)
  private mutating func fields(_ response: Wire.PageResponse) {
    uint("\"pasid\":", response.pasid)
    uint("\"groupIndex\":", response.groupIndex)
    value("\"code\":", response.code)
    uint64("\"serviceNanoseconds\":", response.serviceNanoseconds)
    uint("\"memberCount\":", response.memberCount)
  }

  @inline(__always)
  private mutating func fields(_ invalidation: Wire.Invalidation) {
    // Always there, for people who read it and complete by hand.
    field("\"itag\":")
    decimal(UInt64(invalidation.itag))
    uint("\"pasid\":", invalidation.pasid)
    hex("\"address\":", invalidation.address)
    uint("\"sizeLog2\":", UInt32(invalidation.sizeLog2))
    uint64("\"order\":", invalidation.order)
  }

  @inline(__always)
  private mutating func fields(_ result: Wire.DMAResult) {
    uint("\"tag\":", result.tag)
    value("\"status\":", result.status)
    bool("\"write\":", result.write)
    optionalHex("\"value\":", result.value)
  }
}
