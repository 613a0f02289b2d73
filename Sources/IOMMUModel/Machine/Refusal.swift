// SPDX-License-Identifier: Apache-2.0

/// A caller's error: the command was refused and nothing has changed.
public struct Refusal: Error, Equatable, Sendable {
  /// Stable reasons; the service maps each to one RPC code and reason string.
  public enum Reason: UInt8, Sendable, CaseIterable {
    case unknownAddressSpace, unknownDomain, unknownDevice
    case emptyRange, rangeOutsideAddressSpace, misaligned, noRights
    case overlapsArea, noAreaInRange, splitsHugePage
    case overlapsMapping, notMapped
    case pasidOutOfRange, pasidTaken, pasidNotAttached, pasidUnsupported
    case ridTaken, atsDisabled, priDisabled, priEnabled, allocationTooLarge, groupIndexOutOfRange
    case domainInUse, wrongDomainKind, addressSpaceExiting, detachInProgress
    case cpuOutOfRange, retriesLeft
    case outOfFrames, limitReached
    /// The machine's kernel has no such operation.
    case notInThisKernel
    case overlapsSource
    case unknownFile, fileInUse, outsideFile
    /// Kernel memory is mapped in the upper half alone.
    case rangeOutsideKernelHalf
    case notCanonical
    case unknownSubscriber, subscriberLost
    /// No event of that number waits for an answer.
    case eventNotOwed
    /// Only an interval subscriber may refuse, and only a start that may not block.
    case mayNotRefuse
    /// More pages than the event has, or of an event that does not ask for them.
    case youngPagesOutOfRange
    case outsideSubscription
    /// A page is not of the fault that is named, but of a later one, or of none.
    case faultNotAnswered
  }
  /// Every field of the command that the refusal is about.
  public struct Fields: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let addressSpace = Fields(rawValue: 1 << 0)
    public static let domain = Fields(rawValue: 1 << 1)
    public static let device = Fields(rawValue: 1 << 2)
    public static let address = Fields(rawValue: 1 << 3)
    public static let byteCount = Fields(rawValue: 1 << 4)
    public static let rights = Fields(rawValue: 1 << 5)
    public static let pasid = Fields(rawValue: 1 << 6)
    public static let rid = Fields(rawValue: 1 << 7)
    public static let allocation = Fields(rawValue: 1 << 8)
    public static let groupIndex = Fields(rawValue: 1 << 9)
    public static let pageSize = Fields(rawValue: 1 << 10)
    public static let cpu = Fields(rawValue: 1 << 11)
    public static let source = Fields(rawValue: 1 << 12)
    public static let destination = Fields(rawValue: 1 << 13)
    public static let keeper = Fields(rawValue: 1 << 14)
    public static let keeperAddress = Fields(rawValue: 1 << 15)
    public static let file = Fields(rawValue: 1 << 16)
    public static let fileOffset = Fields(rawValue: 1 << 17)
    public static let subscriber = Fields(rawValue: 1 << 24)
    public static let event = Fields(rawValue: 1 << 25)
    public static let fault = Fields(rawValue: 1 << 26)
    public static let physicalAddress = Fields(rawValue: 1 << 27)
    public static let youngPages = Fields(rawValue: 1 << 28)
  }
  public var reason: Reason
  public var fields: Fields
  /// The limit that was reached, or the bound that was passed, where one exists.
  public var figure: UInt64
  public init(_ reason: Reason, _ fields: Fields, figure: UInt64 = 0) {
    self.reason = reason
    self.fields = fields
    self.figure = figure
  }
}
