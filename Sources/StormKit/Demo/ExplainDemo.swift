// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCClient

/// `iommulab storm --explain-demo`: the race of the 2014 thread with one device and one page, told step by step. Every
/// number and every outcome is read from a real run on a service whose clock the demo moves by hand.
public enum ExplainDemo {
  static let page: UInt64 = 0x7f5a_0000_0000
  static let before: UInt64 = 0x1111
  static let secret: UInt64 = 0x5ec2e7
  static let foreign: UInt64 = 0xbad

  /// `service`: `HOST:PORT`; nil starts one.
  public static func run(service: String?, program: String = "/proc/self/exe") throws(StormFailure) {
    Interrupt.install()
    let own = service == nil ? try ServiceProcess(program: program) : nil
    defer { own?.stop() }
    let client = try LabClient(service ?? own!.address)
    defer { client.rpc.close() }
    say(
      """
      A page is given back while a device still uses it. Who is told what, and when?

        process A owns one page at \(Hex.string(page)); the device shares A's page table and keeps what it
        has learnt in a cache of its own, the ATC. Process B will get whatever frame A gives back.
      """)
    try tell(client, strategy: "flush-at-start", flushedAt: .start)
    try tell(client, strategy: "invalidate-range", flushedAt: .flushSite)
    say(
      """

      That is the whole point: a flush before the page-table entry changes is too early, because the device may
      ask again; a flush after the frame is free is too late. `iommulab storm` does this thousands of times, with
      32 devices in processes of their own, and nobody placing the steps by hand.
      """)
  }

  enum Site { case start, flushSite }

  private static func tell(_ client: LabClient, strategy: String, flushedAt: Site) throws(StormFailure) {
    let machine = try DemoMachine(client)
    let a = try machine.addProcess()
    let b = try machine.addProcess()
    for process in [a, b] { try machine.mmap(process, page) }
    try machine.mmap(b, page + 4096)
    // B's page tables are there before the race, so that its next frame is the one that A gives back.
    try machine.store(b, page + 4096, 1)
    try machine.store(a, page, before)
    try machine.addDevice(sharing: a, strategy: strategy)
    var step = Steps(device: DemoDevice(machine), machine: machine)

    say("\n── \(strategy) " + String(repeating: "─", count: 92 - strategy.count))
    var frame = try step.device.translate()
    step.next("The device asks where the page is: physical \(Hex.string(frame)). It keeps that in its ATC.")
    try machine.forgetSteps()
    let operation = try machine.startDontNeed(a, page)
    step.next("A gives the page back: madvise(MADV_DONTNEED). The kernel begins with S, \"a range will change\".")
    if flushedAt == .start {
      try step.invalidate("The strategy flushes now:")
      frame = try step.device.translate()
      step.next(
        "The device needs the page again and asks. The page table still has it, so the answer is\n"
          + "    \(Hex.string(frame)), as before, and it is back in the ATC.   ◀ the race")
    } else {
      try step.invalidate("The strategy waits until the entry is gone and the CPUs are flushed, and flushes now:")
      step.next("Only then is the frame free. The ATC holds nothing that could reach it.")
    }
    try step.finish(operation)
    try machine.store(b, page, secret)
    step.next("Process B stores \(Hex.string(secret)) in a fresh page: it gets the frame that was freed last.")
    if flushedAt == .start {
      step.next("The device writes \(Hex.string(foreign)) through its ATC, to \(Hex.string(frame)).")
    } else {
      frame = try step.device.fault()
      step.next(
        "The device wants the page again: not present. It sends a page request, the kernel gives A a new\n"
          + "    page, and the device gets \(Hex.string(frame)). It writes \(Hex.string(foreign)) there.")
    }
    try step.device.write(foreign, at: frame)
    let read = try machine.load(b, page)
    let verdict = read == secret ? "B's data is untouched." : "Somebody else's data, in B's memory."
    step.next("B reads its page: \(Hex.string(read)). \(verdict)")
    try report(machine)
    try machine.delete()
  }

  /// What the oracle says of the run.
  private static func report(_ machine: DemoMachine) throws(StormFailure) {
    var request = LabListVerdictsRequest()
    request.machine = machine.machine
    let response: LabListVerdictsResponse = try machine.client.call(.listVerdicts, request)
    guard let verdict = response.verdicts.first else { return say("\n    The oracle: no verdict.") }
    say("\n    The oracle: \(verdict.kind.storyName)")
    var text = StaleAccessText.wrap(verdict.explanation, width: 104, indent: "    ")
    for line in verdict.chain { text += StaleAccessText.wrap(line, width: 104, indent: "      ", bullet: "    · ") }
    print(text, terminator: "")
  }

