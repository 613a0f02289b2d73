// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol

// From the model's values to the contract's messages.

extension LabOperationKind {
  init(_ kind: OperationKind) {
    self =
      switch kind {
      case .mmap: .mmap
      case .munmap: .munmap
      case .mprotect: .mprotect
      case .dontNeed: .madviseDontNeed
      case .fork: .fork
      case .exit: .exit
      case .cpuAccess: .cpuAccess
      case .unmap: .unmap
      case .detach: .detach
      case .pageRequestGroup: .pageRequestGroup
      case .mremap: .mremap
      case .numaHint: .numaHint
      case .clearSoftDirty: .clearSoftDirty
      case .clearYoung: .clearYoung
      case .oomReap: .oomReap
      case .ksmWriteProtect: .ksmWriteProtect
      case .ksmReplacePage: .ksmReplacePage
      case .migratePages: .migratePages
      case .uffdioMove: .uffdioMove
      case .madviseFree: .madviseFree
      case .reclaim: .reclaimPages
      case .writeback: .writebackPages
      case .migrateToDevice: .migrateToDevice
      case .makeDeviceExclusive: .makeDeviceExclusive
      case .collapse: .madviseCollapse
      case .splitPages: .splitPages
      case .retractTables: .retractTables
      case .uffdWriteProtect: .uffdWriteProtect
      case .flushQueue: .flushQueue
      case .kernelMap: .kernelMap
      case .kernelUnmap: .kernelUnmap
      case .rangeFault: .rangeFault
      }
  }
}

extension OperationKind {
  /// nil: none that this build knows.
  init?(_ kind: LabOperationKind) {
    guard kind != .unspecified, let known = Self.allCases.first(where: { LabOperationKind($0) == kind }) else {
      return nil
    }
    self = known
  }
}

extension OperationID {
  var text: String { ObjectID.text(.operation, UInt128(rawValue)) }
}

extension LabOperation {
  /// An operation that has returned.
  init(_ outcome: OperationOutcome, isLoad: Bool) {
    self.init()
    operation = outcome.operation.text
    kind = LabOperationKind(outcome.kind)
    done = true
    status =
      switch outcome.status {
      case .success: .success
      case .accessDenied: .accessDenied
      case .outOfMemory: .outOfMemory
      case .areasChanged: .areasChanged
      case .objectGone: .objectGone
      case .busy: .busy
      case .notPermitted: .notPermitted
      }
    if outcome.status == .success {
      if isLoad { value = Hex.string(outcome.value) }
      if outcome.kind.countsPages { pageCount = outcome.value }
      if outcome.kind == .fork { addressSpace = ObjectID.text(.addressSpace, UInt128(outcome.value)) }
    }
    nanoseconds = outcome.nanoseconds
  }

  /// An operation that is running.
  init(running id: OperationID) {
    self.init()
    operation = id.text
  }
}

extension LabVerdictKind {
  init(_ kind: VerdictKind) {
    self =
      switch kind {
      case .staleDMA: .staleDma
      case .staleWalk: .staleWalk
      case .staleCPU: .staleCpu
      case .writeAfterProtect: .writeAfterProtect
      case .splitView: .splitView
      case .usedAfterCompletion: .usedAfterCompletion
      case .forgedTranslation: .forgedTranslation
      case .illegalTranslation: .illegalTranslation
      case .gaveUp: .gaveUp
      case .livelock: .livelock
      case .prgUnanswered: .prgUnanswered
      case .prgTwice: .prgTwice
      case .prgWrongPASID: .prgWrongPasid
      case .mirrorAfterStart: .mirrorAfterStart
      case .mirrorWithoutRetry: .mirrorWithoutRetry
      case .mirrorAfterRelease: .mirrorAfterRelease
      }
  }
}

extension LabOperationMark {
  init?(_ mark: OperationMark) {
    guard mark.operation != .none else { return nil }
    self.init()
    operation = mark.operation.text
    kind = LabOperationKind(mark.kind)
    atNanoseconds = mark.at
    startedAtNanoseconds = mark.startedAt
    flushedAtNanoseconds = mark.flushedAt
  }
}

extension LabVerdict {
  init(_ verdict: Verdict, seq: UInt64) {
    self.init()
    self.seq = seq
    kind = LabVerdictKind(verdict.kind)
    via =
      switch verdict.via {
      case .atc: .atc
      case .iotlb: .iotlb
      case .walkCache: .walkCache
      case .pasidCache: .pasidCache
      case .walk: .walk
      case .cpuTLB: .cpuTlb
      case .mirror: .mirror
      }
    write = verdict.write
    if verdict.device.rawValue != 0 { device = ObjectID.text(.device, UInt128(verdict.device.rawValue)) }
    if verdict.subscriber.rawValue != 0 { subscriber = verdict.subscriber.text }
    pasid = verdict.pasid
    address = Hex.string(verdict.page << 12)
    physicalAddress = Hex.string(UInt64(verdict.frame) << 12)
    grantGeneration = verdict.grantGeneration
    frameGeneration = verdict.frameGeneration
    grantedAtNanoseconds = verdict.grantedAt
    atNanoseconds = verdict.at
    if let mark = LabOperationMark(verdict.dropped) { dropped = mark }
    if let mark = LabOperationMark(verdict.freed) { freed = mark }
    requests = verdict.requests
    let text = Explanation(verdict, device: verdict.accessor(device: \.text, subscriber: \.text))
    explanation = text.sentence
    chain = text.chain
  }
}

extension LabCounters {
  init(_ counters: Counters) {
    self.init()
    translations = counters.translations
    iotlbHits = counters.iotlbHits
    walks = counters.walks
    pageRequests = counters.pageRequests
    groupsAnswered = counters.groupsAnswered
    membersServed = counters.membersServed
    neededFaults = counters.neededFaults
    needlessFaults = counters.needlessFaults
    duplicateFaults = counters.duplicateFaults
    refusedFaults = counters.refusedFaults
    faultInterrupts = counters.faultInterrupts
    queueOverflows = counters.queueOverflows
    autoAnswers = counters.autoAnswers
    dmaChecked = counters.dmaChecked
    invalidations = counters.invalidations
    completions = counters.completions
    liveHits = counters.liveHits
    timeouts = counters.timeouts
    fenced = counters.fenced
    unexpectedCompletions = counters.unexpectedCompletions
    fullBatches = counters.fullBatches
    framesFreed = counters.framesFreed
    tablesFreed = counters.tablesFreed
    tablesShared = counters.tablesShared
    tablesUnshared = counters.tablesUnshared
    corruptedFrames = counters.corruptedFrames
    unexplainedCorruptions = counters.unexplainedCorruptions
    deferredFlushes = counters.deferredFlushes
    queueFlushes = counters.queueFlushes
    keptFrames = counters.keptFrames
    notifierEvents = counters.notifierEvents
    notifierAnswers = counters.notifierAnswers
    lostSubscribers = counters.lostSubscribers
    rangeFaults = counters.rangeFaults
    mirrorAccesses = counters.mirrorAccesses
  }
}
