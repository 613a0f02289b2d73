// SPDX-License-Identifier: Apache-2.0

/// Every field name of the hot messages. One enum for all of them, so that a name is looked up once; a message that does
/// not have the field refuses it.
enum JSONField: UInt8, CaseIterable {
  case unknown, address, afterSeq, allocation, code, complete, device, dma, epoch, events, giveUp, groupIndex
  case heartbeat, hello, historyCut, ignored, invalidation, iova, itag, itagVector, last, machine, memberCount
  case message, messages, noWrite, order, pageRequest, pageRequests, pageResponse, pageResponses, pasid
  case physicalAddress, read, reason, refused, requestId, seq, serviceNanoseconds, sizeLog2, state, status, tag
  case text, timeNanoseconds, translate, translated, translation, value, write

  /// Finds a name, in its lowerCamelCase or its snake_case spelling. `head` is the first eight bytes as one
  /// little-endian word, which tells all names of up to eight bytes apart; longer ones are compared to their end.
  @inline(__always)
  init(head: UInt64, bytes: UnsafeBufferPointer<UInt8>) {
    switch head {
    case 0x0000000000616d64: self = .dma
    case 0x0000000000676174: self = .tag
    case 0x0000000000716573: self = .seq
    case 0x0000000061766f69: self = .iova
    case 0x0000000064616572: self = .read
    case 0x0000000065646f63: self = .code
    case 0x0000000067617469: self = .itag
    case 0x000000007473616c: self = .last
    case 0x0000000074786574: self = .text
    case 0x0000006469736170: self = .pasid
    case 0x0000006574617473: self = .state
    case 0x0000006574697277: self = .write
    case 0x00000065756c6176: self = .value
    case 0x00000068636f7065: self = .epoch
    case 0x0000006f6c6c6568: self = .hello
    case 0x000000726564726f: self = .order
    case 0x0000656369766564: self = .device
    case 0x00006e6f73616572: self = .reason
    case 0x0000705565766967: self = .giveUp
    case 0x000073746e657665: self = .events
    case 0x0000737574617473: self = .status
    case 0x006465726f6e6769: self = .ignored
    case 0x0064657375666572: self = .refused
    case 0x006567617373656d: self = .message
    case 0x00656e696863616d: self = .machine
    case 0x0065746972576f6e: self = .noWrite
    case 0x0070755f65766967: self = .giveUp
    case 0x0073736572646461: self = .address
    case 0x32676f4c657a6973: self = Self.ends(bytes, "") ? .sizeLog2 : .unknown
    case 0x4379726f74736968: self = Self.ends(bytes, "ut") ? .historyCut : .unknown
    case 0x4974736575716572: self = Self.ends(bytes, "d") ? .requestId : .unknown
    case 0x4e65636976726573: self = Self.ends(bytes, "anoseconds") ? .serviceNanoseconds : .unknown
    case 0x5f65636976726573: self = Self.ends(bytes, "nanoseconds") ? .serviceNanoseconds : .unknown
    case 0x5f74736575716572: self = Self.ends(bytes, "id") ? .requestId : .unknown
    case 0x5f79726f74736968: self = Self.ends(bytes, "cut") ? .historyCut : .unknown
    case 0x6164696c61766e69: self = Self.ends(bytes, "tion") ? .invalidation : .unknown
    case 0x6165627472616568: self = Self.ends(bytes, "t") ? .heartbeat : .unknown
    case 0x635f7265626d656d: self = Self.ends(bytes, "ount") ? .memberCount : .unknown
    case 0x6365765f67617469: self = Self.ends(bytes, "tor") ? .itagVector : .unknown
    case 0x646e4970756f7267: self = Self.ends(bytes, "ex") ? .groupIndex : .unknown
    case 0x65735f7265746661: self = Self.ends(bytes, "q") ? .afterSeq : .unknown
    case 0x6574656c706d6f63: self = Self.ends(bytes, "") ? .complete : .unknown
    case 0x65746972775f6f6e: self = Self.ends(bytes, "") ? .noWrite : .unknown
    case 0x676f6c5f657a6973: self = Self.ends(bytes, "2") ? .sizeLog2 : .unknown
    case 0x697461636f6c6c61: self = Self.ends(bytes, "on") ? .allocation : .unknown
    case 0x6c61636973796870:
      self = Self.ends(bytes, "Address") ? .physicalAddress : Self.ends(bytes, "_address") ? .physicalAddress : .unknown
    case 0x6e616e5f656d6974: self = Self.ends(bytes, "oseconds") ? .timeNanoseconds : .unknown
    case 0x6e695f70756f7267: self = Self.ends(bytes, "dex") ? .groupIndex : .unknown
    case 0x6f437265626d656d: self = Self.ends(bytes, "unt") ? .memberCount : .unknown
    case 0x6f6e614e656d6974: self = Self.ends(bytes, "seconds") ? .timeNanoseconds : .unknown
    case 0x7073655265676170:
      self = Self.ends(bytes, "onse") ? .pageResponse : Self.ends(bytes, "onses") ? .pageResponses : .unknown
    case 0x7165537265746661: self = Self.ends(bytes, "") ? .afterSeq : .unknown
    case 0x7165725f65676170:
      self = Self.ends(bytes, "uest") ? .pageRequest : Self.ends(bytes, "uests") ? .pageRequests : .unknown
    case 0x736567617373656d: self = Self.ends(bytes, "") ? .messages : .unknown
    case 0x7365725f65676170:
      self = Self.ends(bytes, "ponse") ? .pageResponse : Self.ends(bytes, "ponses") ? .pageResponses : .unknown
    case 0x74616c736e617274:
      self =
        Self.ends(bytes, "e")
        ? .translate : Self.ends(bytes, "ed") ? .translated : Self.ends(bytes, "ion") ? .translation : .unknown
    case 0x7463655667617469: self = Self.ends(bytes, "or") ? .itagVector : .unknown
    case 0x7571655265676170:
      self = Self.ends(bytes, "est") ? .pageRequest : Self.ends(bytes, "ests") ? .pageRequests : .unknown
    default: self = .unknown
    }
  }

  @inline(__always)
  private static func ends(_ bytes: UnsafeBufferPointer<UInt8>, _ rest: StaticString) -> Bool {
    guard bytes.count == 8 + rest.utf8CodeUnitCount else { return false }
    for index in 8..<bytes.count where bytes[index] != rest.utf8Start[index - 8] { return false }
    return true
  }

  /// The lowerCamelCase name with quotes and colon, 4 to 16 bytes, for the fields that `JSONCursor.field(likely:)` is
  /// asked for.
  @inline(__always)
  var quoted: StaticString {
    switch self {
    case .address: "\"address\":"
    case .complete: "\"complete\":"
    case .device: "\"device\":"
    case .dma: "\"dma\":"
    case .groupIndex: "\"groupIndex\":"
    case .last: "\"last\":"
    case .machine: "\"machine\":"
    case .memberCount: "\"memberCount\":"
    case .order: "\"order\":"
    case .code: "\"code\":"
    case .pageRequest: "\"pageRequest\":"
    case .pageResponse: "\"pageResponse\":"
    case .pasid: "\"pasid\":"
    case .read: "\"read\":"
    case .sizeLog2: "\"sizeLog2\":"
    case .status: "\"status\":"
    case .tag: "\"tag\":"
    case .translate: "\"translate\":"
    case .translated: "\"translated\":"
    case .translation: "\"translation\":"
    case .value: "\"value\":"
    case .write: "\"write\":"
    default: preconditionFailure("a field that is never likely")
    }
  }

  /// The lowerCamelCase name.
  var name: String { "\(self)" }
}
