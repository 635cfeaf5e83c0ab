"""A listener that stops tells its clients to go elsewhere, and serves all that they sent before they knew."""

import asyncio

import pytest

from ketch.http2 import frames
from ketch.http2.compression import Decoder, encode
from ketch.http2.frames import ACK, DATA, END_STREAM, GOAWAY, HEADERS, MAX_31, PING, PREFACE
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

HELLO = PREFACE + frames.settings([])
FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", "/t/Wait"), ("content-type", "application/grpc")]


def request(stream_id):
    """Return a whole call."""
    block = frames.headers(stream_id, encode(FIELDS), 16_384, end=False)
    return block + frames.frame(DATA, END_STREAM, stream_id, b"\0\0\0\0\1x")


class Peer:
    """A client made of frames."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.decoder = Decoder(65_536)

    async def until(self, kind, flags=0):
        while True:
            high, low, got, has, _ = frames.HEAD.unpack(await self.reader.readexactly(9))
            payload = await self.reader.readexactly((high << 16) + low)
            if got == kind and has & flags == flags:
                return payload

    async def status(self):
        """Return the status of the next call that ends."""
        return dict(self.decoder.decode(await self.until(HEADERS, END_STREAM)).fields)["grpc-status"]

    async def goaway(self):
        """Return the last stream that the next GOAWAY names."""
        return frames.word(await self.until(GOAWAY))


class Handler:
    """Answers when it is told to."""

    def __init__(self):
        self.going = asyncio.Event()
        self.began = asyncio.Semaphore(0)

    async def wait(self, request):
        self.began.release()
        await self.going.wait()
        return request.body


@pytest.fixture
def handler():
    return Handler()


@pytest.fixture
async def listener(handler):
    listener = await GrpcTransport().listen("127.0.0.1:0", {"/t/Wait": Route(unary=handler.wait)})
    yield listener
    await listener.stop(0)


@pytest.fixture
async def connect(listener):
    writers = []

    async def connect():
        host, port = listener.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        return Peer(reader, writer)

    yield connect
    for writer in writers:
        writer.close()


async def test_a_moment_without_calls_cuts_off_none_that_come_before_the_last_word(listener, handler, connect):
    peer = await connect()
    peer.writer.write(HELLO + request(1))
    await handler.began.acquire()
    stopping = asyncio.create_task(listener.stop(30))
    assert await peer.goaway() == MAX_31
    ping = await peer.until(PING)
    handler.going.set()
    assert await peer.status() == "0"
    handler.going.clear()
    peer.writer.write(request(3) + frames.frame(PING, ACK, 0, ping))
    await handler.began.acquire()
    assert await peer.goaway() == 3
    for _ in range(5):
        peer.writer.write(frames.frame(PING, 0, 0, b"seen it?"))
        await peer.until(PING, ACK)
    handler.going.set()
    assert await peer.status() == "0"
    await stopping


async def test_a_connection_that_speaks_only_once_the_listener_stops_is_sent_away_unserved(listener, handler, connect):
    first, second = await connect(), await connect()
    first.writer.write(HELLO + request(1))
    await handler.began.acquire()
    stopping = asyncio.create_task(listener.stop(30))
    ping = await first.until(PING)
    first.writer.write(frames.frame(PING, ACK, 0, ping))
    second.writer.write(HELLO + request(1))
    assert await second.goaway() == 0
    assert handler.began.locked()
    handler.going.set()
    assert await first.status() == "0"
    await stopping


async def test_no_goaway_allows_more_than_the_one_before(listener, handler, connect):
    peer = await connect()
    peer.writer.write(HELLO + request(1))
    await handler.began.acquire()
    stopping = asyncio.create_task(listener.stop(30))
    ping = await peer.until(PING)
    peer.writer.write(frames.frame(PING, ACK, 0, ping))
    assert await peer.goaway() == 1
    peer.writer.write(request(3) + frames.frame(PING, 0, 0, b"seen it?"))
    await peer.until(PING, ACK)
    handler.going.set()
    assert await peer.goaway() == 1
    await stopping
