// SPDX-License-Identifier: Apache-2.0

/// Every method of the contract, stated once. The service dispatches on it and clients take their paths from it; a test
/// compares it with the `.proto` files.
public enum LabMethod: UInt8, CaseIterable, Sendable {
  // MachineService.
  case createMachine
  case getMachine
  case listMachines
  case deleteMachine
  case advance
  case getStatistics
  case listVerdicts
  case explainVerdict
  case getLog
  case getStateHash
  // AddressSpaceService.
  case createAddressSpace
  case mmap
  case munmap
  case mprotect
  case madviseDontNeed
  case fork
  case exit
  case mremap
  case numaHint
  case clearSoftDirty
  case clearYoung
  case oomReap
  case ksmWriteProtect
  case ksmReplacePage
  case migratePages
  case uffdioMove
  case madviseFree
  case reclaimPages
  case writebackPages
  case migrateToDevice
  case makeDeviceExclusive
  case madviseCollapse
  case splitPages
  case retractTables
  case uffdWriteProtect
  case createFile
  case deleteFile
  case load
  case store
  case touch
  case getOperation
  // KernelService.
  case kernelMap
  case kernelUnmap
  // DomainService.
  case createDomain
  case destroyDomain
  case map
  case unmap
  // DeviceService.
  case registerDevice
  case removeDevice
  case bindPasid
  case unbindPasid
  case enablePri
  case translate
  case requestPages
  case dma
  case completeInvalidations
  case giveUp
  case watchDevice
  case attach
  // NotifierService.
  case subscribe
  case unsubscribe
  case watchSubscriber
  case answerEvents
  case rangeFault
  case takePages
  case installPages
  case mirrorAccess
  // TraceService.
  case watchTrace

  /// How many messages go each way.
  public enum Kind: UInt8, Sendable {
    /// One request, one response.
    case unary
    /// One request, any number of responses.
    case serverStream
    /// Any number both ways, at the same time.
    case bidirectional
  }

  /// What the contract says of a method.
  public struct Descriptor: Sendable {
    public var service: StaticString
    public var name: StaticString
    public var kind: Kind
    /// `idempotency_level = NO_SIDE_EFFECTS`: callable by GET, and without `request_id`.
    public var sideEffectFree: Bool
    init(_ service: StaticString, _ name: StaticString, _ kind: Kind, sideEffectFree: Bool = false) {
      self.service = service
      self.name = name
      self.kind = kind
      self.sideEffectFree = sideEffectFree
    }
  }

  /// The package of every service.
  public static let package = "iommulab.v1"

  /// The path of the method's HTTP requests: `/iommulab.v1.MachineService/CreateMachine`.
  public var path: String { "/\(Self.package).\(descriptor.service)/\(descriptor.name)" }

