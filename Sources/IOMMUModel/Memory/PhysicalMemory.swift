// SPDX-License-Identifier: Apache-2.0
import DequeModule

/// The frames of a machine: who holds them, what they contain, which are free. Frames come into being when first
/// needed, so that a large machine costs what it uses.
public struct PhysicalMemory {
  private(set) var frames: [Frame] = []
  private var words: Words
  private var free: Deque<FrameNumber> = []
  private var freeBlocks: [FrameNumber] = []
  private let frameCount: UInt32
  private let recycleOrder: RecycleOrder
  private var generator: SeededGenerator

  /// What the checksums found; taken by the machine into its counters after each turn.
  private(set) var corruptedFrames: UInt64 = 0
  private(set) var unexplainedCorruptions: UInt64 = 0

  /// - Parameter frameCount: frames of the machine; frame 0 is never given out, so that 0 can mean "none".
  public init(
    frameCount: UInt32, recycleOrder: RecycleOrder = .lastInFirstOut, seed: UInt64 = 1, chunkFramesLog2: UInt8 = 4
  ) {
    self.frameCount = frameCount
    self.recycleOrder = recycleOrder
    words = Words(chunkFramesLog2: chunkFramesLog2)
    generator = SeededGenerator(seed: seed, purpose: "recycle")
    frames.append(Frame())
  }

  // MARK: Life of a frame

  /// Frames that can still be given out.
  public var freeCount: Int { free.count + Int(frameCount) - frames.count }

  /// Takes a zeroed frame with one reference; nil: none is free.
  mutating func allocate(_ use: Frame.Use) -> FrameNumber? {
    let number: FrameNumber
    if let recycled = takeFree() {
      number = recycled
    } else if frames.count < Int(frameCount) {
      number = FrameNumber(frames.count)
      frames.append(Frame())
    } else {
      return nil
    }
    begin(number, use, blockLog2: 0)
    return number
  }

  /// Takes 2^`blockLog2` naturally aligned frames as one block with one reference; nil: no room.
  mutating func allocateBlock(log2 blockLog2: UInt8) -> FrameNumber? {
    if blockLog2 == 0 { return allocate(.data) }
    let size = 1 << Int(blockLog2)
    let head: FrameNumber
    if let index = freeBlocks.lastIndex(where: { frames[Int($0)].blockLog2 == blockLog2 }) {
      head = freeBlocks.remove(at: index)
    } else if case let aligned = (frames.count + size - 1) / size * size, aligned + size > Int(frameCount) {
      guard let merged = mergeFree(size) else { return nil }
      head = merged
    } else {
      let aligned = (frames.count + size - 1) / size * size
      while frames.count < aligned {
        free.append(FrameNumber(frames.count))
        frames.append(Frame())
      }
      head = FrameNumber(aligned)
      frames.append(contentsOf: repeatElement(Frame(), count: size))
    }
    for frame in head + 1..<head + FrameNumber(size) { begin(frame, .hugeTail, blockLog2: 0) }
    begin(head, .data, blockLog2: blockLog2)
    return head
  }

  /// Makes a block of single free frames that lie side by side. They get one generation, so that a translation of the
  /// whole remembers that of every part.
  private mutating func mergeFree(_ size: Int) -> FrameNumber? {
    for base in stride(from: size, through: frames.count - size, by: size) {
      let range = base..<base + size
      guard range.allSatisfy({ frames[$0].use == .free && frames[$0].blockLog2 == 0 }),
        !freeBlocks.contains(where: { Int($0) <= base && base < Int($0) + 1 << Int(frames[Int($0)].blockLog2) })
      else { continue }
      free.removeAll { range.contains(Int($0)) }
      let generation = range.map { frames[$0].generation }.max()!
      for index in range { frames[index].generation = generation }
      return FrameNumber(base)
    }
    return nil
  }

  /// Takes a block with one holder apart: each frame is then held once.
  mutating func splitBlock(_ head: FrameNumber) {
    let index = Int(head)
    precondition(frames[index].references == 1, "a block with one holder is split")
    let size = 1 << Int(frames[index].blockLog2)
    frames[index].blockLog2 = 0
    for tail in index + 1..<index + size {
      frames[tail].use = .data
      frames[tail].deviceOwner = frames[index].deviceOwner
      frames[tail].references = 1
    }
  }

