// SPDX-License-Identifier: Apache-2.0
import Foundation
import LabProtocol
import RPCClient

/// A correct device that does its worst, as a process on the `Attach` stream: it keeps every translation that it was not
/// told to drop, and uses all of them whenever it may. Each line of its input is one batch of messages; it answers when
/// the service has taken the batch, with what it knows then.
final class DeviceActor {
  /// What it says after a batch.
  struct Reply: Codable {
    /// The page of the last `want` is not there with the rights that are needed.
    var lacks = false
    /// Answers to page requests since the last batch: whether each was a success.
    var answers: [Bool] = []
    var owes = 0
  }

  private struct Grant {
    var page: UInt64
    var answer: LabTranslation
  }
  /// What an answer is for.
  private struct Question {
    enum Purpose { case keep, look, want(write: Bool) }
    var page: UInt64
    var purpose: Purpose
  }

  private let rpc: RPCClient
  private var stream: RPCStreamID?
  private var grants: [Grant] = []
  private var owed: [LabInvalidation] = []
  private var reply = Reply()
  private var batch: [LabDeviceMessage] = []
  /// Translations that were asked for in this batch, by tag.
  private var questions: [Question] = []
  private var answered = 0
  private var greeted = false

  private static let pasid: UInt32 = 5

  init(_ service: String) throws {
    guard let endpoint = RPCEndpoint(service) else { throw Failure("'\(service)': write HOST:PORT") }
    rpc = try RPCClient(endpoint)
  }

  /// `attach MACHINE DEVICE` begins anew; everything else is a batch: verbs with their arguments, parted by commas.
  func take(_ line: String) throws -> Reply {
    let verbs = line.split(separator: ",").map { $0.split(separator: " ").map(String.init) }
    reply = Reply()
    if verbs[0][0] == "attach" {
      try attach(machine: verbs[0][1], device: verbs[0][2])
      return reply
    }
    batch.removeAll()
    questions.removeAll()
    answered = 0
    for verb in verbs { try add(verb[0], verb.dropFirst().compactMap { UInt64($0, radix: 16) }) }
    send(LabAttachRequest.with { $0.messages = batch })
    while answered < questions.count { try poll() }
    reply.owes = owed.count
    return reply
  }

  private func attach(machine: String, device: String) throws {
    if let stream { rpc.cancel(stream) }
    grants.removeAll()
    owed.removeAll()
    stream = try rpc.openStream(LabMethod.attach.path)
    send(
      LabAttachRequest.with {
        $0.hello.machine = machine
        $0.hello.device = device
      })
    greeted = false
    while !greeted { try poll() }
  }

  // MARK: A batch

  private func add(_ verb: String, _ numbers: [UInt64]) throws {
    switch verb {
    case "use": use()
    case "ask":
      for page in numbers[0]..<numbers[0] + numbers[1] {
        for noWrite in [true, false] { translate(page, noWrite: noWrite, .keep) }
      }
    case "look": translate(numbers[0], noWrite: true, .look)
    case "want": translate(numbers[0], noWrite: numbers[1] == 0, .want(write: numbers[1] == 1))
    case "request":
      batch.append(
        .with {
          $0.pageRequest.pasid = Self.pasid
          $0.pageRequest.address = hex(numbers[0] << 12)
          $0.pageRequest.read = true
          $0.pageRequest.write = numbers[1] == 1
          $0.pageRequest.groupIndex = UInt32(numbers[2])
          $0.pageRequest.last = true
        })
    case "give-up":
      batch.append(
        .with {
          $0.giveUp.pasid = Self.pasid
          $0.giveUp.address = hex(numbers[0] << 12)
          $0.giveUp.read = true
          $0.giveUp.write = numbers[1] == 1
        })
    case "complete": try complete()
    default: throw Failure("a device does not '\(verb)'")
    }
  }

  /// Reads, and writes where it may, through everything in the ATC.
  private func use() {
    for grant in grants {
      for write in [false, true] where !write || grant.answer.write {
        batch.append(
          .with {
            $0.dma.tag = 1
            $0.dma.write = write
            $0.dma.translated = true
            $0.dma.pasid = Self.pasid
            $0.dma.address = grant.answer.physicalAddress
            $0.dma.iova = hex(grant.page << 12)
            if write { $0.dma.value = "0xd" }
          })
      }
    }
  }

  private func translate(_ page: UInt64, noWrite: Bool, _ purpose: Question.Purpose) {
    batch.append(
      .with {
        $0.translate.tag = UInt32(questions.count)
        $0.translate.pasid = Self.pasid
        $0.translate.address = hex(page << 12)
        $0.translate.noWrite = noWrite
      })
    questions.append(Question(page: page, purpose: purpose))
  }

  /// Drops what each invalidation takes and completes it: every use of it stands before this in the stream.
  private func complete() throws {
    for invalidation in owed {
      let first = try Hex.parse(invalidation.address) >> 12
      let count = UInt64(1) << UInt64(invalidation.sizeLog2 - 12)
      grants.removeAll { $0.page &- first < count && $0.answer.order < invalidation.order }
      batch.append(.with { $0.complete.itagVector = hex(1 << UInt64(invalidation.itag)) })
    }
    owed.removeAll()
  }

  // MARK: The wire

  private func send(_ request: LabAttachRequest) {
    LabCodec.json(request).withUnsafeBytes { _ = rpc.send(stream!, $0) }
  }

  private func poll() throws {
    let events = rpc.poll(timeout: .seconds(30))
    if events.isEmpty { throw Failure("no event: \(rpc.lossReason ?? "30 s have passed")") }
    for event in events where event.stream == stream {
      switch event.kind {
      case .opened: break
      case .ended: throw Failure("the stream ended")
      case .failed: throw Failure("\(rpc.failure(event))")
      case .message:
        greeted = true
        for event in try LabCodec.decode(LabAttachResponse.self, json: rpc.message(event)).events { try take(event) }
      }
    }
  }

  private func take(_ event: LabDeviceEvent) throws {
    switch event.kind {
    case .translation(let answer): take(answer)
    case .pageResponse(let response): reply.answers.append(response.code == .success)
    case .invalidation(let invalidation): owed.append(invalidation)
    case .refused(let refused): throw Failure("message \(refused.message): \(refused.text)")
    case .device(let change): throw Failure("the device was \(change.state)")
    case .dma, .ignored, .heartbeat, nil: break
    }
  }

  private func take(_ answer: LabTranslation) {
    let question = questions[Int(answer.tag)]
    answered += 1
    switch question.purpose {
    case .look: break
    case .want(let write): reply.lacks = answer.status == .success && !(answer.read && (answer.write || !write))
    case .keep: if answer.status == .success && (answer.read || answer.write) { keep(question.page, answer) }
    }
  }

  private func keep(_ page: UInt64, _ answer: LabTranslation) {
    let isSame = { (grant: Grant) in grant.page == page && grant.answer.physicalAddress == answer.physicalAddress }
    // An answer with less rights does not push the one with more out of the ATC.
    if grants.contains(where: { isSame($0) && $0.answer.write && !answer.write }) { return }
    grants.removeAll(where: isSame)
    grants.append(Grant(page: page, answer: answer))
  }
}
