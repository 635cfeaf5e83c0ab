"""Who reads slowly, or not at all, harms only itself."""

import asyncio

import pytest

from ketch.grpc.tuning import Tuning
from ketch.http2 import frames
from ketch.http2.codes import ErrorCode
from ketch.http2.compression import encode
from ketch.http2.frames import DATA, END_STREAM, HEADERS, PREFACE, RST_STREAM
from ketch.http2.settings import INITIAL_WINDOW_SIZE
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

PROTOBUF = "application/protobuf"


class Reader:
    """A stream's handler that reads when it is told to."""

    def __init__(self):
        self.going = asyncio.Event()
        self.got = []

    async def read(self, _, stream):
        await self.going.wait()
        while (body := await stream.receive()) is not None:
            self.got.append(body)


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
async def address(reader):
    async def echo(request):
        return request.body

    routes = {"/t/Echo": Route(unary=echo), "/t/Read": Route(stream=reader.read)}
    listener = await GrpcTransport().listen("127.0.0.1:0", routes)
    yield listener.address
    await listener.stop(0)


@pytest.fixture
async def stream(address):
    channel = GrpcTransport().connect(address)
    yield await channel.stream("/t/Read", content_type=PROTOBUF, timeout=30)
    await channel.close()


async def test_a_reply_that_nobody_reads_is_dropped_at_the_deadline(address):
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/t/Echo"), ("content-type", "application/grpc")]
    block = encode([*fields, ("grpc-timeout", "100m")])
    body = b"\0" + (8).to_bytes(4) + bytes(8)
    hello = PREFACE + frames.settings([(INITIAL_WINDOW_SIZE, 0)])
    writer.write(hello + frames.headers(1, block, 16_384, end=False) + frames.frame(DATA, END_STREAM, 1, body))
    kind = None
    while kind != RST_STREAM:
        high, low, kind, _, _ = frames.HEAD.unpack(await reader.readexactly(9))
        payload = await reader.readexactly((high << 16) + low)
    assert frames.word(payload) == ErrorCode.CANCEL
    writer.close()


async def test_a_message_whose_sender_was_cancelled_still_goes_whole(reader, stream):
    large = b"a" * 1_000_000
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.send(large), 0.05)
    next_one = asyncio.create_task(stream.send(b"b"))
    reader.going.set()
    await next_one
    await stream.end()
    assert await stream.receive() is None
    assert reader.got == [large, b"b"]


async def test_a_stream_may_end_behind_a_message_whose_sender_was_cancelled(reader, stream):
    large = b"a" * 1_000_000
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stream.send(large), 0.05)
    await stream.end()
    reader.going.set()
    assert await stream.receive() is None
    assert reader.got == [large]


async def unread(reader, writer, step):
    """Call without a deadline and a window; open it by a byte at each step; return how the call ended."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/t/Echo"), ("content-type", "application/grpc")]
    writer.write(PREFACE + frames.settings([(INITIAL_WINDOW_SIZE, 0)]))
    writer.write(frames.headers(1, encode(fields), 16_384, end=False))
    writer.write(frames.frame(DATA, END_STREAM, 1, b"\0" + (8).to_bytes(4) + b"12345678"))
    got = b""
    while True:
        high, low, kind, flags, _ = frames.HEAD.unpack(await reader.readexactly(9))
        payload = await reader.readexactly(high << 16 | low)
        if kind == RST_STREAM:
            return got, frames.word(payload)
        if kind == DATA:
            got += payload
            await asyncio.sleep(step)
        if kind == HEADERS and flags & END_STREAM:
            return got, None
        if kind in {HEADERS, DATA}:
            writer.write(frames.window_update(1, 1) if step else b"")


@pytest.mark.parametrize(
    ("step", "outcome"),
    [(0, (b"", ErrorCode.CANCEL)), (0.05, (b"\0" + (8).to_bytes(4) + b"12345678", None))],
    ids=["nothing is read", "a byte is read now and then"],
)
async def test_a_reply_without_a_deadline_is_kept_only_while_it_is_read(step, outcome):
    async def echo(request):
        return request.body

    transport = GrpcTransport(Tuning(stall_timeout=0.3))
    listener = await transport.listen("127.0.0.1:0", {"/t/Echo": Route(unary=echo)})
    host, port = listener.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(20):
        assert await unread(reader, writer, step) == outcome
    writer.close()
    await listener.stop(0)
