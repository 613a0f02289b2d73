// SPDX-License-Identifier: Apache-2.0
// Goal and method: as RegressionTests; here what the oracle said wrongly, or did not say.
@testable import IOMMUModel
import Testing

extension RegressionTests {
  @Test func `a device that attached where another had been removed got what the IOTLB kept of it: a false STALE_DMA`()
    throws
  {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.grant(device, 0x100)
    try bench.apply(.removeDevice(device))
    // Nobody shares the table now, so this munmap has nobody to flush.
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 16)))
    try bench.finish()
    let anew = try bench.device()
    try bench.apply(.attach(anew, 5, .addressSpace(space, .invalidateRange)))
    #expect(try bench.translate(anew, 5, 0x100).rights == [])
    try bench.issue(anew, 0x100)
    bench.settle()
    #expect(bench.answers(anew).map(\.status) == [.refused])
    #expect(bench.kinds == [])
  }

  @Test func `a device that was never told of its detach was said to have forged what it had been given`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRangeWithoutATC)
    let answer = try bench.grant(device, 0x100)
    try bench.start(.detach(device, 5))
    try bench.finish([device])
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress)
    #expect(bench.kinds == [.staleDMA])
    #expect(Explanation(bench.verdicts[0], device: "it").sentence.contains("nothing that its PASID is attached to"))
  }

  @Test func `a device that used what its completion of a detach had retired was said to have forged it`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange)
    let answer = try bench.grant(device, 0x100)
    try bench.start(.detach(device, 5))
    try bench.finish([device])
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress)
    #expect(bench.kinds == [.usedAfterCompletion])
  }

  @Test func `a grant from before a detach does not count for what the PASID is attached to next`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRangeWithoutATC)
    let answer = try bench.grant(device, 0x100)
    try bench.start(.detach(device, 5))
    try bench.finish([device])
    let other = try bench.addressSpace()
    try bench.map(other, 0x100, 16)
    try bench.store(other, 0x100, 1)
    try bench.apply(.attach(device, 5, .addressSpace(other, .invalidateRangeWithoutATC)))
    _ = try bench.dma(device, 5, 0x100, at: answer.physicalAddress)
    #expect(bench.kinds == [.staleDMA])
    let fresh = try bench.translate(device, 5, 0x100)
    _ = try bench.dma(device, 5, 0x100, at: fresh.physicalAddress, write: 2)
    #expect(bench.kinds == [.staleDMA])
    #expect(try bench.load(other, 0x100) == 2 && bench.load(space, 0x100) == 0)
  }

  @Test func `a translated address beyond the memory, and that of frame 0, had no verdict`() throws {
    var (bench, _, device) = try Bench.shared(.invalidateRange)
    for address in [UInt64(256) << 12, 0, ~7] {
      #expect(try bench.dma(device, 5, 0x100, at: address).status == .unsupportedRequest)
    }
    #expect(bench.kinds == [.forgedTranslation, .forgedTranslation, .forgedTranslation])
    #expect(bench.verdicts.map(\.frame) == [256, 0, .max])
  }

  @Test func `members whose address space went while they waited for its lock were counted nowhere`() throws {
    var (bench, space, device) = try Bench.shared(.invalidateRange)
    try bench.grant(device, 0x100)
    // The munmap holds the lock until the device completes; the exit waits for it, and the groups behind the exit.
    try bench.start(.munmap(space, PageRange(first: 0x100, count: 1)))
    bench.settle()
    try bench.start(.exit(space))
    bench.settle()
    try bench.send(device, 0x101, index: 1, last: false)
    try bench.send(device, 0x102, index: 1)
    try bench.send(device, 0x103, index: 2)
    bench.settle()
    try bench.finish([device])
    #expect(bench.responses(device).suffix(2).map(\.code) == [.invalidRequest, .invalidRequest])
    let counters = bench.counters
    #expect(
      counters.pageRequests == counters.neededFaults + counters.duplicateFaults + counters.needlessFaults
        + counters.refusedFaults)
  }
}
