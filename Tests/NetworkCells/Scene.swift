// SPDX-License-Identifier: Apache-2.0
import LabProtocol

/// The small machine on which a cell is tried, in calls of the public API: an address space with a few pages, what the
/// operation needs beside it, and two devices that share it under the cell's strategy.
struct Scene {
  typealias Call = (method: LabMethod, body: Calls.Body)

  let machine: String
  let space: String
  /// Another process, whose pages KSM keeps.
  let other: String
  let file: String
  let devices: [String]
  /// Machine time when everything stands.
  private(set) var time: UInt64 = 0

  static let first: UInt64 = 0x200
  /// A page that the operation does not touch, before the others: what goes over everything comes to them last.
  static let bystander: UInt64 = 0x100
  static let destination: UInt64 = 0x2003
  static let kernel: UInt64 = 0xf_fff8_0000_0200

  init(_ row: Row, _ cell: ExpectedTable.Cell, _ calls: Calls) throws {
    let machine = try calls.call(.createMachine, Self.creation(row, cell)).object("machine").text("machine")
    self.machine = machine
    let made = try calls.calls([
      (.createAddressSpace, ["machine": machine]), (.createAddressSpace, ["machine": machine]),
      (
        .createFile,
        ["machine": machine, "byteCount": hex(row.file.pageCount << 12), "pageSize": hex(row.file.pageSize)]
      ),
      (.registerDevice, ["machine": machine, "rid": 8, "retryLimit": 1]),
      (.registerDevice, ["machine": machine, "rid": 9, "retryLimit": 1]),
    ])
    space = made[0].text("addressSpace")
    other = made[1].text("addressSpace")
    devices = made[3...4].map { $0.text("device") }
    file = made[2].text("file")
    // Each operation is over before the next one starts.
    let set = try calls.calls(
      row.setting.flatMap { [call($0), (.advance, ["machine": machine, "maxTurns": 10_000])] })
    time = set.last!.number("timeNanoseconds")
    try calls.calls(
      devices.map {
        (
          .bindPasid,
          [
            "machine": machine, "device": $0, "pasid": 5,
            "sva": ["addressSpace": space, "strategy": cell.strategy],
          ]
        )
      })
  }

  private static func creation(_ row: Row, _ cell: ExpectedTable.Cell) -> Calls.Body {
    // A step of an operation takes its time, and everything else none: so all that the others do happens between two
    // steps, and no clock but the machine's decides it.
    let step: Calls.Body = ["buckets": [["upToThousandths": 1000, "lowNanoseconds": 1000, "highNanoseconds": 1000]]]
    var costs: Calls.Body = ["preset": "COST_PRESET_ZERO"]
    for name in ["start", "end", "entry", "cpuFlush", "frameFree", "iotlbFlush"] { costs[name] = step }
    var settings: Calls.Body = [
      "frameCount": row.needsManyFrames ? 4096 : 256,
      "costs": costs,
      "kernel": cell.kernel == "2014" ? "KERNEL_2014" : "KERNEL_NOW",
      "cachesRights": row.cachesRights,
      "gatherBatchPages": row.isLarge ? 4 : 64,
    ]
    if !row.kernelTableFree.isEmpty { settings["kernelTableFree"] = row.kernelTableFree }
    return ["pacing": "PACING_MANUAL", "settings": settings]
  }

  /// A step as a call that answers at once.
  func call(_ step: Row.Step) -> Call {
    var body: Calls.Body = ["machine": machine, "startOnly": true]
    if step.kind.isOfSpace { body["addressSpace"] = step.isOther ? other : space }
    if let pages = step.pages {
      body["address"] = hex(pages.first << 12)
      if pages.count > 0 { body["byteCount"] = hex(pages.count << 12) }
    }
    for (name, value) in step.more {
      switch value as? Row.Step.Object {
      case .file?: body[name] = file
      case .other?: body[name] = other
      case nil: body[name] = value
      }
    }
    return (step.kind, body)
  }
}

extension LabMethod {
  fileprivate var isOfSpace: Bool { self != .kernelMap && self != .kernelUnmap }
}
