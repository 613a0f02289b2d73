// SPDX-License-Identifier: Apache-2.0
//
// Goal: the bug of 2025 and its fix can be had over the network, with the kernel as the switch, and what is wrong with a
// request is said. Method: a device that asks for a kernel address before and after the kernel's tables are freed.
import Foundation
import LabProtocol
import RPCClient
import Testing

@Suite struct KernelMethodsTests {
  static let address: UInt64 = 0xffff_c900_0000_0000

  private func bench(
    _ lab: Lab, _ kernel: LabKernel, _ free: LabKernelTableFree = .unspecified
  ) throws -> Bench {
    let settings = LabMachineSettings.with {
      $0.costs.preset = .zero
      $0.kernel = kernel
      $0.kernelTableFree = free
    }
    return try Bench(try lab.client(), settings: settings)
  }

  private func map(_ bench: Bench) throws -> LabOperation {
    try bench.client.call(
      .kernelMap,
      LabKernelMapRequest.with {
        $0.machine = bench.machine
        $0.address = Hex.string(Self.address)
        $0.byteCount = "0x4000"
      }, LabKernelMapResponse.self
    ).operation
  }

  private func unmap(_ bench: Bench) throws -> LabOperation {
    try bench.client.call(
      .kernelUnmap,
      LabKernelUnmapRequest.with {
        $0.machine = bench.machine
        $0.address = Hex.string(Self.address)
        $0.byteCount = "0x4000"
      }, LabKernelUnmapResponse.self
    ).operation
  }

  /// A device that has walked for a kernel page, and was denied it.
  private func walked(_ bench: Bench) throws -> String {
    let mapped = try map(bench)
    #expect(mapped.done && mapped.status == .success && mapped.kind == .kernelMap)
    let device = try bench.register(rid: 0x100)
    try bench.bind(device)
    let denied = try bench.translate(device, Self.address)
    #expect(denied.status == .success && !denied.read && !denied.write)
    #expect(denied.address == Hex.string(Self.address))
    return device
  }

  @Test(
    "2014, and 6.6 to 6.18: the tables go at once, and the walk that follows is a stale one",
    arguments: [(1, LabKernel.kernel2014), (2, .kernel2014), (1, .now)])
  func bug(loops: Int, kernel: LabKernel) async throws {
    try await Lab.run(loops: loops) { lab in
      let bench = try bench(lab, kernel, kernel == .now ? .sync : .unspecified)
      let device = try walked(bench)
      let gone = try unmap(bench)
      #expect(gone.done && gone.status == .success && gone.kind == .kernelUnmap)
      #expect(try bench.statistics().counters.tablesFreed == 2)
      _ = try bench.translate(device, Self.address)
      let found: LabListVerdictsResponse = try bench.client.call(
        .listVerdicts, LabListVerdictsRequest.with { $0.machine = bench.machine })
      let verdict = try #require(found.verdicts.first)
      #expect(found.verdicts.count == 1 && verdict.kind == .staleWalk)
      #expect(verdict.address == Hex.string(Self.address) && verdict.freed.kind == .kernelUnmap)
      #expect(verdict.explanation.contains("kernel unmap"), "\(verdict.explanation)")
    }
  }

  @Test(
    "now, and a 2014 with the fix: the caller is answered at once, and the tables go when every device has completed",
    arguments: [(1, LabKernel.now), (2, .now), (1, .kernel2014)])
  func fix(loops: Int, kernel: LabKernel) async throws {
    try await Lab.run(loops: loops) { lab in
      let bench = try bench(lab, kernel, kernel == .now ? .unspecified : .async)
      let device = try walked(bench)
      let watcher = try lab.client()
      let stream = try watcher.watch(.watchDevice, bench.watchRequest(device))
      _ = try watcher.next(stream, LabDeviceServiceWatchResponse.self)
      #expect(try unmap(bench).status == .success)
      let invalidation = try watcher.events(stream, 1)[0].invalidation
      #expect(invalidation.address == "0xffff800000000000" && invalidation.sizeLog2 == 47 && invalidation.pasid == 1)
      let before = try bench.statistics()
      #expect(before.counters.framesFreed == 4 && before.counters.tablesFreed == 0)
      #expect(try bench.complete(device, invalidation.itag).ignored.isEmpty)
      let after = try bench.statistics()
      #expect(after.counters.tablesFreed == 2)
      _ = try bench.translate(device, Self.address)
      #expect(try bench.statistics().verdicts.isEmpty)
    }
  }

  @Test("a range outside the kernel's half, mapped already, or not mapped, is refused")
  func refusals() async throws {
    try await Lab.run { lab in
      let bench = try bench(lab, .now)
      _ = try map(bench)
      let before = try bench.stateHash()
      let at = "\"address\":\"\(Hex.string(Self.address))\""
      let cases: [(LabMethod, String, String, [String])] = [
        (
          .kernelMap, "\"address\":\"0x1000\",\"byteCount\":\"0x1000\"", "RANGE_OUTSIDE_KERNEL_HALF",
          ["address", "byteCount"]
        ),
        (
          .kernelUnmap, "\"address\":\"0xfffffffffffff000\",\"byteCount\":\"0x2000\"", "RANGE_OUTSIDE_KERNEL_HALF",
          ["address", "byteCount"]
        ),
        (.kernelMap, "\(at),\"byteCount\":\"0x1000\"", "OVERLAPS_MAPPING", ["address", "byteCount"]),
        (.kernelUnmap, "\(at),\"byteCount\":\"0x5000\"", "NOT_MAPPED", ["address", "byteCount"]),
        (
          .kernelMap, "\"address\":\"0xffff800000000000\",\"byteCount\":\"0x800000000000\"", "LIMIT_REACHED",
          ["byteCount"]
        ),
        (.kernelMap, "\(at),\"byteCount\":\"0x0\"", "EMPTY_RANGE", ["byteCount"]),
        (.kernelMap, "\"address\":\"0xffff800000000001\",\"byteCount\":\"0x1000\"", "MISALIGNED", ["address"]),
        (.kernelUnmap, "\(at)", "MISSING_FIELD", ["byteCount"]),
        (.kernelUnmap, "\(at),\"addressSpace\":\"\(bench.space)\"", "UNKNOWN_FIELD", ["addressSpace"]),
      ]
      for (method, rest, reason, fields) in cases {
        let failure = try bench.client.failure(method, "{\"machine\":\"\(bench.machine)\",\(rest)}")
        #expect(failure.reason == reason && failure.fields == fields, "\(method) \(rest): \(failure)")
        #expect(try bench.stateHash() == before)
      }
    }
  }
}
