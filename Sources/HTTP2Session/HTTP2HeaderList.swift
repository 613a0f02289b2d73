// SPDX-License-Identifier: Apache-2.0
import CNghttp2

/// A header list that is built once and sent many times without a copy. It must outlive the sessions that send it.
public final class HTTP2HeaderList {
  let fields: UnsafeMutablePointer<nghttp2_nv>
  let count: Int
  private let bytes: UnsafeMutablePointer<UInt8>

  /// `fields` in order, pseudo-header fields first; names in lower case.
  public init(_ fields: [(name: String, value: String)]) {
    let total = fields.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
    bytes = .allocate(capacity: max(total, 1))
    self.fields = .allocate(capacity: max(fields.count, 1))
    count = fields.count
    let flags = UInt8(NGHTTP2_NV_FLAG_NO_COPY_NAME.rawValue | NGHTTP2_NV_FLAG_NO_COPY_VALUE.rawValue)
    var next = bytes
    for (index, field) in fields.enumerated() {
      let name = HTTP2HeaderList.store(field.name, &next)
      let value = HTTP2HeaderList.store(field.value, &next)
      (self.fields + index).initialize(
        to: nghttp2_nv(
          name: name, value: value, namelen: field.name.utf8.count, valuelen: field.value.utf8.count, flags: flags))
    }
  }

  /// The list without its reference count, for a hot path. Whoever uses it keeps the list alive.
  public var view: HTTP2HeaderView { HTTP2HeaderView(fields: fields, count: count) }

  deinit {
    fields.deallocate()
    bytes.deallocate()
  }

  private static func store(_ text: String, _ next: inout UnsafeMutablePointer<UInt8>) -> UnsafeMutablePointer<UInt8> {
    let start = next
    for byte in text.utf8 {
      next.pointee = byte
      next += 1
    }
    return start
  }
}

/// The fields of an `HTTP2HeaderList` that somebody else keeps alive.
public struct HTTP2HeaderView {
  let fields: UnsafeMutablePointer<nghttp2_nv>
  let count: Int
}
