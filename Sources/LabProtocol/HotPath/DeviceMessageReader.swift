// SPDX-License-Identifier: Apache-2.0

// The messages of a device, from JSON. Each function reads one object, white space before it included.
extension JSONCursor {
  @inline(__always)
  mutating func deviceMessage() throws(WireError) -> Wire.DeviceMessage {
    var message: Wire.DeviceMessage?
    if try beginObject() {
      repeat {
        let (field, name) = try self.field(likely: .translate, .pageRequest, .dma)
        switch field {
        case .translate, .pageRequest, .dma, .complete, .giveUp:
          if takeNull() { break }
          guard message == nil else { throw error(.notExactlyOne) }
          switch field {
          case .translate: message = .translate(try translationRequest())
          case .pageRequest: message = .pageRequest(try pageRequest())
          case .dma: message = .dma(try dmaAccess())
          case .complete: message = .complete(itagVector: try invalidationCompletion())
          default: message = .giveUp(try abandonment())
          }
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let message else { throw error(.notExactlyOne) }
    return message
  }

  @inline(__always)
  mutating func translationRequest() throws(WireError) -> Wire.TranslationRequest {
    var request = Wire.TranslationRequest()
    var address: UInt64?
    if try beginObject(.translate) {
      repeat {
        let (field, name) = try self.field(likely: .tag, .pasid, .address)
        switch field {
        case .tag: request.tag = try uint32(field)
        case .pasid: request.pasid = try uint32(field)
        case .address: address = try hex(field)
        case .noWrite: request.noWrite = try bool(field)
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let address else { throw error(.missing, .address) }
    request.address = address
    return request
  }

  @inline(__always)
  mutating func pageRequest() throws(WireError) -> Wire.PageRequest {
    var request = Wire.PageRequest()
    var address: UInt64?
    if try beginObject(.pageRequest) {
      repeat {
        // Spelled out, because as a call of six names it is not inlined, and then the names are no constants any more.
        let field: JSONField
        var name = UnsafeBufferPointer<UInt8>(start: nil, count: 0)
        if take(plain: .pasid) {
          field = .pasid
        } else if take(plain: .address) {
          field = .address
        } else if take(plain: .read) {
          field = .read
        } else if take(plain: .write) {
          field = .write
        } else if take(plain: .groupIndex) {
          field = .groupIndex
        } else if take(plain: .last) {
          field = .last
        } else {
          (field, name) = try self.field()
        }
        switch field {
        case .pasid: request.pasid = try uint32(field)
        case .address: address = try hex(field)
        case .read: request.read = try bool(field)
        case .write: request.write = try bool(field)
        case .groupIndex: request.groupIndex = try uint32(field)
        case .last: request.last = try bool(field)
        default: throw unknown(name)
        }
      } while try nextField()
    }
    // A Stop Marker names no page.
    guard address != nil || !(request.read || request.write) else { throw error(.missing, .address) }
    request.address = address ?? 0
    return request
  }

  @inline(__always)
  mutating func dmaAccess() throws(WireError) -> Wire.DMAAccess {
    var access = Wire.DMAAccess()
    var address: UInt64?
    if try beginObject(.dma) {
      repeat {
        let (field, name) = try self.field(likely: .tag, .write, .translated, .pasid, .address, .value)
        switch field {
        case .tag: access.tag = try uint32(field)
        case .write: access.write = try bool(field)
        case .translated: access.translated = try bool(field)
        case .pasid: access.pasid = try uint32(field)
        case .address: address = try hex(field)
        case .iova: access.iova = try hex(field) ?? 0
        case .value: access.value = try hex(field) ?? 0
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let address else { throw error(.missing, .address) }
    access.address = address
    return access
  }

  @inline(__always)
  mutating func invalidationCompletion() throws(WireError) -> UInt32 {
    var vector: UInt64?
    if try beginObject(.complete) {
      repeat {
        let (field, name) = try self.field()
        guard field == .itagVector else { throw unknown(name) }
        vector = try hex(field)
      } while try nextField()
    }
    guard let vector else { throw error(.missing, .itagVector) }
    guard let itags = UInt32(exactly: vector) else { throw error(.outOfRange, .itagVector) }
    return itags
  }

  @inline(__always)
  mutating func abandonment() throws(WireError) -> Wire.Abandonment {
    var abandonment = Wire.Abandonment()
    var address: UInt64?
    if try beginObject(.giveUp) {
      repeat {
        let (field, name) = try self.field()
        switch field {
        case .pasid: abandonment.pasid = try uint32(field)
        case .address: address = try hex(field)
        case .read: abandonment.read = try bool(field)
        case .write: abandonment.write = try bool(field)
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let address else { throw error(.missing, .address) }
    abandonment.address = address
    return abandonment
  }

  /// An id; 0 when the text is none of that kind.
  @inline(__always)
  mutating func id(_ kind: ObjectID.Kind, _ field: JSONField) throws(WireError) -> UInt128 {
    if let text = quoted(count: kind.textCount) {
      let value = ObjectID.value(kind, text)
      if value != 0 {
        take(quoted: text)
        return value
      }
    }
    return try oddID(kind, field)
  }

  @inline(never)
  private mutating func oddID(_ kind: ObjectID.Kind, _ field: JSONField) throws(WireError) -> UInt128 {
    if takeNull() { throw error(.missing, field) }
    let text = try string(field)
    guard !text.isEmpty else { throw error(.missing, field) }
    return ObjectID.value(kind, text)
  }
}
