# SPDX-License-Identifier: Apache-2.0
"""One function for each goal. Each answers (figure as text, whether the goal is reached, detail as text)."""
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import tempfile

from processes import CLIENT_CORE, Nghttpd, Service, h2load, median
from raw_http2 import Connection, envelope, head

TRANSLATE = "DeviceService/Translate"


def translate_body(machine, device, page=0):
    return json.dumps({"machine": machine, "device": device, "translate": {
        "tag": 1, "pasid": 5, "address": hex(0x100000 + 4096 * page)}}, separators=(",", ":")).encode()


def resident_lab(service, pages=1):
    machine, space, device = service.lab(pages)
    service.make_resident(machine, device, pages)
    answer = service.call(TRANSLATE, machine=machine, device=device,
                          translate={"tag": 1, "pasid": 5, "address": "0x100000"})["translation"]
    if not answer.get("physicalAddress"):
        raise RuntimeError("the page under measurement is not resident: %r" % answer)
    return machine, device


def unary(binary, rounds, requests, clients, streams):
    """Server CPU in microseconds for each request: the service and nghttpd, interleaved."""
    service, peer = Service(binary), Nghttpd()
    try:
        machine, device = resident_lab(service)
        body = translate_body(machine, device)
        before = service.counters(machine).get("translations", 0)
        ours, theirs = [], []
        for number in range(rounds + 1):
            for server, url, samples in ((service, service.url + TRANSLATE, ours), (peer, peer.url, theirs)):
                began = server.cpu_nanoseconds()
                h2load(url, body, requests, clients, streams)
                if number > 0:  # the first round warms both
                    samples.append((server.cpu_nanoseconds() - began) / requests / 1000)
        answered = service.counters(machine)["translations"] - before
        if answered != requests * (rounds + 1):
            raise RuntimeError("%d translations for %d requests" % (answered, requests * (rounds + 1)))
        return ours, theirs
    finally:
        service.stop()
        peer.stop()


def ratio_to_peer(binary, rounds, requests, clients, streams, goal):
    ours, theirs = unary(binary, rounds, requests, clients, streams)
    ratios = [a / b for a, b in zip(ours, theirs)]
    return ("%.2f" % median(ratios), median(ratios) <= goal,
            "%.2f us to nghttpd's %.2f us; ratios of %d rounds %.2f to %.2f"
            % (median(ours), median(theirs), rounds, min(ratios), max(ratios)))


