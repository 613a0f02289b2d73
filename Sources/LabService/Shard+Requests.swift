// SPDX-License-Identifier: Apache-2.0
import LabProtocol
import RPCServer
import SwiftProtobuf

// From events to methods.
extension Shard {
  func take(
    _ kind: ForwardBatch.Kind, _ call: CallID, _ method: LabMethod, _ codec: RPCCodec, end: RPCEnd = .none,
    _ bytes: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    switch kind {
    case .request:
      request(call, method, codec, bytes)
    case .message:
      if let index = routes[call] {
        forward(to: index, .message, call, method, codec, bytes)
      } else {
        attach(call, codec, bytes)
      }
    case .halfClosed:
      if let index = routes[call] { forward(to: index, .halfClosed, call, method, codec) } else { leave(call) }
    case .ended:
      if let index = routes.removeValue(forKey: call) {
        forward(to: index, .ended, call, method, codec, end: end)
      } else {
        lost(call, end)
      }
    }
  }

  @inline(__always)
  private func request(_ call: CallID, _ method: LabMethod, _ codec: RPCCodec, _ bytes: UnsafeRawBufferPointer) {
    switch method {
    case .translate: deviceCall(.translate, call, method, codec, bytes)
    case .requestPages: deviceCall(.pageRequests, call, method, codec, bytes)
    case .dma: deviceCall(.dma, call, method, codec, bytes)
    case .completeInvalidations: deviceCall(.complete, call, method, codec, bytes)
    case .giveUp: deviceCall(.giveUp, call, method, codec, bytes)
    default: request(Caller(call: call, method: method, codec: codec), bytes)
    }
  }

