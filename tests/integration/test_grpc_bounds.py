"""What peers can make us keep is bounded, and a listener that stops takes no more."""

import asyncio
import contextlib
import gc
import socket
import struct
import tracemalloc

import pytest

from ketch.grpc.tuning import Tuning
from ketch.http2 import frames
from ketch.http2.compression import Decoder, encode
from ketch.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
)
from ketch.http2.limits import Limits
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

PROTOBUF = "application/protobuf"
HELLO = PREFACE + frames.settings([])
MIB = 1024 * 1024


def request(stream_id, path):
    pairs = [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc")]
    return frames.frame(HEADERS, END_HEADERS, stream_id, encode(pairs))


def message(stream_id, body):
    return frames.frame(DATA, END_STREAM, stream_id, b"\0" + len(body).to_bytes(4) + body)


class Served:
    """Handlers, and what they saw."""

    def __init__(self):
        self.calls = 0
        self.sent = 0
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.routes = {
            "/t/Echo": Route(unary=self.echo),
            "/t/Wait": Route(unary=self.wait),
            "/t/Flood": Route(stream=self.flood),
        }

    async def echo(self, request):
        return request.body

    async def wait(self, request):
        self.calls += 1
        self.started.set()
        await self.go.wait()
        return request.body

    async def flood(self, _, stream):
        while True:
            await stream.send(bytes(50_000))
            self.sent += 1


@pytest.fixture
async def served():
    return Served()


@pytest.fixture
async def listen(served):
    async with contextlib.AsyncExitStack() as stack:

        async def listen(tuning=None):
            listener = await GrpcTransport(tuning or Tuning()).listen("127.0.0.1:0", served.routes)
            stack.push_async_callback(listener.stop, 0)
            return listener

        yield listen


@contextlib.asynccontextmanager
async def connect(listener):
    host, port = listener.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def read(reader):
    """Yield frames until the connection is closed."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            high, low, kind, flags, stream_id = frames.HEAD.unpack(await reader.readexactly(9))
            yield kind, flags, stream_id, await reader.readexactly((high << 16) + low)


@contextlib.contextmanager
def peak():
    """Yield a function that says how many bytes were taken at most since then."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


async def settle(channel, served):
    """Return when the flood stands still: calls that go back and forth leave it time to go on."""
    before = -1
    while before != served.sent:
        before = served.sent
        for _ in range(50):
            await channel.unary("/t/Echo", b"", content_type=PROTOBUF, timeout=10)


async def test_a_listener_that_stops_refuses_new_streams_and_finishes_those_in_hand(listen, served):
    listener = await listen()
    async with connect(listener) as (reader, writer):
        writer.write(HELLO + request(1, "/t/Wait") + message(1, b"in hand"))
        await served.started.wait()
        stopping = asyncio.create_task(listener.stop(30))
        got = []
        async for kind, flags, stream_id, payload in read(reader):
            got.append((kind, stream_id))
            if kind == PING and not flags & ACK:
                writer.write(frames.frame(PING, ACK, 0, payload))
            elif kind == GOAWAY and struct.unpack_from(">I", payload) == (1,) and not served.go.is_set():
                # An answered ping says that what was sent before it was looked at.
                writer.write(request(3, "/t/Wait") + message(3, b"late") + frames.frame(PING, 0, 0, b"ketch   "))
            elif kind == PING:
                served.go.set()
            elif kind == HEADERS and flags & END_STREAM:
                assert dict(Decoder(65_536).decode(payload).fields) == {"grpc-status": "0"}
        await stopping
    assert served.calls == 1
    assert (DATA, 1) in got
    assert {stream_id for _, stream_id in got} == {0, 1}


async def test_a_call_that_comes_between_the_two_goaways_is_finished(listen, served):
    """Also where the connection was idle for a moment between the first and that call."""
    listener = await listen()
    async with connect(listener) as (reader, writer):
        writer.write(HELLO)
        stopping, answered = None, []
        async for kind, flags, stream_id, payload in read(reader):
            if kind == SETTINGS and flags & ACK:
                stopping = asyncio.create_task(listener.stop(30))
            elif kind == PING and not flags & ACK:
                ping = payload
                writer.write(request(1, "/t/Echo") + message(1, b"short"))
            elif kind == HEADERS and flags & END_STREAM:
                answered.append((stream_id, Decoder(65_536).decode(payload).fields))
                if stream_id == 1:
                    writer.write(request(3, "/t/Wait") + message(3, b"long"))
                    await served.started.wait()
                    writer.write(frames.frame(PING, ACK, 0, ping))
            elif kind == GOAWAY and struct.unpack_from(">I", payload) == (3,):
                writer.write(frames.frame(PING, 0, 0, b"ketch   "))  # its answer says that the server has gone on
            elif kind == PING:
                served.go.set()
        await stopping
    assert answered == [(1, (("grpc-status", "0"),)), (3, (("grpc-status", "0"),))]


async def test_a_connection_that_has_not_spoken_yet_is_closed_when_the_listener_stops(listen):
    listener = await listen()
    async with connect(listener) as (reader, writer), asyncio.timeout(10):
        await asyncio.sleep(0)
        await listener.stop(30)
        writer.write(HELLO + request(1, "/t/Echo") + message(1, b"too late"))
        assert not [kind async for kind, *_ in read(reader) if kind == HEADERS]


async def test_a_peer_that_allows_everything_and_reads_nothing_fills_no_memory(listen, served):
    listener = await listen()
    channel = GrpcTransport().connect(listener.address)
    with socket.socket() as deaf, peak() as taken:
        host, port = listener.address.split(":")
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        deaf.connect((host, int(port)))
        wide = frames.settings([(4, 2**31 - 1)]) + frames.window_update(0, 2**31 - 65_536)
        deaf.sendall(PREFACE + wide + b"".join(request(2 * number + 1, "/t/Flood") for number in range(10)))
        await settle(channel, served)
        assert served.sent
        assert taken() < 3 * MIB
    await channel.close()


async def test_a_stream_that_was_read_fast_and_then_rests_keeps_no_more_than_its_window(listen, served):
    listener = await listen()
    channel = GrpcTransport().connect(listener.address)
    stream = await channel.stream("/t/Flood", content_type=PROTOBUF)
    for _ in range(1000):
        await stream.receive()
    with peak() as taken:
        await settle(channel, served)
        assert taken() < 2 * Limits().max_stream_window
    stream.cancel()
    await channel.close()


async def test_many_half_received_messages_take_turns(listen):
    tuning = Tuning(assembly=2_500_000, limits=Limits(max_streams=50, stream_window=65_536))
    listener = await listen(tuning)
    piece = b"\0" + (1_000_000).to_bytes(4) + bytes(60_000)
    async with connect(listener) as (reader, writer):
        with peak() as taken:
            writer.write(HELLO)
            for stream_id in range(1, 100, 2):
                writer.write(request(stream_id, "/t/Echo") + b"".join(_cut(stream_id, piece)))
                await writer.drain()
            writer.write(frames.frame(PING, 0, 0, b"ketch   "))
            opened = set()
            async for kind, flags, stream_id, _ in read(reader):
                if kind == WINDOW_UPDATE and stream_id:
                    opened.add(stream_id)
                if kind == PING and flags & frames.ACK:
                    break
            assert len(opened) == 2  # as many as fit
            assert taken() < 50 * 2 * len(piece)


def _cut(stream_id, piece):
    return [frames.frame(DATA, 0, stream_id, piece[at : at + 16_384]) for at in range(0, len(piece), 16_384)]


async def test_a_header_bomb_is_never_unpacked(listen, served):
    """60 KB that say 4,000 bytes over and over: 240 MB, were they all put down."""
    listener = await listen()
    stored = b"\x40\x01a" + b"\x7f" + _varint(4000 - 127) + b"x" * 4000
    block = encode([(":method", "POST"), (":scheme", "http"), (":path", "/t/Wait")]) + stored + b"\xbe" * 60_000
    async with connect(listener) as (reader, writer):
        writer.write(HELLO)
        with peak() as taken:
            writer.write(frames.frame(HEADERS, END_HEADERS | END_STREAM, 1, block[:16_000] + b"\xbe" * 44_000))
            async for kind, _, _, _ in read(reader):
                if kind in {HEADERS, GOAWAY, frames.RST_STREAM}:
                    break
            assert taken() < MIB
    assert not served.calls


def _varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


async def test_a_thousand_idle_connections_are_cheap(listen):
    listener = await listen()
    host, port = listener.address.split(":")
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(1000)]
        with peak() as taken:
            for client in clients:
                client.settimeout(0)
                await loop.sock_connect(client, (host, int(port)))
                await loop.sock_sendall(client, HELLO)
                assert await loop.sock_recv(client, 1000)  # the server has accepted it
            assert taken() < 1000 * 24 * 1024