def p1(options):
    return ratio_to_peer(options.binary, options.rounds, 200_000 // options.scale, 8, 100, 0.75)


def p2(options):
    return ratio_to_peer(options.binary, options.rounds, 20_000 // options.scale, 1, 1, 1.15)


class Attach:
    """An `Attach` stream whose batches are made beforehand, so that the server is what is measured."""

    def __init__(self, service, machine, device):
        self.connection = Connection(service.address)
        hello = envelope(json.dumps({"hello": {"machine": machine, "device": device}}))
        self.connection.open(head(service.address, "/iommulab.v1.DeviceService/Attach", "application/connect+json"), hello)

    def run(self, batches, answers_per_batch, marker, in_flight):
        """Sends all batches with at most `in_flight` unanswered; the answers that came."""
        seen, sent, tail = 0, 0, b""
        while seen < len(batches) * answers_per_batch:
            while sent < len(batches) and sent - seen // answers_per_batch < in_flight:
                self.connection.send(batches[sent])
                sent += 1
            data = tail + self.connection.receive()
            if b'"refused"' in data or b'"ignored"' in data or b'"error"' in data:
                raise RuntimeError("a message was refused: %r" % data[:400])
            seen += data.count(marker)
            tail = data[-(len(marker) - 1):]
        return seen


def batch(kind, messages):
    return envelope(json.dumps({"messages": [{kind: message} for message in messages]}, separators=(",", ":")))


def attach_rate(options, lab, batches, per_batch, marker, in_flight, counter):
    service = Service(options.binary)
    try:
        os.sched_setaffinity(0, {int(CLIENT_CORE)})
        machine, device = lab(service)
        attach = Attach(service, machine, device)
        attach.run(batches[:20], per_batch, marker, in_flight)
        rates, share = [], len(batches[20:]) // options.rounds
        for number in range(options.rounds):
            part = batches[20 + number * share:20 + (number + 1) * share]
            before, began = service.counters(machine), service.cpu_nanoseconds()
            attach.run(part, per_batch, marker, in_flight)
            spent, after = service.cpu_nanoseconds() - began, service.counters(machine)
            if after[counter] - before.get(counter, 0) != len(part) * per_batch:
                raise RuntimeError("%s rose by %d, not %d" % (counter, after[counter] - before.get(counter, 0), len(part) * per_batch))
            rates.append(len(part) * per_batch / spent * 1000)
        return rates
    finally:
        service.stop()


def p4(options):
    per_batch, pages = 512, 1024
    requests = [{"tag": tag, "pasid": 5, "address": hex(0x100000 + 4096 * (tag * 7 % pages))} for tag in range(pages)]
    one = [batch("translate", requests[first:first + per_batch]) for first in range(0, pages, per_batch)]
    rates = attach_rate(options, lambda service: resident_lab(service, pages), one * (1200 // options.scale), per_batch,
                        b'"translation":', 4, "translations")
    return ("%.2f M/s" % median(rates), median(rates) >= 2.5,
            "JSON, %d a message; %.2f to %.2f M/s" % (per_batch, min(rates), max(rates)))


def p5(options):
    per_batch, cycles = 256, 160_000 // options.scale

    def lab(service):
        machine, space, _ = service.lab(
            cycles + 8192, frameCount=1 << 19, costs={"preset": "COST_PRESET_ZERO"}, pageRequestQueueCapacity=512)
        return machine, service.device(machine, space, 16, priAllocation=512)

    batches = []
    for number in range(20 + cycles // per_batch):
        first = number * per_batch
        batches.append(batch("pageRequest", [
            {"pasid": 5, "address": hex(0x100000 + 4096 * (first + index)), "read": True, "write": True,
             "groupIndex": number % 2 * per_batch + index, "last": True} for index in range(per_batch)]))
    rates = attach_rate(options, lab, batches, per_batch, b'"pageResponse":', 2, "neededFaults")
    return ("%.2f M/s" % median(rates), median(rates) >= 1,
            "JSON, %d a message, each on a new page; %.2f to %.2f M/s" % (per_batch, min(rates), max(rates)))


def p6(options):
    """No modelled durations and no hold: what is left is the wire and the processes. Dilation 1 keeps the time-outs."""
    run = subprocess.run(
        [options.binary, "storm", "--json", "--strategies", "invalidate-range", "--dilation", "1", "--costs", "zero",
         "--hold", "0"],
        capture_output=True, text=True)
    if run.returncode not in (0, 1):
        raise RuntimeError("the storm ended with %d: %s" % (run.returncode, run.stderr[-400:]))
    result = json.loads(run.stdout)
    strategy = result["strategies"][0]
    rate = strategy["pageRequests"] / strategy["seconds"]
    return ("%.1f k/s" % (rate / 1000), rate >= 110_000,
            "%d faults in %.1f s, with them %.0f k accesses/s; %d device processes, 16 handler workers, service time 0, "
            "everything on the same cores" % (strategy["pageRequests"], strategy["seconds"],
                                              strategy["accesses"] / strategy["seconds"] / 1000, result["deviceProcesses"]))


def p8(options):
    streams = 400
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    service, peer, open_connections = Service(options.binary), Nghttpd(), []
    try:
        machine, space, _ = service.lab()
        devices = [service.call("DeviceService/RegisterDevice", machine=machine, rid=16 + number)["device"]
                   for number in range(streams + 20)]

        def ours(number):
            connection = Connection(service.address)
            connection.open(
                head(service.address, "/iommulab.v1.DeviceService/Attach", "application/connect+json"),
                envelope(json.dumps({"hello": {"machine": machine, "device": devices[number]}})))
            while not connection.receive():  # the first answer comes at once
                continue
            return connection

        def theirs(_):
            connection = Connection(peer.address)
            connection.open(head(peer.address, "/answer", "application/json"))
            connection.receive()
            return connection

        figures = []
        for server, make in ((service, ours), (peer, theirs)):
            open_connections += [make(number) for number in range(20)]
            before = server.resident_bytes()
            open_connections += [make(20 + number) for number in range(streams)]
            figures.append((server.resident_bytes() - before) / streams / 1024)
        for connection in open_connections:
            connection.close()
        ratio = figures[0] / figures[1]
        return ("%.2f" % ratio, ratio <= 1, "%.1f KB to nghttpd's %.1f KB over %d streams" % (*figures, streams))
    finally:
        service.stop()
        peer.stop()


def allocations_per_request(options, folder):
    library, counted = pathlib.Path(folder) / "malloc_count.so", pathlib.Path(folder) / "count"
    subprocess.run(["clang", "-O2", "-shared", "-fPIC", "-o", library,
                    pathlib.Path(__file__).with_name("malloc_count.c"), "-ldl"], check=True)
    service = Service(options.binary, ("env", "LD_PRELOAD=%s" % library), {"MALLOC_COUNT_FILE": str(counted)})

    def count():
        counted.unlink(missing_ok=True)
        os.kill(service.pid, signal.SIGUSR1)
        while not counted.exists() or not counted.read_text().endswith("\n"):
            continue
        return int(counted.read_text())

    try:
        machine, device = resident_lab(service)
        body, samples = translate_body(machine, device), []
        h2load(service.url + TRANSLATE, body, 20_000, 8, 100)
        for requests in (10_000, 30_000):
            before = count()
            h2load(service.url + TRANSLATE, body, requests, 8, 100)
            samples.append(count() - before)
        return (samples[1] - samples[0]) / 20_000
    finally:
        service.stop()


def instructions_per_request(options, folder):
    stripped = pathlib.Path(folder) / "service"
    shutil.copy(options.counted_service, stripped)
    subprocess.run(["strip", "--strip-debug", stripped], check=True)
    totals = []
    for requests in (2000, 8000):
        out = pathlib.Path(folder) / ("callgrind.%d" % requests)
        service = Service(stripped, ("valgrind", "--quiet", "--tool=callgrind", "--callgrind-out-file=%s" % out))
        try:
            machine, device = resident_lab(service)
            h2load(service.url + TRANSLATE, translate_body(machine, device), requests, 8, 100)
        finally:
            service.stop()
        totals.append(int(re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.M).group(1)))
    return (totals[1] - totals[0]) / 6000


def p9(options):
    with tempfile.TemporaryDirectory() as folder:
        allocations = allocations_per_request(options, folder)
        instructions = instructions_per_request(options, folder)
    return ("%.2f / %.1f k" % (allocations, instructions / 1000), allocations < 0.005 and instructions <= 15_000,
            "malloc, calloc, realloc by preload; instructions by callgrind, difference of two run lengths")


def p11(options):
    output = subprocess.run(["taskset", "-c", CLIENT_CORE, options.machine_bench, str(2 * options.rounds + 1)],
                            capture_output=True, text=True, check=True).stdout
    figures = {line.split()[0]: [float(word) for word in line.split()[1:]] for line in output.splitlines()}
    hit, walk = 1000 / figures["batch_hit_ns"][0], 1000 / figures["batch_walk_ns"][0]
    if min(figures["granted_warm"][0], figures["granted_cold"][0]) < 1:
        raise RuntimeError("a translation was not granted: %s" % figures)
    return ("%.1f / %.1f M/s" % (hit, walk), hit >= 30 and walk >= 9,
            "in batches of 64, as Attach performs them: %.0f ns a hit (hit ratio %.3f), %.0f ns a walk (%.3f); one by "
            "one %.0f and %.0f ns; a pointer chase of depth 1 %.1f ns, of depth 4 %.1f ns: %.0f and %.0f times"
            % (figures["batch_hit_ns"][0], figures["hit_ratio_warm"][0], figures["batch_walk_ns"][0],
               figures["hit_ratio_cold"][0], figures["hit_ns"][0], figures["walk_ns"][0],
               figures["chase1_ns"][0], figures["chase4_ns"][0],
               figures["batch_hit_ns"][0] / figures["chase1_ns"][0],
               figures["batch_walk_ns"][0] / figures["chase4_ns"][0]))


FIGURES = {
    "P1": (p1, "unary Translate, -c 8 -m 100, CPU to nghttpd's", "<= 0.75"),
    "P2": (p2, "the same, -c 1 -m 1", "<= 1.15"),
    "P4": (p4, "translations over one Attach stream, per server core", ">= 2.5 M/s"),
    "P5": (p5, "page-request cycles over Attach, per server core", ">= 1 M/s"),
    "P6": (p6, "storm with device processes, faults", ">= 110 k/s"),
    "P8": (p8, "memory of an idle device stream, to nghttpd's", "<= 1.0"),
    "P9": (p9, "allocations / instructions of a unary request", "0 / <= 15 k"),
    "P11": (p11, "translation in the machine, IOTLB hit / walk", ">= 30 / >= 9 M/s"),
}
