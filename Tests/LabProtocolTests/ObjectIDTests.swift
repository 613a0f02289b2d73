// SPDX-License-Identifier: Apache-2.0
//
// Goal: an id has one text; every other text names nothing.
import LabProtocol
import Testing

@Suite struct ObjectIDTests {
  @Test(
    "an id survives its text",
    arguments: [
      (ObjectID.Kind.machine, UInt128.max, "m-ffffffffffffffffffffffffffffffff"),
      (.machine, 1 << 64, "m-00000000000000010000000000000000"), (.device, 0xab, "d-000000ab"),
      (.addressSpace, 1, "as-00000001"), (.domain, 0xffff_ffff, "dom-ffffffff"),
      (.operation, 16, "op-0000000000000010"),
    ])
  func survives(kind: ObjectID.Kind, value: UInt128, text: String) {
    #expect(ObjectID.text(kind, value) == text)
    #expect(ObjectID.value(kind, text) == value)
  }

  @Test(
    "other texts name nothing",
    arguments: [
      "", "d-", "d-1", "d-000000AB", "d-0000000g", "d-000000ab ", "m-000000ab", "d_000000ab", "d-0000000ab",
      "as-000000ab",
    ])
  func others(text: String) {
    #expect(ObjectID.value(.device, text) == 0)
  }

  @Test func `every byte at every place is read as a digit, or refused, as one at a time would`() {
    for place in 0..<8 {
      for byte in UInt8.min...UInt8.max {
        var digits = Array("01ab9fe7".utf8)
        digits[place] = byte
        var slow: UInt128 = 0
        for digit in digits {
          switch digit {
          case 0x30...0x39: slow = slow << 4 | UInt128(digit - 0x30)
          case 0x61...0x66: slow = slow << 4 | UInt128(digit - 0x57)
          default: slow = .max
          }
          if slow == .max { break }
        }
        let text = Array("d-".utf8) + digits
        let fast = text.withUnsafeBufferPointer { ObjectID.value(.device, $0) }
        #expect(fast == (slow == .max ? 0 : slow), "byte \(byte) at \(place)")
      }
    }
  }
}
