// SPDX-License-Identifier: Apache-2.0

/// For programs.
extension Explanation {
  /// One JSON object on one line; fields are only ever added.
  public var json: String {
    let lanes = lanes.map {
      "{\"role\":\"\($0.role.name)\",\"name\":\(Self.quoted($0.name)),\"detail\":\(Self.quoted($0.detail))}"
    }
    let events = events.map { event in
      let time = event.at.map { "\"atNanoseconds\":\($0)," } ?? ""
      return "{\(time)\"kind\":\"\(event.kind.name)\",\"from\":\(event.from),\"to\":\(event.to),"
        + "\"text\":\(Self.quoted(event.text))}"
    }
    return "{\"verdict\":\"\(kind.name)\",\"sentence\":\(Self.quoted(sentence)),"
      + "\"lanes\":[\(lanes.joined(separator: ","))],\"events\":[\(events.joined(separator: ","))]}"
  }

  /// A JSON string.
  public static func quoted(_ text: String) -> String {
    var quoted = "\""
    for character in text.unicodeScalars {
      switch character {
      case "\"": quoted += "\\\""
      case "\\": quoted += "\\\\"
      case _ where character.value < 0x20:
        let digits = String(character.value, radix: 16)
        quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: quoted.unicodeScalars.append(character)
      }
    }
    return quoted + "\""
  }
}

extension Explanation.Lane.Role {
  public var name: String {
    switch self {
    case .cpu: "cpu"
    case .operation: "operation"
    case .iommu: "iommu"
    case .device: "device"
    }
  }
}
