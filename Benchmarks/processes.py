# SPDX-License-Identifier: Apache-2.0
"""Servers under measurement, their CPU time, and the load tools beside them. Server on core 0, client on core 1."""
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[1]
SERVER_CORE, CLIENT_CORE = "0", "1" if (os.cpu_count() or 1) > 1 else "0"


class Server:
    """A process whose CPU time and memory are read from /proc."""

    def __init__(self, arguments, **more):
        self.process = subprocess.Popen(["taskset", "-c", SERVER_CORE, *map(str, arguments)], **more)

    @property
    def pid(self):
        return self.process.pid

    def cpu_nanoseconds(self):
        total = 0
        for task in pathlib.Path("/proc/%d/task" % self.pid).iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total

    def resident_bytes(self):
        status = pathlib.Path("/proc/%d/status" % self.pid).read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024

    def stop(self):
        self.process.terminate()
        self.process.wait()


class Service(Server):
    """`iommulab serve` on a free loopback port."""

    def __init__(self, binary, prefix=(), environment=None, loops=1):
        arguments = [*prefix, binary, "serve", "--listen", "127.0.0.1:0", "--json", "--loops", loops]
        super().__init__(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                         env={**os.environ, **(environment or {})})
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the service ended before it was ready: %s" % arguments)
        self.address = json.loads(line)["listen"][0]
        self.url = "http://%s/iommulab.v1." % self.address

    def call(self, method, **message):
        answer = subprocess.run(
            ["curl", "--silent", "--show-error", "--http2-prior-knowledge", "--max-time", "60", "--header",
             "content-type: application/json", "--data", json.dumps(message), self.url + method],
            capture_output=True, text=True, check=True).stdout
        reply = json.loads(answer)
        if "code" in reply:
            raise RuntimeError("%s refused: %s" % (method, answer))
        return reply

    def lab(self, pages=1, **settings):
        """A machine with a device whose PASID 5 shares an address space with resident pages from 0x100000 on."""
        machine = self.call("MachineService/CreateMachine", settings=settings)["machine"]["machine"]
        space = self.call("AddressSpaceService/CreateAddressSpace", machine=machine)["addressSpace"]
        self.call("AddressSpaceService/Mmap", machine=machine, addressSpace=space, address="0x100000",
                  byteCount=hex(4096 * pages), read=True, write=True)
        device = self.device(machine, space, 8)
        return machine, space, device

    def device(self, machine, space, rid, **more):
        device = self.call("DeviceService/RegisterDevice", machine=machine, rid=rid, **more)["device"]
        self.call("DeviceService/BindPasid", machine=machine, device=device, pasid=5,
                  sva={"addressSpace": space, "strategy": "invalidate-range"})
        return device

    def make_resident(self, machine, device, pages):
        for first in range(0, pages, 32):
            requests = [{"pasid": 5, "address": hex(0x100000 + 4096 * page), "read": True, "write": True,
                         "groupIndex": page % 32, "last": True} for page in range(first, min(pages, first + 32))]
            self.call("DeviceService/RequestPages", machine=machine, device=device, pageRequests=requests)

    def counters(self, machine):
        statistics = self.call("MachineService/GetStatistics", machine=machine)["statistics"]
        return {name: int(value) for name, value in statistics.get("counters", {}).items()}


class Nghttpd(Server):
    """The peer: nghttpd with one static file of 75 bytes."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        (pathlib.Path(self.folder.name) / "answer").write_text("x" * 75)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        super().__init__(["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", self.folder.name, port],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.address = "127.0.0.1:%d" % port
        self.url = "http://%s/answer" % self.address
        while True:  # it says nothing when it is ready; it is as soon as a connection is taken
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    raise RuntimeError("nghttpd ended")

    def stop(self):
        super().stop()
        self.folder.cleanup()


def h2load(url, body, requests, clients, streams):
    """One run; the number of answers with status 200. Raises when any request failed."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        output = subprocess.run(
            ["taskset", "-c", CLIENT_CORE, "h2load", "-n", str(requests), "-c", str(clients), "-m", str(streams),
             "-d", file.name, "-H", "content-type: application/json", url],
            capture_output=True, text=True, check=True).stdout
    good = int(re.search(r"(\d+) 2xx", output).group(1))
    if good != requests:
        raise RuntimeError("%d of %d requests to %s were answered with 2xx" % (good, requests, urllib.parse.unquote(url)))
    return good


def median(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
