// SPDX-License-Identifier: Apache-2.0

/// Page requests: the queue, groups, workers, responses.
extension Machine {
  /// Takes a page request of a device into the queue.
  mutating func enqueue(_ id: DeviceID, _ request: PageRequest, _ effects: inout Effects) throws(Refusal) {
    try require(id)
    try require(request.pasid)
    guard request.groupIndex < 512 else { throw Refusal(.groupIndexOutOfRange, .groupIndex, figure: 511) }
    guard devices[id].profile.pri else { throw Refusal(.priDisabled, .device) }
    // A Stop Marker is never answered.
    if request.rights.isEmpty && request.last { return }
    guard devices[id].priEnabled else { return ignore(id, .pageRequestWhileDisabled, &effects) }
    let index = Int(request.groupIndex)
    guard !devices[id].groups[index].closed else { return ignore(id, .groupIndexInUse, &effects) }
    guard devices[id].outstanding < devices[id].allocation else { return ignore(id, .excessPageRequest, &effects) }

    effects.counters.pageRequests += 1
    devices[id].outstanding += 1
    devices[id].groups[index].members += 1
    devices[id].groups[index].closed = request.last
    noteAttempt(id, request)
    if queue.overflowed || queue.entries.count >= queue.capacity {
      overflow(id, request, &effects)
    } else {
      queue.entries.append(QueuedPageRequest(device: id, request: request, arrivedAt: time))
    }
    if !queue.interruptPending {
      queue.interruptPending = true
      _ = pending.schedule(.interrupt, at: time + cost(settings.costs.interrupt))
    }
  }

  @inline(__always)
  private func ignore(_ id: DeviceID, _ message: IgnoredMessage, _ effects: inout Effects) {
    effects.append(.device(id, .ignored(message)))
  }

  /// VT-d, SMMUv3 and RISC-V alike: the last of a group gets Success at once, any other is lost.
  private mutating func overflow(_ id: DeviceID, _ request: PageRequest, _ effects: inout Effects) {
    queue.overflowed = true
    effects.counters.queueOverflows += 1
    guard request.last else { return ignore(id, .droppedByOverflow, &effects) }
    effects.counters.autoAnswers += 1
    let members = closeGroup(id, request.groupIndex)
    effects.append(
      .pageResponse(
        id,
        PageResponse(
          pasid: request.pasid, groupIndex: request.groupIndex, code: .success, serviceNanoseconds: 0,
          memberCount: members)))
  }

  /// Gives the members of a group back to the device's allocation.
  private mutating func closeGroup(_ id: DeviceID, _ index: UInt16) -> UInt16 {
    let members = devices[id].groups[Int(index)].members
    devices[id].groups[Int(index)] = .init()
    devices[id].outstanding -= min(devices[id].outstanding, UInt32(members))
    return members
  }

  /// The driver's interrupt thread: takes everything out of the queue and makes groups of it.
  mutating func drainQueue(_ effects: inout Effects) {
    queue.interruptPending = false
    effects.counters.faultInterrupts += 1
    while let entry = queue.entries.popFirst() {
      guard entry.request.last else {
        devices[entry.device].partial.append(entry)
        continue
      }
      handler.groups.append(makeGroup(entry, &effects))
    }
    if queue.overflowed {
      // The last member may be the one that was lost: all partial groups go (iopf_queue_discard_partial).
      for id in devices.ids { devices[id].partial.removeAll() }
      queue.overflowed = false
    }
    dispatchGroups(&effects)
    wakeDrains()
  }

  private mutating func makeGroup(_ last: QueuedPageRequest, _ effects: inout Effects) -> PageRequestGroup {
    var group = PageRequestGroup(
      device: last.device, pasid: last.request.pasid, index: last.request.groupIndex, first: last.request, rest: [],
      arrivedAt: last.arrivedAt)
    guard !devices[last.device].partial.isEmpty else { return group }
    var members: [PageRequest] = []
    devices[last.device].partial.removeAll { member in
      guard member.request.groupIndex == group.index else { return false }
      members.append(member.request)
      return true
    }
    for member in members where member.pasid != group.pasid {
      effects.append(verdict(.prgWrongPASID, .walk, last.device, member.pasid, member.page))
    }
    members.removeAll { $0.pasid != group.pasid }
    guard let first = members.first else { return group }
    group.first = first
    group.rest = Array(members.dropFirst()) + [last.request]
    return group
  }