  private func request(_ caller: Caller, _ bytes: UnsafeRawBufferPointer) {
    switch caller.method {
    case .createMachine: createMachine(caller, bytes)
    case .listMachines: listMachines(caller, bytes)
    case .getMachine: on(LabGetMachineRequest.self, caller, bytes, getMachine)
    case .deleteMachine: on(LabDeleteMachineRequest.self, caller, bytes, deleteMachine)
    case .advance: on(LabAdvanceRequest.self, caller, bytes, advance)
    case .getStatistics: on(LabGetStatisticsRequest.self, caller, bytes, getStatistics)
    case .listVerdicts: on(LabListVerdictsRequest.self, caller, bytes, listVerdicts)
    case .explainVerdict: on(LabExplainVerdictRequest.self, caller, bytes, explainVerdict)
    case .getLog: on(LabGetLogRequest.self, caller, bytes, getLog)
    case .getStateHash: on(LabGetStateHashRequest.self, caller, bytes, getStateHash)

    case .createAddressSpace: on(LabCreateAddressSpaceRequest.self, caller, bytes, createAddressSpace)
    case .mmap: on(LabMmapRequest.self, caller, bytes, mmap)
    case .munmap: onRange(LabMunmapRequest.self, .munmap, caller, bytes)
    case .mprotect: on(LabMprotectRequest.self, caller, bytes, mprotect)
    case .madviseDontNeed: onRange(LabMadviseDontNeedRequest.self, .dontNeed, caller, bytes)
    case .fork: onSpace(LabForkRequest.self, .fork, caller, bytes)
    case .exit: onSpace(LabExitRequest.self, .exit, caller, bytes)
    case .mremap: onMove(LabMremapRequest.self, .mremap, caller, bytes)
    case .numaHint: onRange(LabNumaHintRequest.self, .numaHint, caller, bytes)
    case .clearSoftDirty: onSpace(LabClearSoftDirtyRequest.self, .clearSoftDirty, caller, bytes)
    case .clearYoung: onRange(LabClearYoungRequest.self, .clearYoung, caller, bytes)
    case .oomReap: onSpace(LabOomReapRequest.self, .oomReap, caller, bytes)
    case .ksmWriteProtect: onRange(LabKsmWriteProtectRequest.self, .ksmWriteProtect, caller, bytes)
    case .ksmReplacePage: on(LabKsmReplacePageRequest.self, caller, bytes, ksmReplacePage)
    case .migratePages: onRange(LabMigratePagesRequest.self, .migratePages, caller, bytes)
    case .uffdioMove: onMove(LabUffdioMoveRequest.self, .uffdioMove, caller, bytes)
    case .madviseFree: onRange(LabMadviseFreeRequest.self, .madviseFree, caller, bytes)
    case .reclaimPages: onRange(LabReclaimPagesRequest.self, .reclaim, caller, bytes)
    case .writebackPages: onRange(LabWritebackPagesRequest.self, .writeback, caller, bytes)
    case .migrateToDevice: onRange(LabMigrateToDeviceRequest.self, .migrateToDevice, caller, bytes)
    case .makeDeviceExclusive: onRange(LabMakeDeviceExclusiveRequest.self, .makeDeviceExclusive, caller, bytes)
    case .madviseCollapse: onRange(LabMadviseCollapseRequest.self, .collapse, caller, bytes)
    case .splitPages: onRange(LabSplitPagesRequest.self, .splitPages, caller, bytes)
    case .retractTables: onRange(LabRetractTablesRequest.self, .retractTables, caller, bytes)
    case .uffdWriteProtect: on(LabUffdWriteProtectRequest.self, caller, bytes, uffdWriteProtect)
    case .createFile: on(LabCreateFileRequest.self, caller, bytes, createFile)
    case .deleteFile: on(LabDeleteFileRequest.self, caller, bytes, deleteFile)
    case .load: on(LabLoadRequest.self, caller, bytes, load)
    case .store: on(LabStoreRequest.self, caller, bytes, store)
    case .touch: on(LabTouchRequest.self, caller, bytes, touch)
    case .getOperation: on(LabGetOperationRequest.self, caller, bytes, getOperation)

    case .kernelMap: onKernelRange(LabKernelMapRequest.self, .kernelMap, caller, bytes)
    case .kernelUnmap: onKernelRange(LabKernelUnmapRequest.self, .kernelUnmap, caller, bytes)

    case .createDomain: on(LabCreateDomainRequest.self, caller, bytes, createDomain)
    case .destroyDomain: on(LabDestroyDomainRequest.self, caller, bytes, destroyDomain)
    case .map: on(LabMapRequest.self, caller, bytes, map)
    case .unmap: on(LabUnmapRequest.self, caller, bytes, unmap)

    case .registerDevice: on(LabRegisterDeviceRequest.self, caller, bytes, registerDevice)
    case .removeDevice: on(LabRemoveDeviceRequest.self, caller, bytes, removeDevice)
    case .bindPasid: on(LabBindPasidRequest.self, caller, bytes, bindPasid)
    case .unbindPasid: on(LabUnbindPasidRequest.self, caller, bytes, unbindPasid)
    case .enablePri: on(LabEnablePriRequest.self, caller, bytes, enablePri)
    case .watchDevice: on(LabDeviceServiceWatchRequest.self, caller, bytes, watchDevice)
    case .subscribe: on(LabSubscribeRequest.self, caller, bytes, subscribe)
    case .unsubscribe: on(LabUnsubscribeRequest.self, caller, bytes, unsubscribe)
    case .watchSubscriber: on(LabNotifierServiceWatchRequest.self, caller, bytes, watchSubscriber)
    case .answerEvents: on(LabAnswerRequest.self, caller, bytes, answerEvents)
    case .rangeFault: on(LabRangeFaultRequest.self, caller, bytes, rangeFault)
    case .takePages: on(LabTakePagesRequest.self, caller, bytes, takePages)
    case .installPages: on(LabInstallRequest.self, caller, bytes, installPages)
    case .mirrorAccess: on(LabAccessRequest.self, caller, bytes, mirrorAccess)
    case .watchTrace: on(LabTraceServiceWatchRequest.self, caller, bytes, watchTrace)

    // These are read by the hand-written codec, and a bidirectional call has no whole request.
    case .translate, .requestPages, .dma, .completeInvalidations, .giveUp, .attach: break
    }
  }

  /// Reads a message in the caller's codec.
  func decode<M: Message>(_: M.Type, _ codec: RPCCodec, _ bytes: UnsafeRawBufferPointer) throws(CallError) -> M {
    do throws(WireError) {
      return codec == .json ? try LabCodec.decode(M.self, json: bytes) : try LabCodec.decode(M.self, binary: bytes)
    } catch {
      throw .wire(error)
    }
  }

  /// Checks a `request_id`.
  func checked(requestID: String) throws(CallError) -> String {
    guard DeviceCall.isValid(requestID: requestID.utf8) else {
      throw .wire(WireError(.badRequestID, field: "requestId"))
    }
    return requestID
  }

