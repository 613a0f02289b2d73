// SPDX-License-Identifier: Apache-2.0
// Goal: every verdict of a recorded storm is told by a chain that is short, in order and true. Method: storms under unsafe
// strategies are recorded, and verdicts of each kind are traced back through the log. What breaks it: an event that is
// booked for another page, operation or device, a chain without what was missing, a form that cannot be read.
import Foundation
import FoundationXML
import IOMMUModel
import IOMMUSimulation
import Testing

@Suite struct RetraceTests {
  struct Recording {
    var log: [UInt8]
    var verdicts: [Verdict]
  }

  static func record(_ strategy: Strategy, seed: UInt64 = 1) throws -> Recording {
    var plan = StormPlan()
    plan.seed = seed
    plan.strategy = strategy
    plan.accessesPerDevice = 200
    var storm = SimulatedStorm(plan)
    let ended = storm.run()
    try #require(ended)
    return Recording(log: storm.log.take(), verdicts: storm.verdicts)
  }

  /// Made once: a storm is what takes time here.
  static let recordings: [String: Recording] = {
    ["flush-at-start", "empty-table", "invalidate-range-without-atc", "none"].reduce(into: [:]) { all, name in
      all[name] = try? record(Strategy.named(name)!)
    }
  }()

  static func retrace(_ recording: Recording, _ index: Int) throws -> Explanation {
    let verdict = recording.verdicts[index]
    var retrace = try Retrace(
      recording.log, of: verdict, number: UInt64(index) + 1, device: "device \(verdict.device.slot)")
    while true {
      switch try retrace.advance(1000) {
      case .underWay: continue
      case .found(let explanation): return explanation
      case .absent: throw Lost()
      }
    }
  }
  struct Lost: Error {}

  /// Indices of the first verdicts of each kind.
  static func sample(_ verdicts: [Verdict], each count: Int) -> [Int] {
    VerdictKind.allCases.flatMap { kind in
      verdicts.indices.filter { verdicts[$0].kind == kind }.prefix(count)
    }
  }

  @Test(arguments: ["flush-at-start", "empty-table", "invalidate-range-without-atc", "none"])
  func `a chain is short, in order, and ends with the access`(name: String) throws {
    let recording = try #require(Self.recordings[name])
    #expect(!recording.verdicts.isEmpty)
    for index in Self.sample(recording.verdicts, each: 3) {
      let verdict = recording.verdicts[index]
      let told = try Self.retrace(recording, index)
      #expect(told.kind == verdict.kind)
      #expect((2...Explanation.eventLimit).contains(told.events.count), "\(told.text)")
      #expect(told.events.last?.kind == .verdict && told.events.last?.at == verdict.at)
      #expect(told.events.count { $0.kind == .verdict } == 1)
      #expect(zip(told.events, told.events.dropFirst()).allSatisfy { $0.at! <= $1.at! }, "\(told.text)")
      #expect(told.events.allSatisfy { told.lanes.indices.contains($0.from) && told.lanes.indices.contains($0.to) })
      #expect(told.lanes.contains { $0.role == .device && $0.name == "device \(verdict.device.slot)" })
      #expect(told.lanes.contains { $0.detail == "strategy \(name)" } || !told.lanes.contains { $0.role == .iommu })
      if [.staleDMA, .writeAfterProtect, .splitView].contains(verdict.kind) {
        // Who took it away, and what should have told the device.
        #expect(told.lanes.contains { $0.role == .operation }, "\(told.text)")
        #expect(told.events.contains { $0.text.hasPrefix("P: ") }, "\(told.text)")
        #expect(told.events.contains { $0.text.hasPrefix("grants page") }, "\(told.text)")
        #expect(told.events.contains { $0.kind == .missing }, "\(told.text)")
      }
    }
  }

