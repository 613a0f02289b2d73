// SPDX-License-Identifier: Apache-2.0
import SwiftProtobuf

/// One `AttachRequest`, read into storage that is kept between batches.
public struct AttachBatch: Sendable {
  /// The most messages of one batch.
  public static let limit = 4096

  /// Who speaks. Ids that are none of their kind read as 0.
  public struct Hello: Equatable, Sendable {
    public var machine: UInt128
    public var device: UInt32
    public var afterSeq: UInt64
  }

  public private(set) var hello: Hello?
  public private(set) var messages: [Wire.DeviceMessage] = []

  public init() {}

  /// Reads JSON text, which must be one whole message. After an error the batch is empty.
  public mutating func read(json bytes: UnsafeRawBufferPointer) throws(WireError) {
    hello = nil
    messages.removeAll(keepingCapacity: true)
    do throws(WireError) {
      var cursor = JSONCursor(bytes.bindMemory(to: UInt8.self))
      try read(&cursor)
    } catch {
      try read(instead: error, { () throws in try LabAttachRequest(jsonUTF8Bytes: BorrowedBytes(bytes)) })
    }
  }

  /// Reads the binary form.
  public mutating func read(binary bytes: UnsafeRawBufferPointer) throws(WireError) {
    try read(
      instead: WireError(.malformed), { () throws in try LabAttachRequest(serializedBytes: BorrowedBytes(bytes)) })
  }

  @inline(__always)
  mutating func read(_ cursor: inout JSONCursor) throws(WireError) {
    if try cursor.beginObject() {
      repeat {
        let (field, name) = try cursor.field()
        switch field {
        case .hello:
          if hello != nil { throw cursor.error(.unusual) }
          if !cursor.takeNull() { hello = try cursor.hello() }
        case .messages:
          if cursor.takeNull() { break }
          if try cursor.beginList(field) {
            repeat {
              cursor.element = messages.count
              guard messages.count < Self.limit else { throw cursor.error(.tooMany(Self.limit), field) }
              messages.append(try cursor.deviceMessage())
            } while try cursor.nextElement()
            cursor.element = -1
          }
        default: throw cursor.unknown(name)
        }
      } while try cursor.nextField()
    }
    try cursor.requireEnd()
  }

  @inline(never)
  private mutating func read(
    instead first: WireError, _ decode: () throws -> LabAttachRequest
  ) throws(WireError) {
    hello = nil
    messages.removeAll(keepingCapacity: true)
    let request: LabAttachRequest = try first.judged(decode)
    do throws(WireError) {
      if request.hasHello { hello = try Hello(request.hello) }
      try WireForm.each(request.messages, limit: Self.limit, into: &messages) { message throws(WireError) in
        try Wire.DeviceMessage(message)
      }
    } catch {
      hello = nil
      messages.removeAll(keepingCapacity: true)
      throw error
    }
  }
}

extension AttachBatch.Hello {
  init(_ message: LabAttachHello) throws(WireError) {
    machine = try WireForm.id(.machine, message.machine, .machine)
    device = UInt32(truncatingIfNeeded: try WireForm.id(.device, message.device, .device))
    afterSeq = message.afterSeq
  }
}

extension JSONCursor {
  fileprivate mutating func hello() throws(WireError) -> AttachBatch.Hello {
    var machine: UInt128?
    var device: UInt128?
    var afterSeq: UInt64 = 0
    if try beginObject(.hello) {
      repeat {
        let (field, name) = try self.field()
        switch field {
        case .machine: machine = try id(.machine, field)
        case .device: device = try id(.device, field)
        case .afterSeq: afterSeq = try uint64(field)
        default: throw unknown(name)
        }
      } while try nextField()
    }
    guard let machine else { throw error(.missing, .machine) }
    guard let device else { throw error(.missing, .device) }
    return AttachBatch.Hello(machine: machine, device: UInt32(truncatingIfNeeded: device), afterSeq: afterSeq)
  }
}

extension WireError {
  /// What the generated codec makes of a message that the hand-written reader did not accept. When it does not accept it
  /// either, this error stands, because it names the field.
  func judged<Value>(_ decode: () throws -> Value) throws(WireError) -> Value {
    do {
      return try decode()
    } catch {
      if problem == .unusual { throw WireError(.malformed, field: field, element: element) }
      throw self
    }
  }
}

/// Bytes that the generated codec may read where they are.
struct BorrowedBytes: SwiftProtobufContiguousBytes {
  let bytes: UnsafeRawBufferPointer
  init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

  // The protocol wants these of every type; they serve encoding, which does not happen here.
  init(repeating byte: UInt8, count: Int) { preconditionFailure("bytes that are only read") }
  init<S: Sequence>(_ sequence: S) where S.Element == UInt8 { preconditionFailure("bytes that are only read") }
  var count: Int { bytes.count }
  func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R { try body(bytes) }
  mutating func withUnsafeMutableBytes<R>(_ body: (UnsafeMutableRawBufferPointer) throws -> R) rethrows -> R {
    preconditionFailure("bytes that are only read")
  }
}
