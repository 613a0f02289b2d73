// SPDX-License-Identifier: Apache-2.0
// Tries every cell of docs/expected-verdicts.md over the network: a service, two device processes, a CPU process, and
// this one, which starts the operation and moves the clock of a MANUAL machine. Ends with 1 when a cell disagrees.
//
//   scripts/with-service IOMMULAB NetworkCells TABLE [WORD …]     only cells whose row, strategy or kernel has each word
import Foundation

exit(NetworkCells.run(CommandLine.arguments))
