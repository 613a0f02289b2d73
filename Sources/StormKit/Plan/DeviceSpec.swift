// SPDX-License-Identifier: Apache-2.0
import DeviceEndpoint

/// One device of a storm, as its process gets it.
public struct DeviceSpec: Codable, Equatable, Sendable {
  public struct Target: Codable, Equatable, Sendable {
    public var pasid: UInt32
    public var firstPage: UInt64
    public var pageCount: UInt64
  }
  public struct Arrivals: Codable, Equatable, Sendable {
    public enum Kind: String, Codable, CaseIterable, Sendable { case closed, constant, poisson, burst }
    public var kind: Kind
    /// Mean ns between two accesses of one device.
    public var interval: UInt64
    public var burstSize: UInt64
  }
  /// Id at the service; empty until the device is registered.
  public var device: String
  public var seed: UInt64
  public var rankSeed: UInt64
  public var accessCount: UInt64
  public var targets: [Target]
  public var pattern: String
  public var writePermille: UInt32
  public var wordsPerPage: UInt32
  public var concurrency: Int
  public var translationCacheEntries: Int
  public var priAllocation: UInt32
  public var groupMemberLimit: Int
  public var retryLimit: UInt32
  public var arrivals: Arrivals
  public var stampPrefix: UInt32
  public var misbehaviour: UInt32
  /// Whether it asks for pages of the kernel, too.
  public var asksForKernelPages = false

  public var workload: AccessWorkload {
    AccessWorkload(
      seed: seed, rankSeed: rankSeed, accessCount: accessCount,
      targets: targets.map { AccessTarget(pasid: $0.pasid, firstPage: $0.firstPage, pageCount: $0.pageCount) },
      pattern: AccessPattern(rawValue: pattern) ?? .random, writePermille: writePermille, wordsPerPage: wordsPerPage)
  }

  public var configuration: EndpointConfiguration {
    let schedule: ArrivalSchedule =
      switch arrivals.kind {
      case .closed: .closedLoop
      case .constant: .constant(interval: arrivals.interval)
      case .poisson: .poisson(interval: arrivals.interval)
      case .burst: .burst(size: arrivals.burstSize, interval: arrivals.interval)
      }
    return EndpointConfiguration(
      workload: workload, concurrency: concurrency, translationCacheEntries: translationCacheEntries,
      priAllocation: priAllocation, groupMemberLimit: groupMemberLimit, retryLimit: retryLimit, arrivals: schedule,
      stampPrefix: stampPrefix, misbehaviour: Misbehaviour(rawValue: misbehaviour))
  }
}
