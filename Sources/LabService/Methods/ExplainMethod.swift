// SPDX-License-Identifier: Apache-2.0
import IOMMUModel
import LabProtocol
import RPCServer
import SwiftProtobuf

/// An explanation under way: a log that is performed again beside its machine, some entries in each pass of the loop.
struct ExplanationJob {
  var caller: Caller
  var format: LabExplanationFormat
  var retrace: Retrace
  /// The log stopped at its limit before now.
  var isCut: Bool
}

// MachineService/ExplainVerdict.
extension Shard {
  func explainVerdict(
    _ host: MachineHost, _ request: LabExplainVerdictRequest, _ caller: Caller
  ) throws(CallError) -> (any Message)? {
    guard host.log != nil else {
      throw .service(
        .notRecording, "the machine keeps no log; create it with record, or see the chain of ListVerdicts",
        fields: ["machine"])
    }
    host.dispatch()
    guard let verdict = host.verdicts[request.seq] else {
      throw .service(
        .unknownVerdict, "no verdict of this seq, or it is not kept any more; ListVerdicts has those that are",
        fields: ["seq"])
    }
    guard host.log!.size <= limits.explainedLogBytes else {
      throw .service(
        .limitReached,
        "the log has more than \(limits.explainedLogBytes) bytes, too many to perform again here; fetch it with GetLog "
          + "and run iommulab explain", fields: ["machine"])
    }
    guard explanations.count < limits.explanationsPerLoop else {
      throw .service(.limitReached, "\(limits.explanationsPerLoop) explanations are under way, the limit; ask again")
    }
    do throws(LogError) {
      let retrace = try Retrace(
        host.log!.bytes, of: verdict, number: request.seq,
        device: verdict.accessor(device: \.text, subscriber: \.text))
      explanations.append(
        ExplanationJob(caller: caller, format: request.format, retrace: retrace, isCut: host.log!.isFull))
    } catch {
      throw Self.diverged
    }
    return nil
  }

  /// A machine's own log gives its own verdicts; other tenants go on when that is ever wrong.
  private static let diverged = CallError.service(
    .logDiverged, "the log does not give this verdict again, which is a bug of the service; keep the log of GetLog")

  /// Goes on with what is to be explained.
  func explain() {
    var underWay: [ExplanationJob] = []
    for var job in explanations {
      do throws(LogError) {
        switch try advance(&job.retrace) {
        case .underWay: underWay.append(job)
        case .found(let explanation): answer(job.caller, LabExplainVerdictResponse(explanation, job.format))
        case .absent where job.isCut:
          fail(job.caller, .service(.logFull, "the log stopped at \(limits.logBytes) bytes, before this verdict"))
        case .absent: fail(job.caller, Self.diverged)
        }
      } catch {
        fail(job.caller, Self.diverged)
      }
    }
    explanations = underWay
  }

  /// At most the entries of a pass, and after its time at most one share.
  private func advance(_ retrace: inout Retrace) throws(LogError) -> Retrace.Progress {
    var count = 0
    while count < limits.turnsPerPass {
      let share = min(limits.turnsPerShare, limits.turnsPerPass - count)
      let progress = try retrace.advance(share)
      guard case .underWay = progress else { return progress }
      count += share
      if isPassOver { break }
    }
    return .underWay
  }
}

extension LabExplainVerdictResponse {
  init(_ explanation: Explanation, _ format: LabExplanationFormat) {
    self.init()
    self.explanation = LabExplanation(explanation)
    rendering =
      switch format {
      case .mermaid: explanation.mermaid
      case .svg: explanation.svg
      default: explanation.text
      }
  }
}

extension LabExplanation {
  init(_ explanation: Explanation) {
    self.init()
    kind = LabVerdictKind(explanation.kind)
    sentence = explanation.sentence
    lanes = explanation.lanes.map { lane in
      .with {
        $0.role =
          switch lane.role {
          case .cpu: .cpu
          case .operation: .operation
          case .iommu: .iommu
          case .device: .device
          }
        $0.name = lane.name
        $0.detail = lane.detail
      }
    }
    events = explanation.events.map { event in
      .with {
        $0.atNanoseconds = event.at ?? 0
        $0.kind =
          switch event.kind {
          case .step: .step
          case .missing: .missing
          case .verdict: .verdict
          }
        $0.fromLane = UInt32(event.from)
        $0.toLane = UInt32(event.to)
        $0.text = event.text
      }
    }
  }
}
