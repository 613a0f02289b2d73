// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer

extension ErrorReason {
  /// The RPC code of every reason, in one place.
  var code: RPCCode {
    switch self {
    case .malformedJSON, .unknownField, .missingField, .badValue, .decimalNumber, .badHex, .badSettings, .badRequestID,
      .badPageToken, .unknownStrategy, .tagOutOfRange, .ridOutOfRange, .leaseOutOfRange, .valueOutOfRange,
      .batchTooLarge, .youngPagesOutOfRange, .overlapsSource, .notCanonical,
      .helloExpected, .helloRepeated, .emptyRange, .misaligned, .noRights, .pasidOutOfRange, .groupIndexOutOfRange,
      .cpuOutOfRange, .allocationTooLarge, .timeInThePast:
      .invalidArgument
    case .rangeOutsideAddressSpace, .rangeOutsideKernelHalf, .outsideFile: .outOfRange
    case .unknownMachine, .unknownOperation, .unknownAddressSpace, .unknownDomain, .unknownDevice, .unknownFile,
      .machineDeleted, .unknownVerdict, .unknownSubscriber:
      .notFound
    case .requestIDInUse, .overlapsArea, .overlapsMapping, .pasidTaken, .ridTaken, .priEnabled, .streamTaken:
      .alreadyExists
    case .notManual, .notRecording, .noAreaInRange, .splitsHugePage, .notMapped, .pasidNotAttached, .pasidUnsupported,
      .atsDisabled, .priDisabled, .domainInUse, .wrongDomainKind, .addressSpaceExiting, .detachInProgress, .retriesLeft,
      .notInThisKernel, .fileInUse, .eventNotOwed, .mayNotRefuse, .outsideSubscription,
      .faultNotAnswered:
      .failedPrecondition
    case .limitReached, .outOfFrames, .tooManyWaitingCalls, .slowReader: .resourceExhausted
    case .deviceRemoved, .subscriberLost: .aborted
    case .logFull, .logDiverged: .dataLoss
    case .shuttingDown: .unavailable
    }
  }
}