  /// Gives waiting groups to idle workers.
  mutating func dispatchGroups(_ effects: inout Effects) {
    guard !handler.dispatching else { return }
    handler.dispatching = true
    let limit = Self.operationSlots - Self.slotsBesideGroups
    while handler.idleWorkers > 0, operationCount < limit, let group = handler.groups.popFirst() {
      handler.idleWorkers -= 1
      let target = handlerTarget(group)
      let id = insert(.pageRequestGroup, target, PageRange(first: group.first.page, count: 1)) { $0.group = group }
      resume(id, &effects)
    }
    handler.dispatching = false
  }

  /// The address space that serves a group; nil: no handler, so Invalid Request.
  @inline(__always)
  private func handlerTarget(_ group: PageRequestGroup) -> Binding.Target? {
    guard devices.contains(group.device),
      let binding = devices[group.device].bindings.first(where: { bindings[$0].pasid == group.pasid }),
      bindings[binding].table != .cut, case .addressSpace(let space) = bindings[binding].target, spaces.contains(space)
    else { return nil }
    return .addressSpace(space)
  }

  mutating func respond(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let group = operation.group!
    if devices.contains(group.device) {
      effects.counters.groupsAnswered += 1
      let members = closeGroup(group.device, group.index)
      let response = PageResponse(
        pasid: group.pasid, groupIndex: group.index, code: operation.fault.code,
        serviceNanoseconds: time - group.arrivedAt, memberCount: members)
      effects.append(.pageResponse(group.device, response))
      if response.code == .responseFailure && devices[group.device].priEnabled { disablePRI(group.device, &effects) }
      if response.code == .invalidRequest { endAttempts(group) }
    }
    operation.group!.answered = true
    wakeDrains()
    return .through
  }

  /// A Response Failure switches PRI off. Groups whose last member has not come never get it now, and go; the
  /// complete ones are still answered, and until then PRI is not Stopped.
  private mutating func disablePRI(_ id: DeviceID, _ effects: inout Effects) {
    devices[id].priEnabled = false
    let groups = devices[id].groups
    queue.entries.removeAll { $0.device == id && !groups[Int($0.request.groupIndex)].closed }
    devices[id].partial.removeAll { !groups[Int($0.request.groupIndex)].closed }
    for index in groups.indices where !groups[index].closed { _ = closeGroup(id, UInt16(index)) }
    effects.append(.device(id, .priDisabled))
  }

  // MARK: Detach

  mutating func cut(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let binding = operation.detached!.binding
    // The queue's flush is the last that the binding takes part in.
    if let space = operation.space, waitsForEmptyFlushQueue(space, operation.id) { return .blocked }
    if bindings.contains(binding) { bindings[binding].table = .cut }
    operation.gather(.all)
    return .through
  }

  /// Waits until no page request of the PASID is queued, assembled or in service.
  mutating func drain(_ operation: inout Operation, _ effects: inout Effects) -> StepOutcome {
    let (device, pasid, _) = operation.detached!
    guard devices.contains(device) else { return .through }
    let queued = queue.entries.contains { $0.device == device && $0.request.pasid == pasid }
    let waiting = handler.groups.contains { $0.device == device && $0.pasid == pasid }
    let served = operations.contains {
      if let group = $0?.group { group.device == device && group.pasid == pasid && !group.answered } else { false }
    }
    if queued || waiting || served {
      drains.append(operation.id)
      return .blocked
    }
    report(.drain, operation, .all, &effects)
    return .through
  }

  mutating func wakeDrains() {
    guard !drains.isEmpty else { return }
    let waiting = drains
    drains.removeAll()
    for operation in waiting { wake(operation) }
  }

  mutating func forget(_ operation: inout Operation) -> StepOutcome {
    let (device, pasid, binding) = operation.detached!
    guard bindings.contains(binding) else {
      operation.status = .objectGone
      return .through
    }
    devices[device].partial.removeAll { $0.request.pasid == pasid }
    devices[device].attempts.keep { key, _ in key.owner != pasid }
    forget(binding)
    return .through
  }
}
