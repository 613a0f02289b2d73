# SPDX-License-Identifier: Apache-2.0
"""Just enough HTTP/2 by hand to open streams that stay open: many idle ones, or one that sends a long body."""
import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header without indexing and without Huffman (RFC 7541, 6.2.2)."""
    name, value = name.encode(), value.encode()
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


def head(address, path, content_type, *more):
    fields = [(":method", "POST"), (":scheme", "http"), (":authority", address), (":path", path),
              ("content-type", content_type), *more]
    return b"".join(literal(name, value) for name, value in fields)


def envelope(text):
    """A Connect streaming message: flags, length, JSON."""
    data = text.encode()
    return b"\x00" + struct.pack(">I", len(data)) + data


class Connection:
    def __init__(self, address, window=1 << 30):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.waiting = b""
        settings = struct.pack(">HI", 4, window)  # INITIAL_WINDOW_SIZE
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings)
                            + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", window)))
        self.credit, self.stream_credit, self.initial = 65535, 65535, 65535

    def open(self, header_block, body=b"", end=False):
        """Opens stream 1 with a body that fits the first window."""
        data = frame(HEADERS, END_HEADERS, 1, header_block)
        if body:
            data += frame(DATA, END_STREAM if end else 0, 1, body)
            self.credit -= len(body)
            self.stream_credit -= len(body)
        self.socket.sendall(data)

    def send(self, body):
        """Sends DATA on stream 1 as the windows allow."""
        view, position = memoryview(body), 0
        while position < len(view):
            count = min(16384, len(view) - position, self.credit, self.stream_credit)
            if count <= 0:
                self.waiting += self._take()
                continue
            self.socket.sendall(frame(DATA, 0, 1, bytes(view[position:position + count])))
            position += count
            self.credit -= count
            self.stream_credit -= count

    def receive(self):
        """The DATA of stream 1 that came since the last call; blocks when nothing has, and may then answer b""."""
        taken, self.waiting = self.waiting or self._take(), b""
        return taken

    def _take(self):
        received = self.socket.recv(1 << 18)
        if not received:
            raise ConnectionError("the server closed the connection")
        self.buffer += received
        taken, data, position = [], self.buffer, 0
        while len(data) - position >= 9:
            length = int.from_bytes(data[position:position + 3], "big")
            if len(data) - position < 9 + length:
                break
            kind, flags = data[position + 3], data[position + 4]
            stream = int.from_bytes(data[position + 5:position + 9], "big")
            payload = data[position + 9:position + 9 + length]
            position += 9 + length
            if kind == DATA:
                taken.append(payload)
            elif kind == WINDOW_UPDATE:
                more = int.from_bytes(payload, "big")
                if stream == 0:
                    self.credit += more
                else:
                    self.stream_credit += more
            elif kind == SETTINGS and not flags & ACK:
                for offset in range(0, length, 6):
                    identifier, value = struct.unpack(">HI", payload[offset:offset + 6])
                    if identifier == 4:
                        self.stream_credit += value - self.initial
                        self.initial = value
                self.socket.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                self.socket.sendall(frame(PING, ACK, 0, payload))
            elif kind in (3, 7):
                raise ConnectionError("the server ended the stream: frame %d %r" % (kind, payload))
        self.buffer = data[position:]
        return b"".join(taken)

    def close(self):
        self.socket.close()
