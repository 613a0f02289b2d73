// SPDX-License-Identifier: Apache-2.0

/// For a browser or a report: a sequence diagram that needs nothing beside itself.
extension Explanation {
  public var svg: String {
    var drawing = SequenceDrawing(self)
    return drawing.svg()
  }
}

/// Draws an explanation from top to bottom. Whole pixels only, so that the same explanation is the same file.
struct SequenceDrawing {
  private static let width = 800
  private static let margin = 16
  /// Where the lanes begin: the times stand to the left.
  private static let lanesLeft = 96
  private static let lineHeight = 16
  /// Width of a character of the monospace font at 12 px, a little more than any of them has.
  private static let characterTenths = 74
  private static let titleCharacters = 96

  private let explanation: Explanation
  private var body: [String] = []
  private var y = 0

  init(_ explanation: Explanation) { self.explanation = explanation }

  mutating func svg() -> String {
    drawTitle()
    drawHeads()
    let lifelines = y
    // Drawn first, so that boxes lie on them; their length is known when everything else is.
    let place = body.count
    y += 14
    for event in explanation.events { draw(event) }
    let ends = explanation.lanes.indices.map { lane in
      "<line x1=\"\(center(lane))\" y1=\"\(lifelines)\" x2=\"\(center(lane))\" y2=\"\(y)\" class=\"life\"/>"
    }
    body.insert(contentsOf: ends, at: place)
    let height = y + Self.margin
    return """
      <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(Self.width) \(height)" width="\(Self.width)" \
      height="\(height)" role="img" aria-label="\(Self.escaped(explanation.kind.name))">
      <style>
      text { font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1f2328 }
      .title { font-size: 18px; font-weight: bold; fill: #b3261e }
      .name { font-weight: bold } .quiet { fill: #59636e } .middle { text-anchor: middle } .end { text-anchor: end }
      .life { stroke: #c4ccd4; stroke-dasharray: 3 4 } .head { fill: #eef2f6; stroke: #8c96a0 }
      .step { fill: #ffffff; stroke: #8c96a0 } .missing { fill: #fff3cd; stroke: #b58100; stroke-dasharray: 5 3 }
      .verdict { fill: #fde2e1; stroke: #b3261e; stroke-width: 2 } .arrow { stroke: #1f5fa8; stroke-width: 1.5 }
      .tip { fill: #1f5fa8 }
      </style>
      <rect width="\(Self.width)" height="\(height)" fill="#ffffff"/>
      \(body.joined(separator: "\n"))
      </svg>

      """
  }

  // MARK: Parts

  private mutating func drawTitle() {
    y = 34
    write(explanation.kind.name, x: Self.margin, "title")
    y += 10
    for line in Explanation.wrap(explanation.sentence, Self.titleCharacters) {
      y += Self.lineHeight
      write(line, x: Self.margin, "")
    }
    y += 20
  }

  private mutating func drawHeads() {
    let names = explanation.lanes.map { Explanation.wrap($0.name, characters(laneWidth - 16)) }
    let details = explanation.lanes.map { Explanation.wrap($0.detail, characters(laneWidth - 16)) }
    let height = 14 + Self.lineHeight * zip(names, details).map { $0.count + $1.count }.max()!
    for lane in explanation.lanes.indices {
      let x = center(lane) - laneWidth / 2 + 4
      body.append(
        "<rect x=\"\(x)\" y=\"\(y)\" width=\"\(laneWidth - 8)\" height=\"\(height)\" rx=\"4\" class=\"head\"/>")
      var line = y + 19
      for (texts, style) in [(names[lane], "name middle"), (details[lane], "quiet middle")] {
        for text in texts {
          body.append(Self.text(text, x: center(lane), y: line, style))
          line += Self.lineHeight
        }
      }
    }
    y += height
  }

  private mutating func draw(_ event: Explanation.Event) {
    let time = Explanation.before(explanation.end, event.at)
    if event.from == event.to { drawBox(event, time) } else { drawArrow(event, time) }
    y += 10
  }

  private mutating func drawBox(_ event: Explanation.Event, _ time: String) {
    let lines = Explanation.wrap(event.text, characters(laneWidth - 20))
    let height = 10 + Self.lineHeight * lines.count
    let x = center(event.from) - laneWidth / 2 + 4
    body.append(
      "<rect x=\"\(x)\" y=\"\(y)\" width=\"\(laneWidth - 8)\" height=\"\(height)\" rx=\"4\" class=\"\(event.kind.name)\"/>"
    )
    writeTime(time, y + height / 2 + 4)
    for (index, line) in lines.enumerated() {
      let style = event.kind == .verdict ? "name middle" : "middle"
      body.append(Self.text(line, x: center(event.from), y: y + 17 + index * Self.lineHeight, style))
    }
    y += height
  }

  private mutating func drawArrow(_ event: Explanation.Event, _ time: String) {
    let from = center(event.from)
    let to = center(event.to)
    let lines = Explanation.wrap(event.text, characters(abs(to - from) - 16))
    for (index, line) in lines.enumerated() {
      let middle = (from + to) / 2
      let lineWidth = line.count * Self.characterTenths / 10
      let top = y + 2 + index * Self.lineHeight
      // White behind the words where another lane's line would run through them.
      body.append(
        "<rect x=\"\(middle - lineWidth / 2 - 3)\" y=\"\(top)\" width=\"\(lineWidth + 6)\" height=\"\(Self.lineHeight)\" fill=\"#ffffff\"/>"
      )
      body.append(Self.text(line, x: middle, y: top + 12, "middle"))
    }
    y += Self.lineHeight * lines.count + 8
    let sign = to > from ? 1 : -1
    body.append("<line x1=\"\(from)\" y1=\"\(y)\" x2=\"\(to - sign * 8)\" y2=\"\(y)\" class=\"arrow\"/>")
    body.append(
      "<polygon points=\"\(to),\(y) \(to - sign * 9),\(y - 5) \(to - sign * 9),\(y + 5)\" class=\"tip\"/>")
    writeTime(time, y + 4)
    y += 6
  }

  // MARK: Measures

  private var laneWidth: Int { (Self.width - Self.margin - Self.lanesLeft) / explanation.lanes.count }
  private func center(_ lane: Int) -> Int { Self.lanesLeft + laneWidth * lane + laneWidth / 2 }
  private func characters(_ pixels: Int) -> Int { pixels * 10 / Self.characterTenths }

  // MARK: Words

  private mutating func write(_ text: String, x: Int, _ style: String) {
    body.append(Self.text(text, x: x, y: y, style))
  }

  private mutating func writeTime(_ time: String, _ y: Int) {
    if !time.isEmpty { body.append(Self.text(time, x: Self.lanesLeft - 8, y: y, "quiet end")) }
  }

  private static func text(_ text: String, x: Int, y: Int, _ style: String) -> String {
    let place = "x=\"\(x)\" y=\"\(y)\""
    return style.isEmpty
      ? "<text \(place)>\(escaped(text))</text>" : "<text \(place) class=\"\(style)\">\(escaped(text))</text>"
  }

  private static func escaped(_ text: String) -> String {
    text.reduce(into: "") { escaped, character in
      switch character {
      case "&": escaped += "&amp;"
      case "<": escaped += "&lt;"
      case ">": escaped += "&gt;"
      case "\"": escaped += "&quot;"
      default: escaped.append(character)
      }
    }
  }
}
