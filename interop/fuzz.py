"""Spoil conversations by chance and see that nothing breaks: the HTTP/2 core in both roles, and gRPC on top of it.

    python interop/fuzz.py [--seconds 60] [--seed 0]

Each seed is a case that can be run again by itself. What is checked: nothing is raised; however the bytes are cut the
same comes of them; a stream hears headers, data, and one end; nothing is sent on a stream after its end; what is kept
of streams that ended is given back; every call has an outcome and every handler ends.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

from conversations import Conversation, cut, spoil

from ketch.errors import StatusError
from ketch.grpc.client import ClientWire
from ketch.grpc.gomicro import short_paths
from ketch.grpc.server import ServerWire, Wires
from ketch.grpc.tuning import Tuning
from ketch.http2 import frames
from ketch.http2.codes import name_of
from ketch.http2.compression import encode
from ketch.http2.connection import Connection
from ketch.http2.frames import DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE
from ketch.http2.limits import Limits
from ketch.http2.stream import Stream
from ketch.transport import Request, Route

if TYPE_CHECKING:
    from ketch.errors import ProtocolError
    from ketch.http2.compression import Headers

PROTOBUF = "application/protobuf"
REQUEST = encode([(":method", "POST"), (":scheme", "http"), (":path", "/t/Echo"), ("content-type", "application/grpc")])
RESPONSE = encode([(":status", "200"), ("content-type", "application/grpc")])
TRAILERS = encode([("grpc-status", "0")])
#: Small, so that conversations come up against them.
LIMITS = Limits(max_streams=4, stream_window=20_000, connection_window=70_000, max_stream_window=100_000)


# the core


class Heard(Stream):
    """A stream that answers what ends with as much as came, and keeps what it heard."""

    def __init__(self, connection: Connection, stream_id: int = 0) -> None:
        super().__init__(connection, stream_id)
        self.log: list[tuple[Any, ...]] = []
        self.size = 0
        self.over = False

    def on_headers(self, headers: Headers, *, end: bool) -> None:
        self._hear("headers", headers.fields, end=end)

    def on_data(self, payload: bytes, *, end: bool) -> None:
        self.size += len(payload)
        if end:
            self._hear("end", self.size, end=True)
        else:
            assert not self.over, "data after the end"
            self.consume(len(payload))

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:  # noqa: ARG002 - Stream's signature
        assert ("reset",) not in self.log, "reset twice"
        assert self.closed
        self.log.append(("reset",))
        self.over = True

    def _hear(self, what: str, detail: object, *, end: bool) -> None:
        assert not self.over, f"{what} after the end"
        self.log.append((what, detail, end))
        self.over = end
        if end and not self.connection.client:
            head, tail = self.connection.headers(self, RESPONSE), self.connection.trailers(self, TRAILERS)
            self.connection.sender.message(self, head, bytes(self.size), end=False, trailers=tail)


class Half:
    """One side of a connection, its owner."""

    def __init__(self, *, client: bool, calls: int) -> None:
        self.client = client
        self.streams: dict[int, Heard] = {}
        self.error: ProtocolError | None = None
        self.sent = b""
        self.connection = Connection(self, client=client, limits=LIMITS, clock=lambda: 0.0)
        for _ in range(calls if client else 0):
            stream = Heard(self.connection)
            self.connection.attach(stream)
            self.streams[stream.id] = stream
            self.connection.sender.message(stream, self.connection.headers(stream, REQUEST), bytes(50), end=True)
        self.flush()

    def wake(self) -> None: ...

    def flush(self) -> None:
        self.sent += self.connection.sender.take()
        self.connection.sender.taken(paused=False)

    def on_stream(self, stream_id: int, headers: Headers) -> Stream:  # noqa: ARG002 - Owner's signature
        assert stream_id not in self.streams
        stream = self.streams[stream_id] = Heard(self.connection, stream_id)
        return stream

    def on_settings(self) -> None: ...

    def on_pong(self, payload: bytes) -> None: ...

    def on_goaway(self, code: int, reason: str) -> None: ...

    def on_ended_stream(self) -> None: ...

    def on_end(self, error: ProtocolError) -> None:
        assert self.error is None, "ended twice"
        self.error = error

    def receive(self, data: bytes) -> None:
        self.connection.receive(data)
        self.flush()

    def check(self) -> None:
        """Check what has to hold at any time."""
        streams = self.connection.streams
        assert not any(stream.closed for stream in streams.values())
        grown = sum(stream.window - LIMITS.stream_window for stream in streams.values())
        assert streams.spare == LIMITS.max_connection_window - grown, "windows are lost or made up"
        assert set(streams.sender._blocked) <= set(streams.values())  # noqa: SLF001 - as is its purpose
        for stream in self.streams.values():
            assert stream.closed is (streams.get(stream.id) is not stream)
            assert not stream.closed or stream.over, "a stream has ended and doesn't know"
        if self.error is not None:
            assert not streams
        check_sent(self.sent, ended=self.error is not None)


def check_sent(data: bytes, *, ended: bool) -> None:
    """Check that what we sent keeps to the rules, whatever we were sent."""
    at = len(frames.PREFACE) if data.startswith(frames.PREFACE) else 0
    over: set[int] = set()
    resets: set[int] = set()
    kind = -1
    while at < len(data):
        high, low, kind, flags, stream_id = frames.HEAD.unpack_from(data, at)
        at += 9 + (high << 16 | low)
        if kind in {DATA, HEADERS}:
            assert stream_id not in over, f"frame on stream {stream_id} after its end"
            if flags & END_STREAM:
                over.add(stream_id)
        elif kind == RST_STREAM:
            assert stream_id not in resets, f"stream {stream_id} reset twice"
            resets.add(stream_id)
            over.add(stream_id)
        elif kind == WINDOW_UPDATE:
            assert stream_id not in resets
    assert at == len(data)
    assert not ended or kind == GOAWAY


def core(chance: random.Random) -> str:
    """Run one conversation whole and cut, in one role."""
    client, count = chance.random() < 0.5, chance.choice([1, 2, 3, 6])
    parts = spoil(Conversation(chance, client=not client, streams=count).frames, chance)
    data = b"".join(parts)
    whole, pieces = Half(client=client, calls=count), Half(client=client, calls=count)
    whole.receive(data)
    for piece in cut(data, chance):
        pieces.receive(piece)
    for side in (whole, pieces):
        side.check()
    assert str(whole.error) == str(pieces.error), f"{whole.error} / {pieces.error}"
    assert {key: stream.log for key, stream in whole.streams.items()} == {
        key: stream.log for key, stream in pieces.streams.items()
    }
    for side in (whole, pieces):
        side.connection.lose("gone")
        side.check()
    outcome = "fine" if whole.error is None else name_of(whole.error.code)
    return f"core {'client' if client else 'server'}: {outcome}"


# gRPC


class Socket(asyncio.Transport):
    """A socket that takes what is written, and is closed when told so."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("fuzz", 1)})
        self._protocol = protocol
        self.sent = b""
        self.closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.sent += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close


