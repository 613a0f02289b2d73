// SPDX-License-Identifier: Apache-2.0

/// Every stable reason that an error or a `RefusedMessage` can carry, stated once. The name is the contract: it may gain
/// siblings, and never changes its meaning.
public enum ErrorReason: UInt8, CaseIterable, Sendable {
  // The text of a message.
  case malformedJSON = 1, unknownField, missingField, badValue, decimalNumber, badHex

  // The service.
  case unknownMachine, unknownOperation, unknownStrategy, badSettings, badRequestID, badPageToken, requestIDInUse
  case tagOutOfRange, ridOutOfRange, leaseOutOfRange, valueOutOfRange, batchTooLarge, notManual, timeInThePast
  case notRecording, logFull, helloExpected, helloRepeated, streamTaken, deviceRemoved, machineDeleted, slowReader
  case tooManyWaitingCalls, shuttingDown

  // The machine.
  case unknownAddressSpace, unknownDomain, unknownDevice, emptyRange, rangeOutsideAddressSpace, misaligned, noRights
  case overlapsArea, noAreaInRange, splitsHugePage, overlapsMapping, notMapped, pasidOutOfRange, pasidTaken
  case pasidNotAttached, pasidUnsupported, ridTaken, atsDisabled, priDisabled, priEnabled, allocationTooLarge
  case groupIndexOutOfRange, domainInUse, wrongDomainKind, addressSpaceExiting, detachInProgress, cpuOutOfRange
  case retriesLeft, outOfFrames, limitReached, notInThisKernel, overlapsSource
  case unknownFile, fileInUse, outsideFile
  case rangeOutsideKernelHalf, notCanonical

  // The service again: numbers keep their meaning.
  case unknownVerdict, logDiverged
  case unknownSubscriber, subscriberLost, eventNotOwed, mayNotRefuse, outsideSubscription, faultNotAnswered
  case youngPagesOutOfRange

  /// The name on the wire.
  public var name: StaticString {
    switch self {
    case .malformedJSON: "MALFORMED_JSON"
    case .unknownField: "UNKNOWN_FIELD"
    case .missingField: "MISSING_FIELD"
    case .badValue: "BAD_VALUE"
    case .decimalNumber: "DECIMAL_NUMBER"
    case .badHex: "BAD_HEX"
    case .unknownMachine: "UNKNOWN_MACHINE"
    case .unknownOperation: "UNKNOWN_OPERATION"
    case .unknownStrategy: "UNKNOWN_STRATEGY"
    case .badSettings: "BAD_SETTINGS"
    case .badRequestID: "BAD_REQUEST_ID"
    case .badPageToken: "BAD_PAGE_TOKEN"
    case .requestIDInUse: "REQUEST_ID_IN_USE"
    case .tagOutOfRange: "TAG_OUT_OF_RANGE"
    case .ridOutOfRange: "RID_OUT_OF_RANGE"
    case .leaseOutOfRange: "LEASE_OUT_OF_RANGE"
    case .valueOutOfRange: "VALUE_OUT_OF_RANGE"
    case .batchTooLarge: "BATCH_TOO_LARGE"
    case .notManual: "NOT_MANUAL"
    case .timeInThePast: "TIME_IN_THE_PAST"
    case .notRecording: "NOT_RECORDING"
    case .logFull: "LOG_FULL"
    case .helloExpected: "HELLO_EXPECTED"
    case .helloRepeated: "HELLO_REPEATED"
    case .streamTaken: "STREAM_TAKEN"
    case .deviceRemoved: "DEVICE_REMOVED"
    case .machineDeleted: "MACHINE_DELETED"
    case .slowReader: "SLOW_READER"
    case .tooManyWaitingCalls: "TOO_MANY_WAITING_CALLS"
    case .shuttingDown: "SHUTTING_DOWN"
    case .unknownAddressSpace: "UNKNOWN_ADDRESS_SPACE"
    case .unknownDomain: "UNKNOWN_DOMAIN"
    case .unknownDevice: "UNKNOWN_DEVICE"
    case .emptyRange: "EMPTY_RANGE"
    case .rangeOutsideAddressSpace: "RANGE_OUTSIDE_ADDRESS_SPACE"
    case .misaligned: "MISALIGNED"
    case .noRights: "NO_RIGHTS"
    case .overlapsArea: "OVERLAPS_AREA"
    case .noAreaInRange: "NO_AREA_IN_RANGE"
    case .splitsHugePage: "SPLITS_HUGE_PAGE"
    case .overlapsMapping: "OVERLAPS_MAPPING"
    case .notMapped: "NOT_MAPPED"
    case .pasidOutOfRange: "PASID_OUT_OF_RANGE"
    case .pasidTaken: "PASID_TAKEN"
    case .pasidNotAttached: "PASID_NOT_ATTACHED"
    case .pasidUnsupported: "PASID_UNSUPPORTED"
    case .ridTaken: "RID_TAKEN"
    case .atsDisabled: "ATS_DISABLED"
    case .priDisabled: "PRI_DISABLED"
    case .priEnabled: "PRI_ENABLED"
    case .allocationTooLarge: "ALLOCATION_TOO_LARGE"
    case .groupIndexOutOfRange: "GROUP_INDEX_OUT_OF_RANGE"
    case .domainInUse: "DOMAIN_IN_USE"
    case .wrongDomainKind: "WRONG_DOMAIN_KIND"
    case .addressSpaceExiting: "ADDRESS_SPACE_EXITING"
    case .detachInProgress: "DETACH_IN_PROGRESS"
    case .cpuOutOfRange: "CPU_OUT_OF_RANGE"
    case .retriesLeft: "RETRIES_LEFT"
    case .outOfFrames: "OUT_OF_FRAMES"
    case .limitReached: "LIMIT_REACHED"
    case .notInThisKernel: "NOT_IN_THIS_KERNEL"
    case .overlapsSource: "OVERLAPS_SOURCE"
    case .unknownFile: "UNKNOWN_FILE"
    case .fileInUse: "FILE_IN_USE"
    case .outsideFile: "OUTSIDE_FILE"
    case .unknownVerdict: "UNKNOWN_VERDICT"
    case .logDiverged: "LOG_DIVERGED"
    case .rangeOutsideKernelHalf: "RANGE_OUTSIDE_KERNEL_HALF"
    case .notCanonical: "NOT_CANONICAL"
    case .unknownSubscriber: "UNKNOWN_SUBSCRIBER"
    case .subscriberLost: "SUBSCRIBER_LOST"
    case .eventNotOwed: "EVENT_NOT_OWED"
    case .mayNotRefuse: "MAY_NOT_REFUSE"
    case .youngPagesOutOfRange: "YOUNG_PAGES_OUT_OF_RANGE"
    case .outsideSubscription: "OUTSIDE_SUBSCRIPTION"
    case .faultNotAnswered: "FAULT_NOT_ANSWERED"
    }
  }

  /// The reason with that name.
  public init?(name: UnsafeBufferPointer<UInt8>) {
    guard let reason = Self.allCases.first(where: { $0.name.withUTF8Buffer { $0.elementsEqual(name) } }) else {
      return nil
    }
    self = reason
  }

  /// The reason with that name.
  public init?(name: String) {
    var name = name
    guard let reason = name.withUTF8({ Self(name: $0) }) else { return nil }
    self = reason
  }
}