  static func say(_ text: String) { print(text) }
}

/// The demo's device: it says on its stream what the story needs, and hears what comes.
struct DemoDevice {
  let machine: DemoMachine
  private var tag: UInt32 = 0

  init(_ machine: DemoMachine) { self.machine = machine }

  /// The physical address of the page; 0: not present.
  mutating func translate() throws(StormFailure) -> UInt64 {
    tag += 1
    let tag = tag
    try machine.say {
      $0.translate.tag = tag
      $0.translate.pasid = 1
      $0.translate.address = Hex.string(ExplainDemo.page)
    }
    let answer = try machine.hear("a translation") { event -> LabTranslation? in
      if case .translation(let answer)? = event.kind, answer.tag == tag { answer } else { nil }
    }
    guard answer.write else { return 0 }
    do { return try Hex.parse(answer.physicalAddress) } catch { throw .broken("no address: \(answer.physicalAddress)") }
  }

  /// Asks for the page by a page request, and then for its address.
  mutating func fault() throws(StormFailure) -> UInt64 {
    guard try translate() == 0 else { throw .broken("the page is present, and should not be") }
    try machine.say {
      $0.pageRequest.pasid = 1
      $0.pageRequest.address = Hex.string(ExplainDemo.page)
      $0.pageRequest.write = true
      $0.pageRequest.last = true
    }
    _ = try machine.hear("a page response") { event -> Bool? in
      if case .pageResponse? = event.kind { true } else { nil }
    }
    return try translate()
  }

  mutating func write(_ value: UInt64, at frame: UInt64) throws(StormFailure) {
    tag += 1
    let tag = tag
    try machine.say {
      $0.dma.tag = tag
      $0.dma.write = true
      $0.dma.translated = true
      $0.dma.pasid = 1
      $0.dma.address = Hex.string(frame)
      $0.dma.iova = Hex.string(ExplainDemo.page)
      $0.dma.value = Hex.string(value)
    }
    _ = try machine.hear("the landing of its write") { event -> Bool? in
      if case .dma(let result)? = event.kind, result.tag == tag { true } else { nil }
    }
  }

  /// The range of the next invalidation, which is completed.
  func invalidation() throws(StormFailure) -> LabInvalidation {
    let invalidation = try machine.hear("an invalidation") { event -> LabInvalidation? in
      if case .invalidation(let invalidation)? = event.kind { invalidation } else { nil }
    }
    try machine.say { $0.complete.itagVector = Hex.string(1 << UInt64(invalidation.itag)) }
    return invalidation
  }
}

/// The numbered steps of one telling.
private struct Steps {
  var device: DemoDevice
  let machine: DemoMachine
  var number = 0

  init(device: DemoDevice, machine: DemoMachine) {
    self.device = device
    self.machine = machine
  }

  mutating func next(_ text: String) {
    number += 1
    ExplainDemo.say(" \(number). \(text)")
  }

  mutating func invalidate(_ why: String) throws(StormFailure) {
    let invalidation = try device.invalidation()
    next(
      "\(why)\n    \"drop \(invalidation.address), ITag \(invalidation.itag)\". The device drops it from the ATC and completes."
    )
  }

  /// Runs the operation to its end, whatever else it flushes, and shows its letters with their times.
  mutating func finish(_ operation: LabOperation) throws(StormFailure) {
    while try !machine.isDone(operation) {
      if try machine.advance() { continue }
      _ = try device.invalidation()
    }
    try machine.catchUp()
    let first = machine.steps.first?.time ?? 0
    let letters = machine.steps.compactMap { step in
      Self.names[step.letter].map { "\($0) +\(step.time - first)" }
    }
    next(
      "The kernel goes on to the end. The letters of its steps, in nanoseconds from S:\n    \(letters.joined(separator: " · "))"
    )
  }

  static let names: [LabStepLetter: String] = [
    .start: "S", .entries: "P entry cleared", .cpuFlush: "C CPUs flushed", .flushed: "I device flushed",
    .framesFreed: "F frame freed", .end: "E",
  ]
}
