// SPDX-License-Identifier: Apache-2.0
// Goal: the stale window of a flush queue is measured, bounded by its two parameters, and closed when frames are held.
// Method: one storm in virtual time for each point.
import IOMMUModel
import IOMMUSimulation
import Testing

@Suite struct DeferredWindowTests {
  @Test func `a longer time limit opens the window wider, catches more accesses and saves more invalidations`() {
    let points = [100_000, 1_000_000, 10_000_000].map {
      DeferredWindow(entries: 256, timeout: $0, seed: 1)
    }
    for (short, long) in zip(points, points.dropFirst()) {
      #expect(short.windows.mean < long.windows.mean)
      #expect(short.windows.quantile(1000) < long.windows.quantile(1000))
      #expect(short.counters.invalidations > long.counters.invalidations)
    }
    for point in points {
      #expect(point.staleAccesses > 0, "\(point.timeout)")
      // The timer runs from the oldest entry on. Then the flush takes the way to the devices and back, and one that runs
      // already is waited for.
      #expect(point.windows.quantile(1000) < point.timeout + 600_000, "\(point.timeout)")
      #expect(point.savedInvalidations > 0)
    }
  }

  @Test func `fewer entries close the window before the time limit`() {
    let narrow = DeferredWindow(entries: 1, timeout: 10_000_000, seed: 1)
    let wide = DeferredWindow(entries: 64, timeout: 10_000_000, seed: 1)
    #expect(narrow.windows.mean < wide.windows.mean)
    #expect(narrow.counters.queueFlushes > wide.counters.queueFlushes)
  }

  @Test func `held, the window is as wide and no access is stale`() {
    let held = DeferredWindow(entries: 256, timeout: 1_000_000, seed: 1, strategy: .deferredHeld)
    #expect(held.staleAccesses == 0 && held.windows.closed.count > 10 && held.counters.keptFrames > 0)
  }

  @Test func `the same seed gives the same point`() {
    let points = (0..<2).map { _ in DeferredWindow(entries: 16, timeout: 1_000_000, seed: 3) }
    #expect(points[0].windows.closed == points[1].windows.closed && points[0].counters == points[1].counters)
  }
}