extension Refusal {
  /// The stable reason and the text of every refusal of the machine, in one place. The text says what, why and what to do.
  private var told: (ErrorReason, String) {
    switch reason {
    case .unknownAddressSpace: (.unknownAddressSpace, "the machine has no address space of this id; it may have exited")
    case .unknownDomain: (.unknownDomain, "the machine has no domain of this id; it may have been destroyed")
    case .unknownDevice:
      (.unknownDevice, "the machine has no device of this id; it may have been removed: register it anew")
    case .emptyRange: (.emptyRange, "the range holds no page; give at least one page of 0x1000 bytes")
    case .rangeOutsideAddressSpace:
      (.rangeOutsideAddressSpace, "the range leaves the address space, which ends at \(Hex.string(figure))")
    case .misaligned:
      (.misaligned, figure == 0 ? "the number is not aligned" : "the number is not a multiple of \(Hex.string(figure))")
    case .noRights: (.noRights, "no right is given that makes sense here; set read, or read and write")
    case .overlapsArea: (.overlapsArea, "an area is already there; unmap it first or choose another address")
    case .noAreaInRange: (.noAreaInRange, "no area, or none with these rights, covers the whole range; mmap it first")
    case .splitsHugePage:
      (.splitsHugePage, "the range ends inside a huge page; use multiples of \(Hex.string(figure))")
    case .overlapsMapping: (.overlapsMapping, "a page is already mapped at \(Hex.string(figure)); unmap it first")
    case .notMapped:
      (.notMapped, "no page is mapped at \(Hex.string(figure)); unmap is strict, give mapped ranges only")
    case .pasidOutOfRange: (.pasidOutOfRange, "a PASID has 20 bits; the greatest is \(figure)")
    case .pasidTaken: (.pasidTaken, "the PASID is attached already; unbind it first")
    case .pasidNotAttached: (.pasidNotAttached, "nothing is attached to the PASID; bind it first")
    case .pasidUnsupported: (.pasidUnsupported, "the device has no PASID capability; only PASID 0 can be attached")
    case .ridTaken: (.ridTaken, "another device has this requester id; choose another one")
    case .atsDisabled: (.atsDisabled, "the device has no ATS capability; register it with ats")
    case .priDisabled: (.priDisabled, "the device has no PRI capability; register it with pri")
    case .priEnabled: (.priEnabled, "PRI is on already")
    case .allocationTooLarge:
      (.allocationTooLarge, "the allocation must be 1 to \(figure), the entries of the page-request queue")
    case .groupIndexOutOfRange:
      (.groupIndexOutOfRange, "a page-request group index has 9 bits; the greatest is \(figure)")
    case .domainInUse: (.domainInUse, "a device is attached to the domain, or an unmap is running; end that first")
    case .wrongDomainKind: (.wrongDomainKind, "only a PAGING domain can be mapped and unmapped")
    case .addressSpaceExiting: (.addressSpaceExiting, "the address space is exiting and takes no further operation")
    case .detachInProgress: (.detachInProgress, "the PASID is being detached already")
    case .cpuOutOfRange: (.cpuOutOfRange, "the machine has \(figure) CPUs, numbered from 0")
    case .retriesLeft:
      (.retriesLeft, "a device gives up after \(figure) page requests for a page; this one has sent fewer")
    case .outOfFrames: (.outOfFrames, "physical memory has too few free frames; give the machine a larger frame_count")
    case .notInThisKernel:
      (.notInThisKernel, "the machine's kernel has no such operation; create the machine with kernel KERNEL_NOW")
    case .overlapsSource: (.overlapsSource, "the range and its destination overlap; choose another destination")
    case .unknownFile: (.unknownFile, "the machine has no file of this id; it may have been deleted")
    case .fileInUse:
      (.fileInUse, "an area maps the file, or a page of it is being written; unmap it, or try again when that is done")
    case .outsideFile: (.outsideFile, "the area leaves the file, which has \(Hex.string(figure)) bytes")
    case .rangeOutsideKernelHalf:
      (.rangeOutsideKernelHalf, "the range leaves the kernel's half, which begins at \(Hex.string(figure))")
    case .notCanonical: (.notCanonical, "the address is not canonical; bits 63 to 47 must be equal")
    case .unknownSubscriber:
      (.unknownSubscriber, "the machine has no subscriber of this id; it may have been unsubscribed: subscribe anew")
    case .subscriberLost:
      (
        .subscriberLost,
        "the subscriber did not answer an event in time and is fenced; unsubscribe it and subscribe anew"
      )
    case .eventNotOwed:
      (.eventNotOwed, "no event of this number waits for an answer; the last one of the subscriber is \(figure)")
    case .mayNotRefuse:
      (.mayNotRefuse, "only an interval subscriber may refuse, and only an event whose may_block is false")
    case .youngPagesOutOfRange:
      (.youngPagesOutOfRange, "the event asks for at most \(figure) young pages; only YOUNG asks for any")
    case .outsideSubscription:
      (.outsideSubscription, "the range leaves the subscription; an interval subscriber mirrors its own range alone")
    case .faultNotAnswered:
      (
        .faultNotAnswered,
        "the page at \(Hex.string(figure)) is not of this fault, but of a later one or of none; install what the last one answered"
      )
    case .limitReached: (.limitReached, "the limit of \(figure) is reached; free some, or raise the machine's limits")
    }
  }

  var errorReason: ErrorReason { told.0 }
  var text: String { told.1 }

  /// The fields, as the contract's JSON names them.
  var fieldNames: [String] {
    let names: [(Fields, String)] = [
      (.addressSpace, "addressSpace"), (.domain, "domain"), (.device, "device"), (.address, "address"),
      (.byteCount, "byteCount"), (.rights, "read"), (.rights, "write"), (.pasid, "pasid"), (.rid, "rid"),
      (.allocation, "allocation"), (.groupIndex, "groupIndex"), (.pageSize, "pageSize"), (.cpu, "cpu"),
      (.source, "source"), (.destination, "destination"), (.keeper, "keeper"),
      (.keeperAddress, "keeperAddress"), (.file, "file"), (.fileOffset, "fileOffset"),
      (.subscriber, "subscriber"), (.event, "number"), (.fault, "fault"), (.physicalAddress, "physicalAddress"),
      (.youngPages, "youngPages"),
    ]
    return names.filter { fields.contains($0.0) }.map(\.1)
  }
}
