# SPDX-License-Identifier: Apache-2.0
"""Bad input against the real binary: each case gets a clear error or a clean close, and changes nothing.

    scripts/with-service BINARY python3 Tests/hostile/hostile_input.py

After every case the state hash of a MANUAL machine is what it was, and the service is healthy in the same process.
"""
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import urllib.parse

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "Benchmarks"))
from raw_http2 import DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, frame, head  # noqa: E402

URL = os.environ["IOMMULAB_URL"]
ADDRESS = urllib.parse.urlsplit(URL).netloc
HOST, PORT = ADDRESS.rsplit(":", 1)
PATIENCE = 20  # seconds after which a connection that should have ended has failed the case
RST_STREAM = 3


def request(path, body, *options, content_type="application/json"):
    """(HTTP status, decoded JSON or None)."""
    output = subprocess.run(
        ["curl", "--silent", "--http2-prior-knowledge", "--max-time", str(PATIENCE), "--header",
         "content-type: " + content_type, "--header", "expect:", "--data-binary", "@-", "--write-out", "\n%{http_code}",
         *options, URL + path],
        input=body, capture_output=True).stdout
    text, _, status = output.rpartition(b"\n")
    try:
        return int(status), json.loads(text)
    except ValueError:
        return int(status), None


def call(method, **message):
    status, reply = request("/iommulab.v1." + method, json.dumps(message).encode())
    if status != 200:
        raise RuntimeError("%s: %d %s" % (method, status, reply))
    return reply


class Lab:
    """A MANUAL machine with an area, a device with PASID 5, and one page requested."""

    def __init__(self):
        self.machine = call("MachineService/CreateMachine", pacing="PACING_MANUAL",
                            settings={"costs": {"preset": "COST_PRESET_ZERO"}})["machine"]["machine"]
        self.space = call("AddressSpaceService/CreateAddressSpace", machine=self.machine)["addressSpace"]
        call("AddressSpaceService/Mmap", machine=self.machine, addressSpace=self.space, address="0x100000",
             byteCount="0x4000", read=True, write=True, startOnly=True)
        call("MachineService/Advance", machine=self.machine, maxTurns=1000)
        self.device = call("DeviceService/RegisterDevice", machine=self.machine, rid=8)["device"]
        call("DeviceService/BindPasid", machine=self.machine, device=self.device, pasid=5,
             sva={"addressSpace": self.space, "strategy": "invalidate-range"})

    def hash(self):
        return call("MachineService/GetStateHash", machine=self.machine)["stateHash"]


LAB = Lab()


def refused(status, code, *words):
    """The check of a case that is one call: HTTP status, Connect code, and words of the whole answer."""
    def check(answer):
        got, reply = answer
        text = json.dumps(reply)
        if got != status or not isinstance(reply, dict) or (code and reply.get("code") != code):
            return "%s %s, expected %d %s" % (got, text, status, code)
        missing = [word for word in words if word not in text]
        return "%s lacks %s" % (text, missing) if missing else None
    return check


def translate(**change):
    message = {"machine": LAB.machine, "device": LAB.device,
               "translate": {"tag": 1, "pasid": 5, "address": "0x100000", **change.pop("translate", {})}, **change}
    return request("/iommulab.v1.DeviceService/Translate", json.dumps(message).encode())


def munmap(**change):
    message = {"machine": LAB.machine, "addressSpace": LAB.space, "address": "0x100000", "byteCount": "0x1000", **change}
    return request("/iommulab.v1.AddressSpaceService/Munmap", json.dumps(message).encode())


def raw_body(body, **more):
    return request("/iommulab.v1.DeviceService/Translate", body, **more)


GOOD = json.dumps({"machine": LAB.machine, "device": LAB.device,
                   "translate": {"tag": 1, "pasid": 5, "address": "0x100000"}}).encode()
