// SPDX-License-Identifier: Apache-2.0
import LabProtocol

/// One cell over the network: this process starts the operation and moves the machine's clock; two device processes and,
/// if wanted, a CPU process do all that correct ones may do, between any two of its steps.
struct Trial {
  /// The processes of a run, which serve all its cells one after the other.
  struct Cast {
    let calls: Calls
    let devices: [ActorProcess]
    let cpu: ActorProcess

    init(_ service: String) throws {
      calls = try Calls(service)
      devices = [try ActorProcess("device"), try ActorProcess("device")]
      cpu = try ActorProcess("cpu")
    }

    func stop() { for process in devices + [cpu] { process.stop() } }
  }

  private(set) var verdicts: Set<String> = []
  /// Why the trial says nothing about its cell; empty: it does.
  private(set) var complaints: [String] = []
  private(set) var acts = 0

  private let cast: Cast
  private let scene: Scene
  private let row: Row
  private let usesCPU: Bool
  private var time: UInt64
  private var nextDue: UInt64?
  private var operation = ""
  private var wasServed = false
  /// Holds the operation at E until the other process has let go.
  private var gate: Gate?
  /// The last act has left something to do before time goes on: an invalidation to complete, an answer to use.
  private var isDue = false

  /// Acts before the trial says that the operation waits for ever.
  private static let actLimit = 1000
  /// Machine time in which an operation comes to its end when nothing holds it.
  private static let patience: UInt64 = 100_000

  init(_ cell: ExpectedTable.Cell, usesCPU: Bool, _ cast: Cast) throws {
    self.cast = cast
    self.usesCPU = usesCPU
    row = try Row(cell.operation)
    scene = try Scene(row, cell, cast.calls)
    time = scene.time
    for (process, device) in zip(cast.devices, scene.devices) { process.send("attach \(scene.machine) \(device)") }
    for process in cast.devices { _ = try process.reply() }
    gate = row.sharesTable ? try Gate(scene, cast.calls) : nil
    defer { gate?.close() }
    try settle()
    try act()
    try start()
    repeat {
      try act()
      acts += 1
    } while try step() && acts < Self.actLimit
    try act()
    try conclude(cell)
    try cast.calls.call(.deleteMachine, ["machine": scene.machine])
  }

  private mutating func start() throws {
    if let tried = row.tried {
      let call = scene.call(tried)
      operation = try cast.calls.call(call.method, call.body).object("operation").text("operation")
    } else {
      _ = try cast.devices[1].batch("request \(Self.hex(Scene.first)) 1 1,\(look)")
    }
    try advance(until: time, turns: 1)
  }

  private var isDone: Bool {
    get throws {
      if row.tried == nil { return wasServed }
      let reply = try cast.calls.call(.getOperation, ["machine": scene.machine, "operation": operation])
      let outcome = reply.object("operation")
      return outcome["done"] as? Bool == true && outcome.text("status") == "OPERATION_STATUS_SUCCESS"
    }
  }

  // MARK: The others

  /// Everything that correct devices and a CPU may do now.
  private mutating func act() throws {
    let bystander = "\(Self.hex(Scene.bystander)) 0"
    isDue = false
    cast.devices[0].send("use,\(ask),\(look),want \(bystander)")
    cast.devices[1].send(look)
    try load()
    let lacksBystander = try cast.devices[0].reply().lacks
    try serve(cast.devices[1].reply())
    try settle()
    try letGo()
    try struggle(bystander, lacksBystander)
    if row.cachesRights, wasServed {
      let upgrade = "\(Self.hex(Scene.first)) 1"
      try struggle(upgrade, cast.devices[0].batch("want \(upgrade)").lacks, patience: Self.patience)
    }
    // The operation may have come a step on by itself: once more.
    try load()
    _ = try cast.devices[0].batch("use,\(look)")
    try settle()
    // What was told is obeyed at last; from here on the operation goes on.
    cast.devices[0].send("complete,\(ask)")
    cast.devices[1].send("complete,\(look)")
    let last = [try cast.devices[0].reply(), try cast.devices[1].reply()]
    serve(last[1])
    if last.contains(where: { $0.owes > 0 }) { isDue = true }
  }

