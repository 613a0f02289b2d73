// SPDX-License-Identifier: Apache-2.0
// P11: translation inside one machine, on one core, oracle on, beside a pointer chase over the same tables.
TranslationBench.run(rounds: CommandLine.arguments.dropFirst().first.flatMap { Int($0) } ?? 9)
