// SPDX-License-Identifier: Apache-2.0

/// The book-keeping of one 4 KiB frame.
struct Frame {
  enum Use: UInt8 { case free, data, table, hugeTail }
  /// Counts the lives of the frame: one more each time it is freed. A translation remembers the life it was for.
  var generation: UInt32 = 1
  /// Page-table leaves and pins that hold it; the frame is freed when the last goes.
  var references: UInt32 = 0
  var use: Use = .free
  /// log2 of the frames of the block that this head frame stands for: 0, 9 or 18.
  var blockLog2: UInt8 = 0
  /// The oracle has said of this life, or of the free time before it, that a write reached it wrongly.
  var explained = false
  /// Backing in `Words`; −1: never written in this life, all zero.
  var words: Int32 = -1
  /// Xor over the words of `mix(index, value)`, kept up by every accounted write.
  var checksum: UInt64 = 0
  /// Whose private memory the frame is, by `dev_private_owner`; 0: nobody's, or no device's.
  var deviceOwner: UInt32 = 0
  /// The page of a file whose cached copy the frame is.
  var filePage = FilePage.none
  /// The operation that freed the last life of the frame.
  var freedBy: OperationStamp = .none
}
