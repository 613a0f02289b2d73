# SPDX-License-Identifier: Apache-2.0
"""The page walker against unicorn: the same random tables, the same requests, the same answers.

    page_walk.py PROBE [--tables N] [--requests N] [--seed S] [--stop-after N]

PROBE is the WalkerProbe binary. Compared for each request: allowed or refused, and the physical address. Compared for
each table afterwards: every bit of it, so Accessed and Dirty. Hardware may or may not set Accessed in upper entries on
the way to a refusal (Intel SDM vol. 3, 4.8, allows both; unicorn does, our walker does not), so the reference's final
table is made by the allowed requests alone, and ours by all of them.
"""
import argparse
import random
import struct
import subprocess
import sys
import time

from random_tables import BYTE_COUNT, FIRST_FRAME, FRAME_COUNT, RandomTable
from reference_walk import ReferenceWalk

ROOT = FIRST_FRAME << 12
REFUSALS = {1: "not present", 2: "reserved bit", 3: "denied", 4: "not canonical"}


class Probe:
    """Our walker, in its own process: one table and its requests in, the answers and the table's new image out."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def walk(self, image, requests):
        flat = [value for request in requests for value in request]
        head = struct.pack("<4Q", FIRST_FRAME, FRAME_COUNT, FIRST_FRAME, len(requests))
        self.process.stdin.write(head + image + struct.pack("<%dQ" % len(flat), *flat))
        self.process.stdin.flush()
        answers = struct.unpack("<%dQ" % (3 * len(requests)), self._read(24 * len(requests)))
        return list(zip(answers[::3], answers[1::3], answers[2::3])), self._read(len(image))

    def _read(self, count):
        data = self.process.stdout.read(count)
        if len(data) != count:
            raise RuntimeError("the probe ended early, status %s" % self.process.wait())
        return data

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(reference, probe, table, requests, report):
    """Disagreements over one table, and what its requests met (for the coverage line)."""
    reference.install(ROOT, table.image)
    expected = [reference.translate(ROOT, address, access) for address, access in requests]
    reference.install(ROOT, table.image)
    for (address, access), physical in zip(requests, expected):
        if physical is not None:
            reference.translate(ROOT, address, access)
    answers, image = probe.walk(table.image, requests)
    disagreements, met = 0, []
    for (address, access), physical, (status, ours, level) in zip(requests, expected, answers):
        met.append((status, level))
        if (ours if status == 0 else None) != physical:
            disagreements += 1
            answer = "PA %#x" % ours if status == 0 else "refused (%s)" % REFUSALS[status]
            truth = "refused" if physical is None else "PA %#x" % physical
            report("address %#018x access %s: reference %s, ours %s at level %d"
                   % (address, ("read", "write", "execute")[access], truth, answer, level))
    expected_image = reference.image(ROOT, BYTE_COUNT)
    if image != expected_image:
        for offset in range(0, BYTE_COUNT, 8):
            if image[offset:offset + 8] != expected_image[offset:offset + 8]:
                disagreements += 1
                report("entry %d of frame %#x: reference %s, ours %s" % (
                    offset % 4096 // 8, FIRST_FRAME + offset // 4096,
                    expected_image[offset:offset + 8][::-1].hex(), image[offset:offset + 8][::-1].hex()))
    return disagreements, met


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("probe")
    parser.add_argument("--tables", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--stop-after", type=int, default=10, help="disagreements to print before giving up")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000_007
    print("page walk against unicorn: seed %d" % seed, flush=True)
    source = random.Random(seed)
    reference = ReferenceWalk(ROOT + BYTE_COUNT + 0x1000)
    probe = Probe(options.probe)
    per_table, began = -(-options.requests // options.tables), time.monotonic()
    tables_done = requests_done = disagreements = 0
    met_counts = {}
    while tables_done < options.tables and disagreements < options.stop_after:
        table = RandomTable(source)
        requests = [(table.address(), source.choice((0, 0, 1, 1, 2))) for _ in range(per_table)]
        found, met = compare(
            reference, probe, table, requests, lambda text: print("table %d: %s" % (tables_done, text)))
        tables_done += 1
        requests_done += per_table
        disagreements += found
        for key in met:
            met_counts[key] = met_counts.get(key, 0) + 1
    probe.close()
    names = {0: "allowed", **REFUSALS}
    print("met: " + ", ".join("%s at level %d: %d" % (names[status], level, count)
                              for (status, level), count in sorted(met_counts.items())))
    print("%d requests over %d tables, %d disagreements, %.1f s"
          % (requests_done, tables_done, disagreements, time.monotonic() - began))
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