  /// Adds a holder to a live frame.
  mutating func retain(_ number: FrameNumber) {
    precondition([.data, .table].contains(frames[Int(number)].use), "only data and page tables are shared")
    frames[Int(number)].references += 1
  }

  /// Drops a holder; the last one frees the frame. Answers whether it was freed.
  @discardableResult
  mutating func release(_ number: FrameNumber, by stamp: OperationStamp) -> Bool {
    let index = Int(number)
    precondition(frames[index].references > 0, "frame \(number) is held")
    frames[index].references -= 1
    guard frames[index].references == 0 else { return false }
    let blockLog2 = frames[index].blockLog2
    if blockLog2 > 0 {
      for tail in index..<index + 1 << Int(blockLog2) { end(FrameNumber(tail), stamp) }
      freeBlocks.append(number)
    } else {
      end(number, stamp)
      free.append(number)
    }
    return true
  }

  private mutating func begin(_ number: FrameNumber, _ use: Frame.Use, blockLog2: UInt8) {
    let index = Int(number)
    verify(index)
    if frames[index].words >= 0 {
      words.release(frames[index].words)
      frames[index].words = -1
    }
    frames[index].checksum = 0
    frames[index].explained = false
    frames[index].deviceOwner = 0
    frames[index].use = use
    frames[index].blockLog2 = blockLog2
    frames[index].references = use == .hugeTail ? 0 : 1
  }

  private mutating func end(_ number: FrameNumber, _ stamp: OperationStamp) {
    let index = Int(number)
    verify(index)
    frames[index].explained = false
    frames[index].use = .free
    frames[index].references = 0
    frames[index].generation &+= 1
    frames[index].freedBy = stamp
  }

  private mutating func takeFree() -> FrameNumber? {
    guard !free.isEmpty else { return nil }
    switch recycleOrder {
    case .lastInFirstOut: return free.removeLast()
    case .firstInFirstOut: return free.removeFirst()
    case .random:
      free.swapAt(Int(generator.next(below: UInt64(free.count))), free.count - 1)
      return free.removeLast()
    }
  }

  mutating func setDeviceOwner(_ number: FrameNumber, _ owner: UInt32) { frames[Int(number)].deviceOwner = owner }

  mutating func setFilePage(_ number: FrameNumber, _ page: FilePage) { frames[Int(number)].filePage = page }

  // MARK: Reading and writing

  /// Whether memory stands at this frame number at all.
  public func exists(_ number: FrameNumber) -> Bool { number < frameCount }

  /// A word of a frame, as the memory controller sees it: free and never written frames read as they are.
  @inline(__always)
  public func load(_ number: FrameNumber, _ index: Int) -> UInt64 {
    guard Int(number) < frames.count else { return 0 }
    let slot = frames[Int(number)].words
    return slot < 0 ? 0 : words[slot, index]
  }

  /// A word of a frame that a walk reads as a table, with what the oracle asks of that frame: which life it is in, and
  /// whether it was freed or became something else.
  @inline(__always)
  func loadTable(_ number: FrameNumber, _ index: Int) -> (bits: UInt64, generation: UInt32, isStale: Bool) {
    guard Int(number) < frames.count else { return (0, 1, true) }
    let slot = frames[Int(number)].words
    return (
      slot < 0 ? 0 : words[slot, index], frames[Int(number)].generation, frames[Int(number)].use != .table
    )
  }

  /// An accounted write: the owner of the frame's present life may know of it.
  @inline(__always)
  public mutating func store(_ number: FrameNumber, _ index: Int, _ value: UInt64) {
    if Int(number) >= frames.count { create(through: number) }
    let old = load(number, index)
    frames[Int(number)].checksum ^= Self.mix(index, old) ^ Self.mix(index, value)
    storeUnaccounted(number, index, value)
  }

  /// A write that no owner knows of: a DMA or an A/D update that reached a life it had no right to. The checksum
  /// stays behind, and finds it when the frame is next freed or given out.
  mutating func storeUnaccounted(_ number: FrameNumber, _ index: Int, _ value: UInt64) {
    if Int(number) >= frames.count { create(through: number) }
    if frames[Int(number)].words < 0 {
      if value == 0 { return }
      frames[Int(number)].words = words.allocate()
    }
    words[frames[Int(number)].words, index] = value
  }