  public var descriptor: Descriptor {
    switch self {
    case .createMachine: .init("MachineService", "CreateMachine", .unary)
    case .getMachine: .init("MachineService", "GetMachine", .unary, sideEffectFree: true)
    case .listMachines: .init("MachineService", "ListMachines", .unary, sideEffectFree: true)
    case .deleteMachine: .init("MachineService", "DeleteMachine", .unary)
    case .advance: .init("MachineService", "Advance", .unary)
    case .getStatistics: .init("MachineService", "GetStatistics", .unary, sideEffectFree: true)
    case .listVerdicts: .init("MachineService", "ListVerdicts", .unary, sideEffectFree: true)
    case .explainVerdict: .init("MachineService", "ExplainVerdict", .unary, sideEffectFree: true)
    case .getLog: .init("MachineService", "GetLog", .serverStream, sideEffectFree: true)
    case .getStateHash: .init("MachineService", "GetStateHash", .unary, sideEffectFree: true)
    case .createAddressSpace: .init("AddressSpaceService", "CreateAddressSpace", .unary)
    case .mmap: .init("AddressSpaceService", "Mmap", .unary)
    case .munmap: .init("AddressSpaceService", "Munmap", .unary)
    case .mprotect: .init("AddressSpaceService", "Mprotect", .unary)
    case .madviseDontNeed: .init("AddressSpaceService", "MadviseDontNeed", .unary)
    case .fork: .init("AddressSpaceService", "Fork", .unary)
    case .exit: .init("AddressSpaceService", "Exit", .unary)
    case .mremap: .init("AddressSpaceService", "Mremap", .unary)
    case .numaHint: .init("AddressSpaceService", "NumaHint", .unary)
    case .clearSoftDirty: .init("AddressSpaceService", "ClearSoftDirty", .unary)
    case .clearYoung: .init("AddressSpaceService", "ClearYoung", .unary)
    case .oomReap: .init("AddressSpaceService", "OomReap", .unary)
    case .ksmWriteProtect: .init("AddressSpaceService", "KsmWriteProtect", .unary)
    case .ksmReplacePage: .init("AddressSpaceService", "KsmReplacePage", .unary)
    case .migratePages: .init("AddressSpaceService", "MigratePages", .unary)
    case .uffdioMove: .init("AddressSpaceService", "UffdioMove", .unary)
    case .madviseFree: .init("AddressSpaceService", "MadviseFree", .unary)
    case .reclaimPages: .init("AddressSpaceService", "ReclaimPages", .unary)
    case .writebackPages: .init("AddressSpaceService", "WritebackPages", .unary)
    case .migrateToDevice: .init("AddressSpaceService", "MigrateToDevice", .unary)
    case .makeDeviceExclusive: .init("AddressSpaceService", "MakeDeviceExclusive", .unary)
    case .madviseCollapse: .init("AddressSpaceService", "MadviseCollapse", .unary)
    case .splitPages: .init("AddressSpaceService", "SplitPages", .unary)
    case .retractTables: .init("AddressSpaceService", "RetractTables", .unary)
    case .uffdWriteProtect: .init("AddressSpaceService", "UffdWriteProtect", .unary)
    case .createFile: .init("AddressSpaceService", "CreateFile", .unary)
    case .deleteFile: .init("AddressSpaceService", "DeleteFile", .unary)
    case .load: .init("AddressSpaceService", "Load", .unary)
    case .store: .init("AddressSpaceService", "Store", .unary)
    case .touch: .init("AddressSpaceService", "Touch", .unary)
    case .getOperation: .init("AddressSpaceService", "GetOperation", .unary, sideEffectFree: true)
    case .kernelMap: .init("KernelService", "KernelMap", .unary)
    case .kernelUnmap: .init("KernelService", "KernelUnmap", .unary)
    case .createDomain: .init("DomainService", "CreateDomain", .unary)
    case .destroyDomain: .init("DomainService", "DestroyDomain", .unary)
    case .map: .init("DomainService", "Map", .unary)
    case .unmap: .init("DomainService", "Unmap", .unary)
    case .registerDevice: .init("DeviceService", "RegisterDevice", .unary)
    case .removeDevice: .init("DeviceService", "RemoveDevice", .unary)
    case .bindPasid: .init("DeviceService", "BindPasid", .unary)
    case .unbindPasid: .init("DeviceService", "UnbindPasid", .unary)
    case .enablePri: .init("DeviceService", "EnablePri", .unary)
    case .translate: .init("DeviceService", "Translate", .unary)
    case .requestPages: .init("DeviceService", "RequestPages", .unary)
    case .dma: .init("DeviceService", "Dma", .unary)
    case .completeInvalidations: .init("DeviceService", "CompleteInvalidations", .unary)
    case .giveUp: .init("DeviceService", "GiveUp", .unary)
    case .watchDevice: .init("DeviceService", "Watch", .serverStream)
    case .attach: .init("DeviceService", "Attach", .bidirectional)
    case .subscribe: .init("NotifierService", "Subscribe", .unary)
    case .unsubscribe: .init("NotifierService", "Unsubscribe", .unary)
    case .watchSubscriber: .init("NotifierService", "Watch", .serverStream)
    case .answerEvents: .init("NotifierService", "Answer", .unary)
    case .rangeFault: .init("NotifierService", "RangeFault", .unary)
    case .takePages: .init("NotifierService", "TakePages", .unary)
    case .installPages: .init("NotifierService", "Install", .unary)
    case .mirrorAccess: .init("NotifierService", "Access", .unary)
    case .watchTrace: .init("TraceService", "Watch", .serverStream, sideEffectFree: true)
    }
  }
}