BAD = "invalid_argument"
CALLS = {
    "unknown field": (lambda: translate(colour="red"), refused(400, BAD, "colour")),
    "unknown field inside a message": (lambda: translate(translate={"colour": 1}), refused(400, BAD, "colour")),
    "decimal address": (lambda: translate(translate={"address": "4096"}), refused(400, BAD, "0x1000", "address")),
    "address as a number": (lambda: translate(translate={"address": 4096}), refused(400, BAD)),
    "overlong address": (lambda: translate(translate={"address": "0x1" + "0" * 16}), refused(400, BAD, "address")),
    "address with a space": (lambda: translate(translate={"address": "0x10 00"}), refused(400, BAD, "address")),
    "empty address": (lambda: translate(translate={"address": ""}), refused(400, BAD, "address")),
    "unaligned address": (lambda: translate(translate={"address": "0x100001"}), refused(400, BAD, "address")),
    "unaligned range": (lambda: munmap(address="0x100800"), refused(400, BAD, "address")),
    "empty range": (lambda: munmap(byteCount="0x0"), refused(400, BAD, "byteCount")),
    "range that wraps": (lambda: munmap(address="0xfffffffffffff000", byteCount="0x2000"), refused(400, None)),
    "PASID of 21 bits": (lambda: translate(translate={"pasid": 1 << 20}), refused(400, BAD, "pasid")),
    "negative PASID": (lambda: translate(translate={"pasid": -1}), refused(400, BAD)),
    "unknown machine": (lambda: translate(machine="m-00000000000000000000000000000000"), refused(404, "not_found", "machine")),
    "garbage machine": (lambda: translate(machine="../../etc"), refused(404, "not_found", "machine")),
    "unknown device": (lambda: translate(device="d-ffffffff"), refused(404, "not_found", "device")),
    "PASID bound twice": (
        lambda: request("/iommulab.v1.DeviceService/BindPasid", json.dumps({
            "machine": LAB.machine, "device": LAB.device, "pasid": 5,
            "sva": {"addressSpace": LAB.space, "strategy": "invalidate-range"}}).encode()),
        lambda answer: None if answer[0] in (400, 409) and answer[1].get("code") else str(answer)),
    "unknown strategy": (
        lambda: request("/iommulab.v1.DeviceService/BindPasid", json.dumps({
            "machine": LAB.machine, "device": LAB.device, "pasid": 6,
            "sva": {"addressSpace": LAB.space, "strategy": "hope"}}).encode()), refused(400, BAD, "strategy")),
    "page-request queue beyond what a group can count": (
        lambda: request("/iommulab.v1.MachineService/CreateMachine",
                        b'{"settings":{"pageRequestQueueCapacity":65536}}'), refused(400, BAD, "pageRequestQueueCapacity")),
    "clock that runs backwards": (
        lambda: request("/iommulab.v1.MachineService/Advance", json.dumps({"machine": LAB.machine}).encode()),
        refused(400, None)),
    "truncated JSON": (lambda: raw_body(GOOD[:-3]), refused(400, BAD)),
    "empty body": (lambda: raw_body(b""), refused(400, None)),
    "text after the JSON": (lambda: raw_body(GOOD + b"{}"), refused(400, BAD)),
    "array instead of a message": (lambda: raw_body(b"[]"), refused(400, BAD)),
    "nesting without end": (lambda: raw_body(b"[" * 200_000), refused(400, BAD)),
    "nesting in an unknown field": (lambda: raw_body(b'{"x":' * 50_000 + b"1" + b"}" * 50_000), refused(400, BAD)),
    "bytes that are no UTF-8": (lambda: raw_body(b'{"machine":"\xff\xfe"}'), refused(400, BAD)),
    "a NUL in a string": (lambda: raw_body(b'{"machine":"a\x00b"}'), refused(400, BAD)),
    "random bytes as protobuf": (
        lambda: raw_body(bytes(range(256)), content_type="application/proto"), refused(400, BAD)),
    "oversized body": (
        lambda: raw_body(b'{"machine":"' + b"a" * (2 << 20) + b'"}'), refused(429, "resource_exhausted")),
    "wrong content type": (
        lambda: raw_body(GOOD, content_type="text/plain"), lambda answer: None if answer[0] == 415 else str(answer)),
    "unknown method": (
        lambda: request("/iommulab.v1.DeviceService/Explode", b"{}"), lambda answer: None if answer[0] in (404, 501) else str(answer)),
    "unknown path": (lambda: request("/", b"{}"), lambda answer: None if answer[0] == 404 else str(answer)),
    "unknown compression": (
        lambda: request("/iommulab.v1.DeviceService/Translate", GOOD, "--header", "content-encoding: zstd"),
        lambda answer: None if answer[0] in (400, 404, 415, 501) else str(answer)),
    "deadline that is no number": (
        lambda: request("/iommulab.v1.DeviceService/Translate", GOOD, "--header", "connect-timeout-ms: soon"),
        refused(400, BAD)),
}


