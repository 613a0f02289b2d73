#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A live storm of the release binary has the expected verdicts, and its logs replay to the same verdicts, effects and
state in debug and in release, each in a process of its own.

    replay_agrees.py RELEASE_BINARY DEBUG_BINARY [SEED] [ACCESSES]
"""
import json
import pathlib
import subprocess
import sys
import tempfile


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout)


def main():
    release, debug = sys.argv[1:3]
    seed = sys.argv[3] if len(sys.argv) > 3 else "7"
    accesses = sys.argv[4] if len(sys.argv) > 4 else "40000"
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        storm = run(release, "storm", "--json", "--seed", seed, "--accesses", accesses, "--record", folder)
        hashes = {one["workloadHash"] for one in storm["strategies"]}
        if len(hashes) != 1:
            wrong.append(f"the strategies had {len(hashes)} workloads")
        for one in storm["strategies"]:
            log = str(pathlib.Path(folder) / f"{one['strategy']}.log")
            fast, slow = (run(binary, "replay", "--json", log) for binary in (release, debug))
            if fast != slow:
                wrong.append(f"{one['strategy']}: release and debug differ")
            live = {name: count for name, count in one["verdicts"].items() if count}
            if fast["verdicts"] != live:
                wrong.append(f"{one['strategy']}: live {live}, replayed {fast['verdicts']}")
            print(f"{one['strategy']}: {fast['entries']} entries, state {fast['stateHash']}, {live or 'no verdict'}")
    print(f"seed {seed}, {accesses} accesses for each strategy")
    for line in wrong:
        print("WRONG:", line)
    sys.exit(1 if wrong else 0)


main()
