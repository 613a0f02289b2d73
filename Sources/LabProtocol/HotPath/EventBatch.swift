// SPDX-License-Identifier: Apache-2.0

/// One `AttachResponse` or `DeviceServiceWatchResponse`, which have the same form, read into storage that is kept between
/// batches. For clients.
public struct EventBatch: Sendable {
  public private(set) var epoch: UInt32 = 0
  /// Number of the last event so far.
  public private(set) var seq: UInt64 = 0
  public private(set) var events: [Wire.DeviceEvent] = []
  public private(set) var historyCut = false

  public init() {}

  /// Reads JSON text, which must be one whole message. After an error nothing of the batch may be used.
  public mutating func read(json bytes: UnsafeRawBufferPointer) throws(WireError) {
    clear()
    do throws(WireError) {
      var cursor = JSONCursor(bytes.bindMemory(to: UInt8.self))
      try read(&cursor)
    } catch {
      clear()
      let response = try error.judged { () throws in try LabAttachResponse(jsonUTF8Bytes: BorrowedBytes(bytes)) }
      epoch = response.epoch
      seq = response.seq
      historyCut = response.historyCut
      try WireForm.each(response.events, limit: .max, into: &events) { event throws(WireError) in
        try Wire.DeviceEvent(event)
      }
    }
  }

  private mutating func clear() {
    epoch = 0
    seq = 0
    historyCut = false
    events.removeAll(keepingCapacity: true)
  }

  @inline(__always)
  mutating func read(_ cursor: inout JSONCursor) throws(WireError) {
    if try cursor.beginObject() {
      repeat {
        let (field, name) = try cursor.field()
        switch field {
        case .epoch: epoch = try cursor.uint32(field)
        case .seq: seq = try cursor.uint64(field)
        case .historyCut: historyCut = try cursor.bool(field)
        case .events:
          if cursor.takeNull() { break }
          if try cursor.beginList(field) {
            repeat {
              cursor.element = events.count
              events.append(try cursor.deviceEvent())
            } while try cursor.nextElement()
            cursor.element = -1
          }
        default: throw cursor.unknown(name)
        }
      } while try cursor.nextField()
    }
    try cursor.requireEnd()
  }
}
