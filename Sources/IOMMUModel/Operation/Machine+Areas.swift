// SPDX-License-Identifier: Apache-2.0

/// Steps that change areas, under the mmap lock.
extension Machine {
  /// The areas may have changed while the operation waited for the lock: a huge page is not split now either.
  @inline(__always)
  func checkBlocks(_ operation: inout Operation) -> StepOutcome {
    if splitsBlock(operation.space!, operation.range) == nil { return .through }
    operation.status = .areasChanged
    return .go(to: lists[operation.kind].lastIndex(of: .unlock)!)
  }

  mutating func insertArea(_ operation: inout Operation) -> StepOutcome {
    let space = operation.space!
    if spaces[space].areas.overlaps(operation.range) || operation.file.map({ !files.contains($0.file) }) ?? false {
      operation.status = .areasChanged
    } else if !hasRoom(space, 1) {
      operation.status = .outOfMemory
    } else {
      spaces[space].areas.insert(
        Area(
          range: operation.range, rights: operation.rights, level: operation.level, sinceTurn: turn,
          writableSinceTurn: operation.rights.contains(.write) ? turn : .max,
          file: operation.file.map {
            AreaFile(file: $0.file, offset: $0.firstPage &- operation.range.first, isShared: $0.isShared)
          }))
    }
    return .through
  }

  mutating func detachAreas(_ operation: inout Operation) -> StepOutcome {
    let space = operation.space!
    guard hasRoom(space, spaces[space].areas.growth(operation.range, keepsRange: false)) else {
      return tooManyAreas(&operation)
    }
    spaces[space].areas.remove(operation.range)
    return .through
  }

  mutating func changeAreas(_ operation: inout Operation) -> StepOutcome {
    let space = operation.space!
    guard spaces[space].areas.covers(operation.range) else {
      operation.status = .areasChanged
      return .go(to: lists[operation.kind].firstIndex(of: .unlock)!)
    }
    guard hasRoom(space, spaces[space].areas.growth(operation.range, keepsRange: true)) else {
      return tooManyAreas(&operation)
    }
    spaces[space].areas.protect(operation.range, operation.rights, turn: turn)
    return .through
  }

  /// Others have filled the list of areas while the operation waited for the lock (Linux: ENOMEM).
  private mutating func tooManyAreas(_ operation: inout Operation) -> StepOutcome {
    operation.status = .outOfMemory
    return .go(to: lists[operation.kind].lastIndex(of: .unlock)!)
  }

  /// mremap: what can fail comes first, the tables that the pages will need; then the new area.
  mutating func insertMovedArea(_ operation: inout Operation) -> StepOutcome {
    let space = operation.space!
    let moved = PageRange(first: operation.destination, count: operation.range.count)
    guard spaces[space].areas.covers(operation.range), !spaces[space].areas.overlaps(moved) else {
      operation.status = .areasChanged
      return .go(to: lists[operation.kind].lastIndex(of: .unlock)!)
    }
    // The new areas, and what is left of the old ones when their middle goes.
    guard hasRoom(space, spaces[space].areas.overlapping(operation.range).count + 1) else {
      return tooManyAreas(&operation)
    }
    guard makeDestinationTables(operation) else {
      operation.status = .outOfMemory
      return .go(to: lists[operation.kind].lastIndex(of: .unlock)!)
    }
    for area in Array(spaces[space].areas.overlapping(operation.range)) {
      var copy = area
      copy.range = area.range.intersection(operation.range)
      copy.range.first = destination(of: copy.range.first, operation)
      copy.file?.offset &-= operation.destination &- operation.range.first
      copy.sinceTurn = turn
      if area.rights.contains(.write) { copy.writableSinceTurn = turn }
      spaces[space].areas.insert(copy)
    }
    return .through
  }

  mutating func markReaped(_ operation: inout Operation) -> StepOutcome {
    spaces[operation.space!].reaped = true
    return .through
  }
}
