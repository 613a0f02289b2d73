# SPDX-License-Identifier: Apache-2.0
"""Figures beside their goals, with peers measured in the same run.

    bench.py --binary PATH --machine-bench PATH --counted-service PATH
             [--rounds N] [--quick] [--output FILE] [P1 P4 …]

Server CPU is the sum of /proc/PID/task/*/schedstat, server on core 0, client on core 1, servers interleaved. Read the
figures as ratios: absolute ones belong to the machine. Status is 0 whether or not a goal is reached.
"""
import argparse
import os
import pathlib
import platform
import sys

import figures


def machine_kind():
    model = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    return "%d cores, %s; load %.1f at the start" % (os.cpu_count(), model, os.getloadavg()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--machine-bench", required=True)
    parser.add_argument("--counted-service", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--output", help="write the table into this file as well")
    parser.add_argument("names", nargs="*", metavar="P", help="which goals; default: all")
    options = parser.parse_args()
    options.scale = 10 if options.quick else 1
    lines = [machine_kind()]
    print(lines[0], flush=True)
    broken = False
    for name in options.names or figures.FIGURES:
        measure, what, goal = figures.FIGURES[name]
        affinity = os.sched_getaffinity(0)
        try:
            figure, reached, detail = measure(options)
            verdict = "reached" if reached else "NOT REACHED"
        except Exception as error:  # one broken figure must not hide the others
            figure, verdict, detail, broken = "-", "NOT MEASURED", "%s: %s" % (type(error).__name__, error), True
        os.sched_setaffinity(0, affinity)
        lines.append("%-4s %-52s %16s  goal %-16s %s\n     %s" % (name, what, figure, goal, verdict, detail))
        print(lines[-1], flush=True)
    if options.output:
        pathlib.Path(options.output).write_text("\n".join(lines) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