  /// Runs a method on the machine that its request names, here or on the machine's loop. `body` answers nil when the
  /// answer comes later.
  func on<R: MachineRequest>(
    _: R.Type, _ caller: Caller, _ bytes: UnsafeRawBufferPointer,
    _ body: (MachineHost, R, Caller) throws(CallError) -> (any Message)?
  ) {
    var caller = caller
    do throws(CallError) {
      let request = try decode(R.self, caller.codec, bytes)
      guard !request.machine.isEmpty else { throw .wire(WireError(.missing, field: "machine")) }
      let requestID = try checked(requestID: request.repeatID)
      let machine = ObjectID.value(.machine, request.machine)
      let location = locate(machine)
      if case .elsewhere(let index) = location {
        forward(to: index, .request, caller.call, caller.method, caller.codec, bytes)
        if caller.method.descriptor.kind == .serverStream { routes[caller.call] = index }
        return
      }
      caller.machine = machine
      caller.requestID = requestID
      if !requestID.isEmpty { caller.digest = LabCodec.binary(request).hashValue }
      if isRepeat(caller) { return }
      guard case .here(let host) = location else { throw .notFound(.machine) }
      touch(host)
      if let answer = try body(host, request, caller) { self.answer(caller, answer) }
    } catch {
      fail(caller, error)
      if caller.call.loopIndex != loop.index, caller.method.descriptor.kind == .serverStream {
        dropRoute(caller.call)
      }
    }
  }
}

/// A request that names a machine. `repeatID`: its `request_id`; empty where the method changes nothing.
protocol MachineRequest: Message {
  var machine: String { get }
  var repeatID: String { get }
}

protocol MutationRequest: MachineRequest {
  var requestID: String { get }
}

extension MachineRequest {
  var repeatID: String { "" }
}
extension MutationRequest {
  var repeatID: String { requestID }
}

extension LabGetMachineRequest: MachineRequest {}
extension LabDeleteMachineRequest: MutationRequest {}
extension LabAdvanceRequest: MutationRequest {}
extension LabGetStatisticsRequest: MachineRequest {}
extension LabListVerdictsRequest: MachineRequest {}
extension LabExplainVerdictRequest: MachineRequest {}
extension LabGetLogRequest: MachineRequest {}
extension LabGetStateHashRequest: MachineRequest {}
extension LabCreateAddressSpaceRequest: MutationRequest {}
extension LabMmapRequest: MutationRequest {}
extension LabMunmapRequest: MutationRequest {}
extension LabMprotectRequest: MutationRequest {}
extension LabMadviseDontNeedRequest: MutationRequest {}
extension LabForkRequest: MutationRequest {}
extension LabExitRequest: MutationRequest {}
extension LabMremapRequest: MutationRequest {}
extension LabNumaHintRequest: MutationRequest {}
extension LabClearSoftDirtyRequest: MutationRequest {}
extension LabClearYoungRequest: MutationRequest {}
extension LabOomReapRequest: MutationRequest {}
extension LabKsmWriteProtectRequest: MutationRequest {}
extension LabKsmReplacePageRequest: MutationRequest {}
extension LabMigratePagesRequest: MutationRequest {}
extension LabUffdioMoveRequest: MutationRequest {}
extension LabMadviseFreeRequest: MutationRequest {}
extension LabReclaimPagesRequest: MutationRequest {}
extension LabWritebackPagesRequest: MutationRequest {}
extension LabMigrateToDeviceRequest: MutationRequest {}
extension LabMakeDeviceExclusiveRequest: MutationRequest {}
extension LabMadviseCollapseRequest: MutationRequest {}
extension LabSplitPagesRequest: MutationRequest {}
extension LabRetractTablesRequest: MutationRequest {}
extension LabUffdWriteProtectRequest: MutationRequest {}
extension LabCreateFileRequest: MutationRequest {}
extension LabDeleteFileRequest: MutationRequest {}
extension LabKernelMapRequest: MutationRequest {}
extension LabKernelUnmapRequest: MutationRequest {}
extension LabLoadRequest: MutationRequest {}
extension LabStoreRequest: MutationRequest {}
extension LabTouchRequest: MutationRequest {}
extension LabGetOperationRequest: MachineRequest {}
extension LabCreateDomainRequest: MutationRequest {}
extension LabDestroyDomainRequest: MutationRequest {}
extension LabMapRequest: MutationRequest {}
extension LabUnmapRequest: MutationRequest {}
extension LabRegisterDeviceRequest: MutationRequest {}
extension LabRemoveDeviceRequest: MutationRequest {}
extension LabBindPasidRequest: MutationRequest {}
extension LabUnbindPasidRequest: MutationRequest {}
extension LabEnablePriRequest: MutationRequest {}
extension LabDeviceServiceWatchRequest: MachineRequest {}
extension LabSubscribeRequest: MutationRequest {}
extension LabUnsubscribeRequest: MutationRequest {}
extension LabNotifierServiceWatchRequest: MachineRequest {}
extension LabAnswerRequest: MutationRequest {}
extension LabRangeFaultRequest: MutationRequest {}
extension LabTakePagesRequest: MutationRequest {}
extension LabInstallRequest: MutationRequest {}
extension LabAccessRequest: MutationRequest {}
extension LabTraceServiceWatchRequest: MachineRequest {}
