// SPDX-License-Identifier: Apache-2.0
//
// Goal: one canonical form out, a little tolerance in, and a refusal that shows the corrected form.
import LabProtocol
import Testing

@Suite struct HexTests {
  @Test(
    "the canonical form has no leading zero and no capital",
    arguments: [
      (UInt64(0), "0x0"), (1, "0x1"), (0xabc, "0xabc"), (.max, "0xffffffffffffffff"), (1 << 63, "0x8000000000000000"),
    ])
  func canonical(value: UInt64, text: String) throws {
    #expect(Hex.string(value) == text)
    #expect(try Hex.parse(text) == value)
  }

  @Test(
    "capitals and leading zeros up to 16 digits are accepted",
    arguments: [
      ("0xABC", UInt64(0xabc)), ("0x0000000000000abc", 0xabc), ("0x00", 0), ("0xFFFFFFFFFFFFFFFF", .max),
    ])
  func tolerance(text: String, value: UInt64) throws {
    #expect(try Hex.parse(text) == value)
  }

  @Test(
    "anything else is refused, decimal with the corrected form",
    arguments: [
      ("4096", Hex.ParseError.decimal(4096)), ("0", .decimal(0)), ("18446744073709551616", .decimal(nil)),
      ("0x00000000000000001", .tooLong), ("0x1ffffffffffffffff", .tooLong), ("", .malformed), ("0x", .malformed),
      ("0X1", .malformed), ("1x1", .malformed), ("0xg", .malformed), ("-0x1", .malformed), (" 0x1", .malformed),
      ("0x1 ", .malformed), ("0x00000000000000000g", .malformed), ("0xé", .malformed), ("abc", .malformed),
    ])
  func refused(text: String, error: Hex.ParseError) {
    #expect(throws: error) { try Hex.parse(text) }
    if text == "4096" { #expect(error.text.contains("\"0x1000\"")) }
  }
}
