// SPDX-License-Identifier: Apache-2.0

// The events for a device, from JSON. Each function reads one object, white space before it included.
extension JSONCursor {
  @inline(__always)
  mutating func deviceEvent() throws(WireError) -> Wire.DeviceEvent {
    var event: Wire.DeviceEvent?
    if try beginObject() {
      repeat {
        let (field, name) = try self.field(likely: .translation, .pageResponse, .dma)
        switch field {
        case .translation, .pageResponse, .invalidation, .dma, .device, .ignored, .refused, .heartbeat:
          if takeNull() { break }
          guard event == nil else { throw error(.notExactlyOne) }
          switch field {
          case .translation: event = .translation(try translation())
          case .pageResponse: event = .pageResponse(try pageResponse())
          case .invalidation: event = .invalidation(try invalidation())
          case .dma: event = .dma(try dmaResult())
          case .device: event = try deviceChange()
          case .ignored: event = .ignored(try ignoredMessage())
          case .refused: event = try refusedMessage()
          default: event = try heartbeat()
          }
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let event else { throw error(.notExactlyOne) }
    return event
  }

  @inline(__always)
  mutating func translation() throws(WireError) -> Wire.Translation {
    var translation = Wire.Translation()
    var address: UInt64?
    var status: Wire.TranslationStatus?
    if try beginObject(.translation) {
      repeat {
        let (field, name) = try self.field(likely: .tag, .status, .pasid, .address, .sizeLog2, .order)
        switch field {
        case .tag: translation.tag = try uint32(field)
        case .status: status = try value(field)
        case .pasid: translation.pasid = try uint32(field)
        case .address: address = try hex(field)
        case .physicalAddress: translation.physicalAddress = try hex(field) ?? 0
        case .sizeLog2: translation.sizeLog2 = UInt8(truncatingIfNeeded: try uint(field, max: 63))
        case .read: translation.read = try bool(field)
        case .write: translation.write = try bool(field)
        case .order: translation.order = try uint64(field)
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let address else { throw error(.missing, .address) }
    guard let status else { throw error(.missing, .status) }
    translation.address = address
    translation.status = status
    return translation
  }

  @inline(__always)
  mutating func pageResponse() throws(WireError) -> Wire.PageResponse {
    var response = Wire.PageResponse()
    var code: Wire.PageResponseCode?
    if try beginObject(.pageResponse) {
      repeat {
        let (field, name) = try self.field(likely: .pasid, .groupIndex, .code, .memberCount)
        switch field {
        case .pasid: response.pasid = try uint32(field)
        case .groupIndex: response.groupIndex = try uint32(field)
        case .code: code = try value(field)
        case .serviceNanoseconds: response.serviceNanoseconds = try uint64(field)
        case .memberCount: response.memberCount = try uint32(field)
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let code else { throw error(.missing, .code) }
    response.code = code
    return response
  }

  @inline(__always)
  mutating func invalidation() throws(WireError) -> Wire.Invalidation {
    var invalidation = Wire.Invalidation()
    var address: UInt64?
    if try beginObject(.invalidation) {
      repeat {
        let (field, name) = try self.field()
        switch field {
        case .itag: invalidation.itag = UInt8(truncatingIfNeeded: try uint(field, max: 31))
        case .pasid: invalidation.pasid = try uint32(field)
        case .address: address = try hex(field)
        case .sizeLog2: invalidation.sizeLog2 = UInt8(truncatingIfNeeded: try uint(field, max: 63))
        case .order: invalidation.order = try uint64(field)
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let address else { throw error(.missing, .address) }
    invalidation.address = address
    return invalidation
  }

  @inline(__always)
  mutating func dmaResult() throws(WireError) -> Wire.DMAResult {
    var result = Wire.DMAResult()
    var status: Wire.DMAStatus?
    if try beginObject(.dma) {
      repeat {
        let (field, name) = try self.field(likely: .tag, .status, .write, .value)
        switch field {
        case .tag: result.tag = try uint32(field)
        case .status: status = try value(field)
        case .write: result.write = try bool(field)
        case .value: result.value = try hex(field) ?? 0
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let status else { throw error(.missing, .status) }
    result.status = status
    return result
  }

  mutating func deviceChange() throws(WireError) -> Wire.DeviceEvent {
    var state: Wire.DeviceState?
    var allocation: UInt32 = 0
    if try beginObject(.device) {
      repeat {
        let (field, name) = try self.field()
        switch field {
        case .state: state = try value(field)
        case .allocation: allocation = try uint32(field)
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let state else { throw error(.missing, .state) }
    return .device(state, allocation: allocation)
  }

  mutating func ignoredMessage() throws(WireError) -> Wire.IgnoredReason {
    var reason: Wire.IgnoredReason?
    if try beginObject(.ignored) {
      repeat {
        let (field, name) = try self.field()
        guard field == .reason else { throw unknown(name) }
        reason = try value(field)
      } while try nextField()
    }
    guard let reason else { throw error(.missing, .reason) }
    return reason
  }

  mutating func refusedMessage() throws(WireError) -> Wire.DeviceEvent {
    var message: UInt64 = 0
    var reason: ErrorReason?
    if try beginObject(.refused) {
      repeat {
        let (field, name) = try self.field()
        switch field {
        case .message: message = try uint64(field)
        case .reason: reason = takeNull() ? nil : ErrorReason(name: try string(field))
        case .text: if !takeNull() { _ = try string(field) }
        default: throw unknown(name)
        }
      } while try nextField()
    }
    return .refused(message: message, reason)
  }

  mutating func heartbeat() throws(WireError) -> Wire.DeviceEvent {
    var time: UInt64 = 0
    if try beginObject(.heartbeat) {
      repeat {
        let (field, name) = try self.field()
        guard field == .timeNanoseconds else { throw unknown(name) }
        time = try uint64(field)
      } while try nextField()
    }
    return .heartbeat(timeNanoseconds: time)
  }

  /// An enum's value; nil: absent or unspecified.
  @inline(__always)
  private mutating func value<Value: WireEnum>(_ field: JSONField) throws(WireError) -> Value? {
    guard let name = try enumName(field, prefix: Value.prefix) else { return nil }
    for value in Value.allCases where value.isNamed(name) { return value }
    // UNSPECIFIED is a name too: the generated codec tells.
    throw error(.unusual, field)
  }
}

/// An enum of the contract: its values' names are `prefix` and a suffix.
protocol WireEnum: CaseIterable, RawRepresentable<UInt8> {
  static var prefix: StaticString { get }
  var suffix: StaticString { get }
}

extension WireEnum {
  @inline(__always)
  func isNamed(_ name: UnsafeBufferPointer<UInt8>) -> Bool {
    let suffix = self.suffix
    guard name.count == suffix.utf8CodeUnitCount else { return false }
    for index in 0..<name.count where name[index] != suffix.utf8Start[index] { return false }
    return true
  }
}

extension Wire.TranslationStatus: WireEnum {
  @inline(__always) static var prefix: StaticString { "TRANSLATION_STATUS_" }
  @inline(__always) var suffix: StaticString {
    switch self {
    case .success: "SUCCESS"
    case .unsupportedRequest: "UNSUPPORTED_REQUEST"
    case .completerAbort: "COMPLETER_ABORT"
    }
  }
}

extension Wire.PageResponseCode: WireEnum {
  @inline(__always) static var prefix: StaticString { "PAGE_RESPONSE_CODE_" }
  @inline(__always) var suffix: StaticString {
    switch self {
    case .success: "SUCCESS"
    case .invalidRequest: "INVALID_REQUEST"
    case .responseFailure: "RESPONSE_FAILURE"
    }
  }
}

extension Wire.DMAStatus: WireEnum {
  @inline(__always) static var prefix: StaticString { "DMA_STATUS_" }
  @inline(__always) var suffix: StaticString {
    switch self {
    case .success: "SUCCESS"
    case .fenced: "FENCED"
    case .refused: "REFUSED"
    case .blocked: "BLOCKED"
    case .unsupportedRequest: "UNSUPPORTED_REQUEST"
    }
  }
}

extension Wire.DeviceState: WireEnum {
  static var prefix: StaticString { "DEVICE_STATE_" }
  var suffix: StaticString {
    switch self {
    case .fencedInvalidationTimedOut: "FENCED_INVALIDATION_TIMED_OUT"
    case .fencedRemoved: "FENCED_REMOVED"
    case .priDisabled: "PRI_DISABLED"
    case .priEnabled: "PRI_ENABLED"
    case .removed: "REMOVED"
    }
  }
}

extension Wire.IgnoredReason: WireEnum {
  static var prefix: StaticString { "IGNORED_REASON_" }
  var suffix: StaticString {
    switch self {
    case .unexpectedCompletion: "UNEXPECTED_COMPLETION"
    case .excessPageRequest: "EXCESS_PAGE_REQUEST"
    case .pageRequestWhileDisabled: "PAGE_REQUEST_WHILE_DISABLED"
    case .droppedByOverflow: "DROPPED_BY_OVERFLOW"
    case .groupIndexInUse: "GROUP_INDEX_IN_USE"
    }
  }
}
