// SPDX-License-Identifier: Apache-2.0
// Goal: a log says the same thing again, is never misread when it is torn, and never traps.
@testable import IOMMUModel
import Testing

@Suite struct LogTests {
  static let commands: [Command] = {
    let space = AddressSpaceID(rawValue: 0x1_0002)
    let domain = DomainID(rawValue: 0x3_0004)
    let device = DeviceID(rawValue: 0x5_0006)
    let subscriber = SubscriberID(rawValue: 0x7_0008)
    let range = PageRange(first: 0x123, count: 77)
    let starts: [OperationRequest] = [
      .mmap(space, range, .readWrite, pageSizeLog2: 21), .munmap(space, range), .mprotect(space, range, .read),
      .dontNeed(space, range), .fork(space), .exit(space),
      .cpuAccess(space, CPUAccess(cpu: 3, kind: .touch, address: 0x123000, value: .max, pageCount: 9)),
      .unmap(domain, range), .detach(device, 0xf_ffff),
    ]
    return starts.map(Command.start) + [
      .createAddressSpace, .createDomain(.paging), .createDomain(.identity), .createDomain(.blocked),
      .destroyDomain(domain),
      .map(DomainMapping(domain: domain, range: range, rights: .read)),
      .map(DomainMapping(domain: domain, range: range, rights: .readWrite, source: space, sourceFirst: 5)),
      .registerDevice(DeviceProfile(rid: 0xffff, ats: true, pri: false, pasid: true, priAllocation: 7, retryLimit: 9)),
      .removeDevice(device), .attach(device, 5, .domain(domain)), .enablePRI(device, allocation: 12),
      .translate(device, TranslationRequest(tag: .max, pasid: 5, page: 1 << 52, noWrite: true)),
      .pageRequest(device, PageRequest(pasid: 5, page: .max, rights: .readWrite, groupIndex: 511, last: true)),
      .dma(device, DMARequest(tag: 1, write: true, translated: false, pasid: 5, address: .max, page: 3, value: .max)),
      .complete(device, itagVector: .max), .giveUp(device, 5, 9, .read),
      .subscribe(space, SubscriberProfile(kind: .gntdevLike, range: range, takesTwoPasses: true, owner: .max)),
      .unsubscribe(subscriber),
      .answer(subscriber, NotifierAnswer(number: .max, refuses: true, youngPages: 3)),
      .rangeFault(subscriber, RangeFault(range: range, rights: .readWrite)),
      .takePages(subscriber, .makeDeviceExclusive, range),
      .mirrorInstall(subscriber, MirrorInstall(fault: .max, range: range)),
      .mirrorAccess(subscriber, MirrorAccess(page: 7, physicalAddress: .max, write: true, value: .max)),
    ] + Strategy.named.map { Command.attach(device, 5, .addressSpace(space, $0.strategy)) }
  }()

  func log(_ commands: [Command] = LogTests.commands) -> (bytes: [UInt8], ends: [Int]) {
    var writer = LogWriter(settings: Settings(), build: "tests")
    var ends = [writer.byteCount]
    for (index, command) in commands.enumerated() {
      writer.append(
        command, index % 2 == 0 ? .none : .operation(OperationID(rawValue: UInt64(index))), at: UInt64(index * 100))
      ends.append(writer.byteCount)
      writer.append(pending: UInt64(index) << 30, at: UInt64(index * 100 + 7))
      ends.append(writer.byteCount)
    }
    return (writer.take(), ends)
  }

  @Test func `every kind of command comes back as it went in`() throws {
    var reader = try LogReader(log().bytes)
    #expect(reader.settings == Settings())
    #expect(reader.build == "tests")
    for (index, command) in Self.commands.enumerated() {
      let entry = try reader.next()
      guard case .command(command, _)? = entry?.turn else { throw Surprise() }
      #expect(entry?.time == UInt64(index * 100))
      #expect(
        try reader.next() == Log.Entry(time: UInt64(index * 100 + 7), turn: .pending(sequence: UInt64(index) << 30)))
    }
    #expect(try reader.next() == nil)
  }

  @Test func `a log torn at any byte is a whole prefix, and then a typed error that names where the torn entry begins`()
    throws
  {
    let (bytes, ends) = log()
    for length in ends[0]...bytes.count {
      var reader = try LogReader(Array(bytes[..<length]))
      var read = 0
      do throws(LogError) {
        while try reader.next() != nil { read += 1 }
        #expect(ends[read] == length)
      } catch {
        #expect(error == .torn(offset: ends[read]))
      }
      #expect(ends[read] <= length)
      #expect(read + 1 == ends.count || ends[read + 1] > length)
    }
    for length in 0..<ends[0] { #expect(throws: LogError.self) { try LogReader(Array(bytes[..<length])) } }
  }

  @Test func `an unknown version is refused by its number, and another file is no log`() {
    var bytes = log().bytes
    bytes[Log.magic.count] = 77
    #expect(throws: LogError.unknownVersion(77)) { try LogReader(bytes) }
    bytes[0] ^= 1
    #expect(throws: LogError.notALog) { try LogReader(bytes) }
    #expect(throws: LogError.notALog) { try LogReader([]) }
  }

  @Test func `any changed byte gives another log or a typed error, and a machine can always be made from its settings`()
    throws
  {
    let (bytes, ends) = log()
    for index in Log.magic.count..<bytes.count {
      for bit in 0..<8 where index < ends[0] || bit == index % 8 {
        var damaged = bytes
        damaged[index] ^= 1 << UInt8(bit)
        do throws(LogError) {
          var reader = try LogReader(damaged)
          #expect(reader.settings.isUsable)
          while try reader.next() != nil {}
        } catch {}
      }
    }
  }

  @Test func `settings that no machine can be made from are malformed`() {
    let changes: [(inout Settings) -> Void] = [
      { $0.frameCount = 1 }, { $0.caches.cpuTLB = 0 }, { $0.caches.iotlb = 3 }, { $0.handlerWorkers = 0 },
      { $0.chunkFramesLog2 = 60 }, { $0.pageRequestQueueCapacity = 1 << 16 }, { $0.limits.devices = 1 << 20 },
    ]
    for change in changes {
      var settings = Settings()
      change(&settings)
      var writer = LogWriter(settings: settings, build: "")
      let bytes = writer.take()
      #expect(throws: LogError.malformed(offset: bytes.count)) { try LogReader(bytes) }
    }
  }
}