async def test_calls_wait_while_too_much_waits_for_their_client_and_then_go_on(listen, served):
    """A client that takes nothing gets no further handler started; it gets all its replies once it reads."""

    async def large(request):
        served.calls += 1
        return request.body * 20_000

    served.routes["/t/Large"] = Route(unary=large)
    listener = await listen(Tuning(unsent=300_000))
    async with connect(listener) as (reader, writer):
        writer.write(PREFACE + frames.settings([(4, 0)]))
        for stream_id in range(1, 40, 2):
            writer.write(request(stream_id, "/t/Large") + message(stream_id, b"12345"))
        writer.write(frames.frame(PING, 0, 0, b"ketch   "))
        async for kind, flags, _, _ in read(reader):
            if kind == PING and flags & ACK:
                break
        channel = GrpcTransport().connect(listener.address)
        await settle(channel, served)  # others are served all the while
        await channel.close()
        assert served.calls == 3
        writer.write(frames.settings([(4, 2**20)]) + frames.window_update(0, 2**30))
        got = ended = 0
        async for kind, flags, _, payload in read(reader):
            got += len(payload) if kind == DATA else 0
            ended += kind == HEADERS and bool(flags & END_STREAM)
            if ended == 20:
                break
        assert got == 20 * 100_005
        assert served.calls == 20


async def test_calls_that_wait_for_room_get_that_of_replies_which_were_dropped(listen, served):
    async def large(request):
        served.calls += 1
        if served.calls == 6:
            served.started.set()
        return bytes(100_000)

    served.routes["/t/Large"] = Route(unary=large)
    listener = await listen(Tuning(unsent=150_000, stall_timeout=0.1))
    async with connect(listener) as (_, writer):
        writer.write(PREFACE + frames.settings([(4, 0)]))
        for stream_id in range(1, 13, 2):
            writer.write(request(stream_id, "/t/Large") + message(stream_id, b""))
        await served.started.wait()
