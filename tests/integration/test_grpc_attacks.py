"""Attacks on a server in a process of its own: whatever a peer does, the process stays small and serves the others."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ketch.http2 import frames
from ketch.http2.compression import encode
from ketch.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    SETTINGS,
    frame,
)
from ketch.transports.grpc import GrpcTransport

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")

PROTOBUF = "application/protobuf"
MIB = 1024 * 1024
HELLO = PREFACE + frames.settings([])
WIDE = PREFACE + frames.settings([(4, 2**31 - 1)]) + frames.window_update(0, 2**31 - 65_536)
SHUT = PREFACE + frames.settings([(4, 0)])
SERVER = """
import asyncio, logging, sys
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

async def echo(request):
    return request.body

async def big(request):
    return b"x" * 4_000_000

async def chat(request, stream):
    while (body := await stream.receive()) is not None:
        await stream.send(body)

async def main():
    logging.disable()
    routes = {"/t/Echo": Route(unary=echo), "/t/Big": Route(unary=big), "/t/Chat": Route(stream=chat)}
    listener = await GrpcTransport().listen("127.0.0.1:0", routes)
    print(listener.address, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await listener.stop(0)

asyncio.run(main())
"""


class Server:
    """The process, and how large it is."""

    def __init__(self, process):
        self._process = process
        self.address = process.stdout.readline().strip()
        host, port = self.address.split(":")
        self.endpoint = host, int(port)

    @property
    def size(self):
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def serves(self):
        """Make a call as anybody else would."""
        channel = GrpcTransport().connect(self.address)
        try:
            for _ in range(3):
                assert await channel.unary("/t/Echo", b"fine", content_type=PROTOBUF, timeout=30) == b"fine"
        finally:
            await channel.close()


@pytest.fixture
def server():
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Server(process)
        process.stdin.close()
        process.wait(10)


def request(stream_id, path="/t/Echo", *extra, end=False):
    pairs = [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc"), *extra]
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, encode(pairs))


def message(stream_id, body=b""):
    return frame(DATA, END_STREAM, stream_id, b"\0" + len(body).to_bytes(4) + body)


def ids(count):
    return range(1, 2 * count + 1, 2)


def each(count, make):
    return b"".join(make(stream_id) for stream_id in ids(count))


def bomb(stream_id):
    """Two bytes for each 4,000 of the table."""
    stored = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000
    return frame(
        HEADERS, END_HEADERS | END_STREAM, stream_id, encode([(":method", "POST")]) + stored + b"\xbe" * 12_000
    )


def malformed_window(stream_id):
    return request(stream_id, "/t/Chat") + frames.window_update(stream_id, 0)


def cut_message(stream_id):
    """A message of 4 MB of which 100 KB come."""
    start = b"\0" + (4_000_000).to_bytes(4) + bytes(16_000)
    return request(stream_id) + frame(DATA, 0, stream_id, start) + frame(DATA, 0, stream_id, bytes(16_000)) * 5


#: What each sends, and the code of the GOAWAY that ends it, None where the connection goes on.
ATTACKS = {
    "rapid reset (CVE-2023-44487)": (
        HELLO + each(20_000, lambda number: request(number, "/t/Chat") + frames.rst_stream(number, 8)),
        11,
    ),
    "made to reset by windows (CVE-2025-8671)": (HELLO + each(20_000, malformed_window), 11),
    "made to reset by DATA after the end": (
        HELLO + each(20_000, lambda number: request(number, "/t/Chat", end=True) + frame(DATA, 0, number, b"x")),
        11,
    ),
    "more streams than allowed": (HELLO + each(50_000, lambda number: request(number, "/t/Chat")), 11),
    "CONTINUATION without end (CVE-2024-27316)": (
        HELLO + frame(HEADERS, 0, 1, encode([("a", "b")])) + frame(CONTINUATION, 0, 1, bytes(16_000)) * 2000,
        11,
    ),
    "CONTINUATION of nothing": (HELLO + frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1) * 500_000, 11),
    "header bombs": (HELLO + each(300, bomb), None),
    "SETTINGS": (HELLO + frames.settings([(4, 65_535)]) * 500_000, 11),
    "SETTINGS of a thousand values": (HELLO + frame(SETTINGS, 0, 0, struct.pack(">HI", 99, 1) * 2700) * 500, 11),
    "PING (CVE-2019-9512)": (HELLO + frame(PING, 0, 0, bytes(8)) * 500_000, 11),
    "PRIORITY": (HELLO + frame(PRIORITY, 0, 3, bytes(5)) * 500_000, 11),
    "GOAWAY": (HELLO + frame(GOAWAY, 0, 0, bytes(8) + b"x" * 1000) * 20_000, 11),
    "unknown frames": (HELLO + frame(0x42, 0, 1, bytes(1000)) * 20_000, 11),
    "empty DATA (CVE-2019-9518)": (HELLO + request(1, "/t/Chat") + frame(DATA, 0, 1) * 500_000, 11),
    "a frame of 16 MB": (HELLO + frame(DATA, 0, 1, bytes(2**24 - 1)), 6),
    "the last stream id": (HELLO + each(3, request) + request(2**31 - 1) + request(7), 1),
    "windows of one byte (CVE-2019-9511)": (
        PREFACE + frames.settings([(4, 1)]) + request(1, "/t/Big") + message(1) + frames.window_update(1, 1) * 200_000,
        None,
    ),
    "a window beyond 2**31": (HELLO + request(1, "/t/Chat") + frames.window_update(0, 2**31 - 1) * 2, 3),
    "large replies into a shut window": (
        SHUT + each(200, lambda number: request(number, "/t/Big") + message(number)),
        None,
    ),
    "large replies that aren't read": (
        WIDE + each(200, lambda number: request(number, "/t/Big") + message(number)),
        None,
    ),
    "messages that never end": (HELLO + each(900, cut_message), None),
    "headers that never end": (HELLO + request(1)[:-5], None),
    "half a preface": (HELLO[:11], None),
    "trailers again and again": (HELLO + request(1, "/t/Chat") + request(1, "/t/Chat", end=True) * 20_000, 11),
}


#: MiB that these may take: what one connection may, by its limits, and some room.
LARGE = {
    "large replies into a shut window": 150,
    "large replies that aren't read": 150,
    "messages that never end": 130,
}


async def attack(endpoint, data):
    """Send all of it, as far as the server takes it, without reading; then return what the server had to say."""
    loop = asyncio.get_running_loop()
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        peer.settimeout(0)
        await loop.sock_connect(peer, endpoint)
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(loop.sock_sendall(peer, data), 10)
        yield
        said = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while piece := await asyncio.wait_for(loop.sock_recv(peer, MIB), 0.2 if b"HTTP" not in data[:9] else 2):
                said += piece
                if len(said) > MIB:
                    break
        yield said


def ended_with(said):
    at, code = 0, None
    while len(said) - at >= 9:
        high, low, kind, _, _ = frames.HEAD.unpack_from(said, at)
        if kind == GOAWAY:
            code = struct.unpack_from(">I", said, at + 13)[0]
        at += 9 + (high << 16 | low)
    return code


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_costs_little_and_stops_nobody_else(server, name):
    data, code = ATTACKS[name]
    await server.serves()
    before = server.size
    attacking = attack(server.endpoint, data)
    await anext(attacking)
    await server.serves()
    assert server.size - before < LARGE.get(name, 25) * MIB
    said = await anext(attacking)
    assert ended_with(said) == code
    await server.serves()