class Handlers:
    """What a server serves, and how many handlers run."""

    def __init__(self) -> None:
        self.running = 0
        self.routes = {
            "/t/Echo": Route(unary=self.echo),
            "/t/Wait": Route(unary=self.wait),
            "/t/Chat": Route(stream=self.chat),
        }

    async def echo(self, request: Request) -> bytes:
        return request.body

    async def wait(self, _: Request) -> bytes:
        self.running += 1
        try:
            return await asyncio.Future()
        finally:
            self.running -= 1

    async def chat(self, _: Request, stream: Any) -> None:
        self.running += 1
        try:
            while (body := await stream.receive()) is not None:
                await stream.send(body)
        finally:
            self.running -= 1


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def server(chance: random.Random, tuning: Tuning) -> str:
    """Run one conversation of a client with our server."""
    handlers, wires = Handlers(), Wires()
    wire = ServerWire(tuning, asyncio.get_running_loop(), handlers.routes, short_paths(handlers.routes), wires)
    socket = Socket(wire)
    wire.connection_made(socket)
    parts = spoil(Conversation(chance, client=True, streams=chance.choice([1, 3, 8])).frames, chance)
    for piece in cut(b"".join(parts), chance):
        if socket.closed:
            break
        wire.data_received(piece)
        if chance.random() < 0.1:
            await turns(2)
    await turns(3)
    ended = wire.connection.ended
    socket.close()
    await wire.lost
    await turns(5)
    if not socket.sent.startswith(b"HTTP/1.1 "):  # one way to spoil a conversation is to speak that
        check_sent(socket.sent, ended=False)
    assert not handlers.running, "a handler runs on after its caller is gone"
    assert not wire.running
    assert not wires
    assert not wire.connection.streams
    assert wire.pool._left == tuning.assembly, "room for messages is lost"  # noqa: SLF001 - as is its purpose
    return "server: " + ("closed" if ended else "fine")


