"""However the network cuts the bytes, calls come to the same: whole ones take shortcuts, pieces the ordinary way."""

import asyncio
import random
from itertools import pairwise

import pytest

from ketch import NotFound
from ketch.context import ReplyMetadata
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

PROTOBUF = "application/protobuf"


async def echo(request):
    request.reply_metadata["x-first"] = "1"
    request.trailers["x-last"] = "2"
    if request.body == b"fail":
        raise NotFound("as asked", metadata={"x-why": "3"})
    if request.body == b"plain":
        request.reply_metadata.clear()
        request.trailers.clear()
    return request.body * 2


async def chat(request, stream):
    while (body := await stream.receive()) is not None:
        await stream.send(body.upper())


async def pipe(reader, writer, cut):
    try:
        while data := await reader.read(65_536):
            for piece in cut(data):
                writer.write(piece)
                await asyncio.sleep(0)
    finally:
        writer.close()


@pytest.fixture
async def through():
    """Return a function that makes a channel through a proxy which cuts what passes."""
    listener = await GrpcTransport().listen(
        "127.0.0.1:0", {"/a/Echo": Route(unary=echo), "/a/Chat": Route(stream=chat)}
    )
    host, port = listener.address.split(":")
    closing = []

    async def start(cut):
        async def accept(reader, writer):
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(pipe(reader, far_writer, cut), pipe(far_reader, writer, cut))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        channel = GrpcTransport().connect(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        closing.append((channel, server))
        return channel

    yield start
    for channel, server in closing:
        await channel.close()
        server.close()
    await listener.stop(0)


async def calls(channel):
    """Make calls of all kinds, one after the other and together; return what came of each."""
    seen = []
    for body in [b"", b"plain", b"x" * 100, b"fail", b"plain", b"y" * 70_000, b"plain", b"fail", b"plain"] * 2:
        received = ReplyMetadata()
        try:
            result = await channel.unary("/a/Echo", body, content_type=PROTOBUF, received=received)
        except NotFound as error:
            result = error.message
        seen.append((result, dict(received.metadata), dict(received.trailers)))
    together = [channel.unary("/a/Echo", b"%d" % number, content_type=PROTOBUF) for number in range(50)]
    seen.append(await asyncio.gather(*together))
    stream = await channel.stream("/a/Chat", content_type=PROTOBUF)
    for body in (b"one", b"z" * 70_000, b""):
        await stream.send(body)
        seen.append(await stream.receive())
    await stream.end()
    seen.append(await stream.receive())
    return seen


def whole(data):
    return [data]


def single_bytes(data):
    # Long stretches go in one piece, else this takes minutes.
    return [data[at : at + 1] for at in range(len(data))] if len(data) < 3000 else [data[:2000], data[2000:]]


def at_random(data):
    cuts = sorted({0, len(data), *(random.Random(len(data)).randrange(len(data)) for _ in range(8))})
    return [data[start:stop] for start, stop in pairwise(cuts)]


@pytest.mark.parametrize("cut", [single_bytes, at_random], ids=lambda cut: cut.__name__)
async def test_calls_come_to_the_same(through, cut):
    assert await calls(await through(cut)) == await calls(await through(whole))