  /// A device may write where no owner has been yet: the frames up to there come into being, free.
  private mutating func create(through number: FrameNumber) {
    while frames.count <= Int(number) {
      free.append(FrameNumber(frames.count))
      frames.append(Frame())
    }
  }

  /// The oracle has given a verdict on a write to this frame.
  mutating func explain(_ number: FrameNumber) {
    if Int(number) < frames.count { frames[Int(number)].explained = true }
  }

  /// Copies contents, accounted, for copy-on-write.
  mutating func copy(from source: FrameNumber, to target: FrameNumber, blockLog2: UInt8) {
    for offset in 0..<FrameNumber(1) << FrameNumber(blockLog2) where frames[Int(source + offset)].words >= 0 {
      for index in 0..<Page.wordCount {
        let value = load(source + offset, index)
        if value != 0 { store(target + offset, index, value) }
      }
    }
  }

  /// Whether two frames have the same contents.
  func equal(_ a: FrameNumber, _ b: FrameNumber) -> Bool {
    (0..<Page.wordCount).allSatisfy { load(a, $0) == load(b, $0) }
  }

  // MARK: The independent check

  /// Checksum of what is really there, against what accounted writes explain.
  func checksumAgrees(_ number: FrameNumber) -> Bool {
    let frame = frames[Int(number)]
    guard frame.words >= 0 else { return frame.checksum == 0 }
    var sum: UInt64 = 0
    for index in 0..<Page.wordCount { sum ^= Self.mix(index, words[frame.words, index]) }
    return sum == frame.checksum
  }

  private mutating func verify(_ index: Int) {
    guard !checksumAgrees(FrameNumber(index)) else { return }
    corruptedFrames += 1
    if !frames[index].explained { unexplainedCorruptions += 1 }
    // Found once: what is there now is the new base.
    var sum: UInt64 = 0
    for word in 0..<Page.wordCount { sum ^= Self.mix(word, load(FrameNumber(index), word)) }
    frames[index].checksum = sum
  }

  mutating func takeCorruption() -> (found: UInt64, unexplained: UInt64) {
    defer {
      corruptedFrames = 0
      unexplainedCorruptions = 0
    }
    return (corruptedFrames, unexplainedCorruptions)
  }

  /// Zero for a zero word, so that an unwritten frame has checksum 0.
  @inline(__always)
  private static func mix(_ index: Int, _ value: UInt64) -> UInt64 {
    value == 0 ? 0 : SeededGenerator.mix(value &+ UInt64(index) &* 0x9e37_79b9_7f4a_7c15)
  }

  subscript(number: FrameNumber) -> Frame {
    @inline(__always) get { frames[Int(number)] }
  }

  /// The life that a frame is in; frames that never came into being are in their first.
  @inline(__always)
  func generation(_ number: FrameNumber) -> UInt32 { Int(number) < frames.count ? frames[Int(number)].generation : 1 }

  /// Whether a walk that reads this frame as a table reads one that was freed or became something else.
  @inline(__always)
  func isStaleTable(_ number: FrameNumber) -> Bool { Int(number) >= frames.count || frames[Int(number)].use != .table }

  func isFree(_ number: FrameNumber) -> Bool { Int(number) >= frames.count || frames[Int(number)].use == .free }

  /// Declares frames of a fresh memory as page tables with this content: for tables that a client built by hand.
  /// - Parameter image: 512 words for each frame, from frame `first` on.
  public mutating func installTables(first: FrameNumber, image: [UInt64]) {
    precondition(first > 0 && image.count % Page.wordCount == 0, "whole frames, and never frame 0")
    let count = image.count / Page.wordCount
    while frames.count < Int(first) + count { frames.append(Frame()) }
    for number in first..<first + FrameNumber(count) {
      frames[Int(number)].use = .table
      frames[Int(number)].references = 1
      for index in 0..<Page.wordCount { store(number, index, image[Int(number - first) << 9 | index]) }
    }
  }

  var freeList: Deque<FrameNumber> { free }
  var freeBlockList: [FrameNumber] { freeBlocks }
  var generatorState: UInt64 { generator.state }
  var createdFrameCount: Int { frames.count }
}
