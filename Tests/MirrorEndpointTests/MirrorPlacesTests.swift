// SPDX-License-Identifier: Apache-2.0
// Goal: a table over several runs finds every page again and no other one. Method: runs counted page by page.
import Testing

@testable import MirrorEndpoint

@Suite struct MirrorPlacesTests {
  private let runs = [
    MirrorRange(first: 4, count: 3), MirrorRange(first: 7, count: 2), MirrorRange(first: 40, count: 5),
  ]

  @Test func `every page of the runs has a place of its own, in order`() {
    let places = MirrorPlaces(runs)
    let pages: [UInt64] = [4, 5, 6, 7, 8, 40, 41, 42, 43, 44]
    #expect(places.count == pages.count)
    #expect((0..<places.count).map(places.page) == pages)
    #expect(pages.map(places.place) == Array(0..<places.count))
  }

  @Test func `the places of a range are those of its pages, also across a gap and beyond both ends`() {
    let places = MirrorPlaces(runs)
    for first in UInt64(0)..<50 {
      for count in UInt64(0)...(50 - first) {
        let range = MirrorRange(first: first, count: count)
        let expected = (0..<places.count).filter { first <= places.page(at: $0) && places.page(at: $0) < range.end }
        #expect(Array(places.clip(range)) == expected, "\(range)")
      }
    }
  }

  @Test func `a fault asks for an aligned block and leaves no run`() {
    let places = MirrorPlaces(runs)
    for place in 0..<places.count {
      let page = places.page(at: place)
      let block = places.block(4, around: page)
      #expect(block.first <= page && page < block.end && block.first / 4 == (block.end - 1) / 4)
      #expect(runs.contains { $0.first <= block.first && block.end <= $0.end })
    }
    #expect(places.block(4, around: 41) == MirrorRange(first: 40, count: 4))
  }

  @Test func `a mirror of two runs is told of all between its first page and its last, and accesses its runs alone`() {
    var configuration = MirrorEndpoint.Configuration(kind: .hmm, seed: 3, runs: runs, accessCount: 200)
    configuration.concurrency = 1
    #expect(configuration.range == MirrorRange(first: 4, count: 41))
    var mirror = MirrorEndpoint(configuration, sequence: 1, openWindows: 0)
    var pages: Set<UInt64> = []
    while !mirror.isIdle {
      mirror.pump()
      guard case .fault(let tag, let range, _)? = mirror.messages.last else { break }
      mirror.messages = []
      pages.formUnion(range.first..<range.end)
      mirror.receive(MirrorFaultAnswer(tag: tag, status: .denied))
    }
    #expect(mirror.isIdle)
    #expect(pages == [4, 5, 6, 7, 8, 40, 41, 42, 43, 44])
  }
}