def connect():
    connection = socket.create_connection((HOST, int(PORT)))
    connection.settimeout(PATIENCE)
    return connection


def ends(connection):
    """None when the server closes within the patience, whatever it says before."""
    try:
        while connection.recv(65536):
            continue
    except ConnectionResetError:
        return None
    except TimeoutError:
        return "the connection was still open after %d s" % PATIENCE
    finally:
        connection.close()
    return None


def sent(*pieces):
    def case():
        connection = connect()
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return None
        return ends(connection)
    return case


def killed(*pieces):
    """A client that dies: its kernel answers with a reset."""
    def case():
        connection = connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for piece in pieces:
            connection.sendall(piece)
        connection.close()
        return None
    return case


START = PREFACE + frame(SETTINGS, 0, 0)
TRANSLATE_HEAD = head(ADDRESS, "/iommulab.v1.DeviceService/Translate", "application/json")
ATTACH_HEAD = head(ADDRESS, "/iommulab.v1.DeviceService/Attach", "application/connect+json")
FLOOD = b"".join(frame(HEADERS, END_HEADERS, 2 * number + 1, TRANSLATE_HEAD)
                 + frame(RST_STREAM, 0, 2 * number + 1, struct.pack(">I", 8)) for number in range(5000))
CONNECTIONS = {
    "half a preface": sent(PREFACE[:11]),
    "a preface of another protocol": sent(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 4),
    "noise after the preface": sent(PREFACE + bytes(range(256)) * 4),
    "a frame that is too long": sent(START + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
    "DATA on stream 0": sent(START + frame(DATA, 0, 0, b"x")),
    "DATA on an idle stream": sent(START + frame(DATA, 0, 7, b"x")),
    "HPACK that points nowhere": sent(START + frame(HEADERS, END_HEADERS | 1, 1, b"\xff\xff\xff\xff\x0f")),
    "SETTINGS of five bytes": sent(START + frame(SETTINGS, 0, 0, b"12345")),
    "an even stream": sent(START + frame(HEADERS, END_HEADERS, 2, TRANSLATE_HEAD)),
    "a client killed in its preface": killed(PREFACE[:5]),
    "a client killed in a frame": killed(START + frame(HEADERS, END_HEADERS, 1, TRANSLATE_HEAD)[:20]),
    "a client killed before its body": killed(START + frame(HEADERS, END_HEADERS, 1, TRANSLATE_HEAD)),
    "a client killed in its body": killed(
        START + frame(HEADERS, END_HEADERS, 1, TRANSLATE_HEAD) + frame(DATA, 0, 1, GOOD[:20])),
    "a client killed before its hello": killed(START + frame(HEADERS, END_HEADERS, 1, ATTACH_HEAD)),
    "a client killed in its hello": killed(
        START + frame(HEADERS, END_HEADERS, 1, ATTACH_HEAD) + frame(DATA, 0, 1, b"\x00\x00\x00\x10\x00{\"hello\"")),
    "a flood of opened and reset streams": killed(START, FLOOD),
}


def main():
    passed, failed = 0, []
    cases = {name: (lambda run=run, check=check: check(run())) for name, (run, check) in CALLS.items()}
    cases.update(CONNECTIONS)
    before = LAB.hash()
    for name, case in cases.items():
        try:
            problem = case()
            if LAB.hash() != before:
                problem, before = "%s; the state hash changed" % problem, LAB.hash()
            if request("/healthz", b"", "--get")[0] != 200:
                problem = "%s; the service is not healthy" % problem
            os.kill(int(os.environ["IOMMULAB_PID"]), 0)
        except Exception as error:  # a case that breaks is a failed case, and the rest still runs
            problem = "%s: %s" % (type(error).__name__, error)
        if problem:
            failed.append(name)
            print("hostile input: %s: FAILED: %s" % (name, problem), flush=True)
        else:
            passed += 1
    print("hostile input: %d cases passed, %d failed" % (passed, len(failed)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
