"""Calls go to another instance as long as no server has looked at them, and wait for one if they are told to."""

import asyncio
import socket

import pytest

from ketch import Client, context
from ketch.errors import DeadlineExceeded, Unavailable, Unreachable
from ketch.http2 import frames
from ketch.http2.codes import ErrorCode
from ketch.http2.frames import HEADERS, PREFACE
from ketch.registries.memory import MemoryRegistry
from ketch.registry import Instance
from ketch.rpc import Cardinality, Method, Stub
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

_ECHO = Method("a.Echo", "Echo", str, str)
_MANY = Method("a.Echo", "Many", str, str, Cardinality.SERVER_STREAM)


class EchoStub(Stub):
    contract = "a.Echo"

    def echo(self, text, *, timeout=None, metadata=None):
        return self._unary(_ECHO, text, timeout, metadata)

    def many(self, text, *, timeout=None, metadata=None):
        return self._server_stream(_MANY, text, timeout, metadata)


class Server:
    """One instance."""

    def __init__(self, address="127.0.0.1:0"):
        self.address = address
        self.seen = 0
        self.compressed = []
        self.listener = None

    async def start(self):
        routes = {"/a.Echo/Echo": Route(unary=self.echo), "/a.Echo/Many": Route(stream=self.many)}
        self.listener = await GrpcTransport().listen(self.address, routes)
        self.address = self.listener.address

    async def stop(self, grace=5):
        await self.listener.stop(grace)

    async def echo(self, request):
        self.seen += 1
        self.compressed.append(request.compressed)
        if request.body == b'"broken"':
            raise Unreachable("the service behind this one")
        context.current().compress = True
        return request.body

    async def many(self, request, stream):
        await stream.send(await stream.receive())


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
async def world():
    async with MemoryRegistry() as registry:
        yield registry


async def announce(registry, address):
    instance = Instance("echo", f"id-{address}", address, contracts=("a.Echo",))
    await registry.register(instance)
    return instance


@pytest.fixture
async def server():
    server = Server()
    await server.start()
    yield server
    await server.stop(0)


@pytest.fixture
async def client(world):
    async with Client.from_env(environ={}, registry=world, transport=GrpcTransport()) as client:
        yield client


async def test_a_call_that_meets_a_closed_port_goes_to_the_next_instance(world, server, client):
    for _ in range(3):
        await announce(world, closed_port())
    await announce(world, server.address)
    stub = client.stub(EchoStub)
    assert [await stub.echo(str(number)) for number in range(8)] == [str(number) for number in range(8)]
    assert [reply async for reply in stub.many("one")] == ["one"]


async def test_a_stream_of_replies_that_is_refused_unseen_is_asked_for_again(world, server, client):
    refused = 0

    async def refuse(reader, writer):
        nonlocal refused
        writer.write(frames.settings([]))
        await reader.readexactly(len(PREFACE))
        while True:
            high, low, kind, _, stream_id = frames.HEAD.unpack(await reader.readexactly(9))
            await reader.readexactly(high << 16 | low)
            if kind == HEADERS:
                refused += 1
                writer.write(frames.rst_stream(stream_id, ErrorCode.REFUSED_STREAM))

    full = await asyncio.start_server(refuse, "127.0.0.1", 0)
    await announce(world, f"127.0.0.1:{full.sockets[0].getsockname()[1]}")
    await announce(world, server.address)
    stub = client.stub(EchoStub)
    assert [[reply async for reply in stub.many(str(number))] for number in range(4)] == [["0"], ["1"], ["2"], ["3"]]
    assert refused
    full.close()


async def test_where_nobody_answers_the_last_error_is_told(world, client):
    await announce(world, closed_port())
    with pytest.raises(Unreachable, match="can't be reached"):
        await client.stub(EchoStub).echo("x")


async def test_a_call_that_a_server_has_looked_at_is_not_made_again(world, server, client):
    await announce(world, server.address)
    with pytest.raises(Unavailable) as caught:
        await client.stub(EchoStub).echo("broken")
    assert not isinstance(caught.value, Unreachable)
    assert server.seen == 1


async def test_a_call_that_waits_is_made_when_an_instance_appears(world, server, client):
    calling = asyncio.ensure_future(client.stub(EchoStub, wait_for_ready=True).echo("x", timeout=20))
    streaming = client.stub(EchoStub, wait_for_ready=True).many("y", timeout=20)
    first = asyncio.ensure_future(anext(streaming))
    await asyncio.sleep(0)
    await announce(world, server.address)
    assert (await calling, await first) == ("x", "y")
    await streaming.aclose()


async def test_a_call_that_waits_is_made_when_a_known_instance_listens(world, client):
    server = Server(closed_port())
    await announce(world, server.address)
    calling = asyncio.ensure_future(client.stub(EchoStub, wait_for_ready=True).echo("x", timeout=20))
    with pytest.raises(Unreachable):
        await client.stub(EchoStub).echo("one that doesn't wait")
    await server.start()
    assert await calling == "x"
    await server.stop()


async def test_a_call_waits_no_longer_than_its_deadline(world, client):
    await announce(world, closed_port())
    with pytest.raises(DeadlineExceeded, match="before the deadline"):
        await client.stub(EchoStub, wait_for_ready=True).echo("x", timeout=0.2)


async def test_a_stubs_requests_are_compressed_if_it_says_so(world, server, client):
    await announce(world, server.address)
    assert await client.stub(EchoStub, compress=True).echo("x") == "x"
    assert await client.stub(EchoStub).echo("x" * 10_000) == "x" * 10_000
    assert server.compressed == [True, False]


async def test_a_transport_compresses_what_is_worth_it(world, server):
    await announce(world, server.address)
    async with Client.from_env(environ={}, registry=world, transport="grpc://?compression=gzip") as client:
        stub = client.stub(EchoStub)
        assert await stub.echo("x" * 10_000) == "x" * 10_000
        assert await stub.echo("x") == "x"
        assert server.compressed == [True, False]
        assert await client.stub(EchoStub, compress=False).echo("x" * 10_000) == "x" * 10_000
        assert server.compressed[-1] is False
