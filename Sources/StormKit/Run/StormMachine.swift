// SPDX-License-Identifier: Apache-2.0
import LabProtocol

/// One machine at the service with everything that a strategy's run needs. What differs between two strategies is the
/// name in `BindPasid`.
struct StormMachine {
  let machine: String
  private(set) var addressSpaces: [String] = []
  private(set) var devices: [DeviceSpec] = []

  init(_ client: LabClient, plan: StormPlan, hold: UInt64, dilation: Double, record: Bool) throws(StormFailure) {
    var request = LabCreateMachineRequest()
    request.settings.seed = plan.derivedSeed(.machine, 0)
    request.settings.frameCount = plan.frameCount
    request.settings.gatherBatchPages = plan.gatherBatch
    request.settings.holdNanoseconds = hold
    request.settings.kernel = plan.isKernelOfNow ? .now : .kernel2014
    if let atOnce = plan.freesKernelTablesAtOnce { request.settings.kernelTableFree = atOnce ? .sync : .async }
    if plan.zeroCosts { request.settings.costs.preset = .zero }
    request.settings.costs.dilationMilli = UInt64((dilation * 1000).rounded())
    request.settings.pageRequestQueueCapacity = plan.pageRequestQueueCapacity
    request.settings.handlerWorkers = plan.handlerWorkers
    request.settings.invalidationTimeoutNanoseconds = plan.invalidationTimeout
    request.record = record
    let response: LabCreateMachineResponse = try client.call(.createMachine, request)
    machine = response.machine.machine
  }

  /// Address spaces with their areas, devices with their PASIDs.
  mutating func populate(_ client: LabClient, plan: StormPlan, strategy: String) throws(StormFailure) {
    for index in 0..<plan.addressSpaces {
      var request = LabCreateAddressSpaceRequest()
      request.machine = machine
      let response: LabCreateAddressSpaceResponse = try client.call(.createAddressSpace, request)
      addressSpaces.append(response.addressSpace)
      for target in [plan.shared(index), plan.own(index)] {
        try MemoryOperations(client, machine: machine, addressSpace: response.addressSpace, cpu: 0)
          .mmap(target.firstPage, target.pageCount)
      }
    }
    for index in 0..<plan.devices {
      var device = plan.device(index)
      device.device = try register(client, device, rid: UInt32(0x100 + index))
      for space in plan.addressSpaces(ofDevice: index) {
        try bind(client, device.device, pasid: plan.shared(space).pasid, addressSpaces[space], strategy)
      }
      devices.append(device)
    }
  }

  func register(_ client: LabClient, _ device: DeviceSpec, rid: UInt32) throws(StormFailure) -> String {
    var request = LabRegisterDeviceRequest()
    request.machine = machine
    request.rid = rid
    request.priAllocation = device.priAllocation
    request.retryLimit = device.retryLimit
    let response: LabRegisterDeviceResponse = try client.call(.registerDevice, request)
    return response.device
  }

  func bind(
    _ client: LabClient, _ device: String, pasid: UInt32, _ addressSpace: String, _ strategy: String
  ) throws(StormFailure) {
    var request = LabBindPasidRequest()
    request.machine = machine
    request.device = device
    request.pasid = pasid
    request.sva.addressSpace = addressSpace
    request.sva.strategy = strategy
    let _: LabBindPasidResponse = try client.call(.bindPasid, request)
  }

  /// Every process exits; today's OOM reaper has been at every other one before.
  func exit(_ client: LabClient, isKernelOfNow: Bool) throws(StormFailure) {
    for (index, space) in addressSpaces.enumerated() {
      let operations = MemoryOperations(client, machine: machine, addressSpace: space, cpu: 0)
      if isKernelOfNow && index % 2 == 1 { try operations.oomReap(space) }
      try operations.exit(child: space)
    }
  }

  func statistics(_ client: LabClient) throws(StormFailure) -> LabStatistics {
    var request = LabGetStatisticsRequest()
    request.machine = machine
    let response: LabGetStatisticsResponse = try client.call(.getStatistics, request)
    return response.statistics
  }

  /// The oldest verdict among the kinds that say "stale", with its explanation.
  func firstStaleAccess(_ client: LabClient) throws(StormFailure) -> StaleAccess? {
    var request = LabListVerdictsRequest()
    request.machine = machine
    request.kinds = [.staleDma, .staleWalk, .staleCpu]
    request.pageSize = 1
    let response: LabListVerdictsResponse = try client.call(.listVerdicts, request)
    guard let verdict = response.verdicts.first else { return nil }
    return StaleAccess(
      verdict: verdict.kind.storyName, explanation: verdict.explanation, chain: verdict.chain)
  }

  func delete(_ client: LabClient) throws(StormFailure) {
    var request = LabDeleteMachineRequest()
    request.machine = machine
    let _: LabDeleteMachineResponse = try client.call(.deleteMachine, request)
  }
}

extension LabVerdictKind {
  /// The verdict's name in API, logs and docs: `STALE_DMA`.
  var storyName: String {
    let names = ExpectedVerdicts.names
    return rawValue >= 1 && rawValue <= names.count ? names[rawValue - 1] : "UNKNOWN"
  }
}