  @Test func `a refill between S and P is told with the flush before it and the entry after it`() throws {
    let recording = try #require(Self.recordings["flush-at-start"])
    let index = try #require(
      recording.verdicts.firstIndex { $0.kind == .staleDMA && $0.freed.operation != .none })
    let told = try Self.retrace(recording, index)
    let texts = told.events.map(\.text)
    let flush = try #require(texts.firstIndex { $0.hasPrefix("S, start hook: flushes") }, "\(told.text)")
    let refill = try #require(
      texts.firstIndex { $0.hasPrefix("walks for") || $0.hasPrefix("grants") && !$0.hasSuffix("IOTLB") }, "\(told.text)"
    )
    let clear = try #require(texts.firstIndex { $0.hasPrefix("P: clears") })
    #expect(flush < refill && refill < clear, "\(told.text)")
    #expect(texts.contains { $0.hasPrefix("completion, ITag") } && texts.contains { $0.hasPrefix("F: frees") })
    #expect(told.sentence.contains("filled its cache again"))
  }

  @Test(arguments: ["flush-at-start", "none"])
  func `what filled the IOTLB is a walk for this page in the granted life, and so before P`(name: String) throws {
    let recording = try #require(Self.recordings[name])
    var walks = 0
    for index in recording.verdicts.indices.filter({ recording.verdicts[$0].kind == .staleDMA }).prefix(12)
    where recording.verdicts[index].grantedVia == .iotlb {
      let told = try Self.retrace(recording, index)
      let texts = told.events.map(\.text)
      guard let walk = texts.firstIndex(where: { $0.hasPrefix("walks for") }) else { continue }
      walks += 1
      #expect(walk < (texts.firstIndex { $0.hasPrefix("P: ") } ?? .max), "\(told.text)")
    }
    #expect(walks > 0)
  }

  @Test func `a device that gave up is told with the empty table and its page requests`() throws {
    for seed in UInt64(1)...20 {
      let recording = try Self.record(.emptyTable, seed: seed)
      guard let index = recording.verdicts.firstIndex(where: { $0.kind == .gaveUp }) else { continue }
      let told = try Self.retrace(recording, index)
      let texts = told.events.map(\.text)
      #expect(texts.contains { $0.hasSuffix("points to an empty table") }, "\(told.text)")
      #expect(texts.contains { $0.hasSuffix("not present") } && texts.contains("page request"), "\(told.text)")
      return
    }
    Issue.record("no seed made a device give up")
  }

  @Test func `a log of another machine, or one that ends before the verdict, is told apart from a story`() throws {
    let recording = try #require(Self.recordings["none"])
    let other = try Self.record(.none, seed: 2)
    var retrace = try Retrace(other.log, of: recording.verdicts[0], number: 1, device: "d")
    #expect(throws: LogError.self) { _ = try retrace.advance(.max) }
    var late = try Retrace(
      recording.log, of: recording.verdicts[0], number: UInt64(recording.verdicts.count) + 1, device: "d")
    guard case .absent = try late.advance(.max) else { return #expect(Bool(false), "the log has no such verdict") }
  }

  // MARK: Forms

  static let explanations = Result { try allExplanations() }

  private static func allExplanations() throws -> [Explanation] {
    var all: [Explanation] = []
    for recording in recordings.values {
      all += try sample(recording.verdicts, each: 1).map { try retrace(recording, $0) }
    }
    for (kind, size) in Cell.rows { all += StepJudge(Cell(kind, size, .linux2014, .flushAtStart)).chains }
    return all
  }

  @Test func `an SVG is well-formed, and no text leaves its width`() throws {
    for explanation in try Self.explanations.get() {
      let reader = Drawing()
      let parser = XMLParser(data: Data(explanation.svg.utf8))
      parser.delegate = reader
      #expect(parser.parse(), "\(explanation.svg)")
      #expect(reader.breaches.isEmpty, "\(reader.breaches)\n\(explanation.svg)")
      #expect(reader.words.contains(explanation.kind.name))
      for lane in explanation.lanes { #expect(reader.words.contains(String(lane.name.split(separator: " ")[0]))) }
    }
  }

  @Test func `Mermaid has a participant for each lane, and no sign that ends a line or begins an entity`() throws {
    for explanation in try Self.explanations.get() {
      let lines = explanation.mermaid.split(separator: "\n")
      #expect(lines.first == "sequenceDiagram")
      #expect(lines.count { $0.contains("participant p") } == explanation.lanes.count)
      for line in lines {
        let rest = line.replacing(/#(35|59|lt|gt);/, with: "")
        #expect(!rest.contains("#") && !rest.contains(";"), "\(line)")
      }
    }
  }

  @Test func `JSON has every lane and every event`() throws {
    for explanation in try Self.explanations.get() {
      let object = try JSONSerialization.jsonObject(with: Data(explanation.json.utf8)) as? [String: Any]
      #expect((object?["lanes"] as? [Any])?.count == explanation.lanes.count)
      #expect((object?["events"] as? [[String: Any]])?.map { $0["text"] as? String } == explanation.events.map(\.text))
      #expect(object?["sentence"] as? String == explanation.sentence)
    }
  }

  @Test func `a judged chain has the lanes of a recorded one and no clock`() throws {
    let judge = StepJudge(Cell(.munmap, .fullBatch, .linux2014, .flushAtStart))
    let chain = try #require(judge.chains.first { $0.kind == .staleDMA })
    #expect(chain.lanes.map(\.role) == [.operation, .iommu, .device])
    #expect(chain.events.allSatisfy { $0.at == nil })
    #expect(chain.events.last?.kind == .verdict)
  }
}

/// What is drawn, by its places.
private final class Drawing: NSObject, XMLParserDelegate {
  var breaches: [String] = []
  var words: Set<String> = []
  private var place: [String: String]?
  private var text = ""

  func parser(
    _ parser: XMLParser, didStartElement element: String, namespaceURI: String?, qualifiedName: String?,
    attributes: [String: String] = [:]
  ) {
    place = element == "text" ? attributes : nil
    text = ""
  }

  func parser(_ parser: XMLParser, foundCharacters string: String) { text += string }

  func parser(_ parser: XMLParser, didEndElement element: String, namespaceURI: String?, qualifiedName: String?) {
    guard element == "text", let place, let x = Double(place["x"] ?? "") else { return }
    words.formUnion(text.split(separator: " ").map(String.init))
    let style = (place["class"] ?? "").split(separator: " ")
    let width = Double(text.count) * (style.contains("title") ? 11 : 7.4)
    let left = style.contains("middle") ? x - width / 2 : style.contains("end") ? x - width : x
    if left < 0 || left + width > 800 { breaches.append(text) }
  }
}