  /// The other process unmaps what it shares, as soon as the operation has left the table: it is the last who uses it.
  private mutating func letGo() throws {
    guard let gate else { return }
    if !gate.isOpen && gate.hasChanged(operation) {
      gate.isOpen = true
      let munmap = scene.call(Row.Step(.munmap, (Row.shared.first, Row.shared.count), isOther: true))
      try cast.calls.call(munmap.method, munmap.body)
      try advance(until: time + Self.patience, turns: nil)
      _ = try cast.devices[0].batch("\(ask),\(look)")
    }
    try gate.answer()
  }

  /// The second device's page request is what is tried in some rows.
  private mutating func serve(_ reply: DeviceActor.Reply) {
    if reply.answers.contains(true) { (wasServed, isDue) = (true, true) }
  }

  private func load() throws {
    guard usesCPU else { return }
    cast.cpu.send(loads)
    _ = try cast.cpu.answer()
  }

  /// The device needs a page and asks until its retries are used up.
  /// - Parameter patience: machine time that it gives the answer.
  private mutating func struggle(_ page: String, _ lacksIt: Bool, patience: UInt64 = 0) throws {
    var lacksIt = lacksIt
    for _ in 0..<2 {
      guard lacksIt else { return }
      _ = try cast.devices[0].batch("request \(page) 7,\(look)")
      try advance(until: time + patience, turns: nil)
      let reply = try cast.devices[0].batch("want \(page)")
      guard reply.answers.contains(true) else { return }
      lacksIt = reply.lacks
    }
    if lacksIt { _ = try cast.devices[0].batch("give-up \(page),\(look)") }
  }

  private var ask: String { "ask \(Self.hex(row.asked)) \(Self.hex(row.isLarge ? 6 : 1))" }
  /// A page that nobody has touched is in no IOTLB: its way through the tables is walked each time.
  private var look: String { "look \(Self.hex(row.untouched))" }
  /// Loads from the first and the last of the pages that are there.
  private var loads: String {
    let pages = row.isLarge ? [row.page, row.page + 5] : [row.page]
    return ([scene.machine, scene.space] + pages.map(Self.hex)).joined(separator: " ")
  }
  private static func hex(_ number: UInt64) -> String { String(number, radix: 16) }

  // MARK: The clock

  /// Everything that is due now.
  private mutating func settle() throws { try advance(until: time, turns: nil) }

  /// The next turn, whenever it is due; false: nothing is pending.
  private mutating func step() throws -> Bool {
    // What the last act left behind is due now.
    try advance(until: time, turns: 1)
    guard !hasMoved && !isDue else { return true }
    guard let nextDue else { return false }
    try advance(until: nextDue, turns: 1)
    return true
  }
  private var hasMoved = false

  private mutating func advance(until end: UInt64, turns: Int?) throws {
    var body: Calls.Body = ["machine": scene.machine, "untilNanoseconds": String(end)]
    if let turns { body["maxTurns"] = turns }
    let reply = try cast.calls.call(.advance, body)
    time = reply.number("timeNanoseconds")
    hasMoved = reply.number("turns") > 0
    nextDue = reply["nextDueNanoseconds"] == nil ? nil : reply.number("nextDueNanoseconds")
  }

  // MARK: The end

  private mutating func conclude(_ cell: ExpectedTable.Cell) throws {
    let figures = try cast.calls.call(.getStatistics, ["machine": scene.machine]).object("statistics")
    for entry in figures["verdicts"] as? [[String: Any]] ?? [] where entry.number("count") > 0 {
      verdicts.insert(String(entry.text("kind").dropFirst("VERDICT_KIND_".count)))
    }
    if gate?.isOpen == false { complaints.append("the operation was not seen to leave the table") }
    if acts >= Self.actLimit { complaints.append("the operation never ends") }
    if try !isDone { complaints.append("the operation has not succeeded") }
    let counters = figures.object("counters")
    if counters.number("unexplainedCorruptions") > 0 { complaints.append("corruption without a verdict") }
    if !cell.strategy.hasPrefix("empty-table"), !cell.verdicts.contains("GAVE_UP"),
      counters.number("needlessFaults") > 0
    {
      complaints.append("a needless fault")
    }
  }
}