async def client(chance: random.Random, tuning: Tuning) -> str:
    """Run calls of our client with one conversation of a server."""
    wire = ClientWire(tuning, asyncio.get_running_loop(), "fuzz:1", lambda _: None)
    socket = Socket(wire)
    wire.connection_made(socket)
    count = chance.choice([1, 3, 8])
    tasks = []
    for _ in range(count):
        if chance.random() < 0.6:
            tasks.append(asyncio.ensure_future(_unary(wire)))
        else:
            tasks.append(asyncio.ensure_future(_chat(wire)))
    await turns(2)
    parts = spoil(Conversation(chance, client=False, streams=count, large=18_000).frames, chance)
    for piece in cut(b"".join(parts), chance):
        if socket.closed:
            break
        wire.data_received(piece)
        if chance.random() < 0.1:
            await turns(2)
    await turns(3)
    socket.close()
    await wire.lost
    done, waiting = await asyncio.wait(tasks, timeout=5)
    assert not waiting, "a call has no outcome"
    outcomes = [task.result() for task in done]
    check_sent(socket.sent, ended=False)
    assert not wire.connection.streams
    assert wire.pool._left == tuning.assembly, "room for messages is lost"  # noqa: SLF001 - as is its purpose
    wire.ready.exception()
    return "client: " + ("some well" if None in outcomes else "all failed")


async def _unary(wire: ClientWire) -> str | None:
    call = wire.unary("/t/Echo", b"hello", PROTOBUF, None, None, None, None, None)
    try:
        await call.reply
    except StatusError as error:
        return type(error).__name__
    return None


async def _chat(wire: ClientWire) -> str | None:
    call = wire.stream("/t/Chat", PROTOBUF, None, None, None, None)
    try:
        await call.send(b"hello")
        await call.end()
        while await call.receive() is not None:
            pass
    except StatusError as error:
        return type(error).__name__
    return None


async def _guarded(run: Any, chance: random.Random) -> str:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    tuning = Tuning(assembly=200_000, limits=LIMITS, max_message_size=50_000)
    said: str = await run(chance, tuning)
    assert not problems, problems
    return said


def one(seed: int) -> str:
    """Run the case of a seed; return a word on how it went.

    Raises:
        AssertionError: something doesn't hold.
    """
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    if seed % 3 == 0:
        return core(chance)
    with asyncio.Runner() as runner:
        return runner.run(_guarded(server if seed % 3 == 1 else client, chance))


def main() -> int:
    """Run cases for as long as was asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    arguments = parser.parse_args()
    logging.getLogger("ketch").setLevel(logging.CRITICAL)  # each case is a peer that breaks the rules
    until = time.monotonic() + arguments.seconds
    seen: Counter[str] = Counter()
    seed = arguments.seed
    while time.monotonic() < until or not seen:
        try:
            seen[one(seed)] += 1
        except Exception:
            print(f"seed {seed} fails:")
            raise
        seed += 1
    print(f"{sum(seen.values())} cases, seeds {arguments.seed} to {seed - 1}, nothing broke")
    for what, times in sorted(seen.items()):
        print(f"{times:8} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
