"""Connections that are old or idle end, and no call with them."""

import asyncio

import grpc
import pytest

from ketch.grpc.tuning import Tuning
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport


class Peers:
    """Counts the connections that calls came on."""

    def __init__(self):
        self.seen = set()
        self.started = asyncio.Event()
        self.release = asyncio.Event()

    async def echo(self, request):
        self.seen.add(request.peer)
        return request.body

    async def wait(self, request):
        self.started.set()
        await self.release.wait()
        return request.body


@pytest.fixture
def peers():
    return Peers()


@pytest.fixture
async def serve(peers):
    listeners = []

    async def start(**tuning):
        routes = {"/a/Echo": Route(unary=peers.echo), "/a/Wait": Route(unary=peers.wait)}
        listeners.append(await GrpcTransport(Tuning(**tuning)).listen("127.0.0.1:0", routes))
        return listeners[0].address

    yield start
    for listener in listeners:
        await listener.stop(0)


async def test_old_connections_are_replaced_and_no_call_fails(serve, peers):
    address = await serve(max_connection_age=0.1)
    channel = GrpcTransport().connect(address)
    async with grpc.aio.insecure_channel(address) as stock, asyncio.timeout(30):
        while len(peers.seen) < 8:
            assert await channel.unary("/a/Echo", b"x", content_type="application/protobuf") == b"x"
            assert await stock.unary_unary("/a/Echo")(b"y") == b"y"
    await channel.close()


async def test_a_call_in_hand_outlives_its_connections_age(serve, peers):
    address = await serve(max_connection_age=0.05)
    channel = GrpcTransport().connect(address)
    async with asyncio.timeout(30):
        waiting = asyncio.ensure_future(channel.unary("/a/Wait", b"late", content_type="application/protobuf"))
        await peers.started.wait()
        while len(peers.seen) < 3:
            await channel.unary("/a/Echo", b"x", content_type="application/protobuf")
        peers.release.set()
        assert await waiting == b"late"
    await channel.close()


async def test_after_the_grace_period_what_is_left_is_unavailable(serve, peers):
    address = await serve(max_connection_age=0.05, max_connection_age_grace=0.1)
    async with grpc.aio.insecure_channel(address) as stock, asyncio.timeout(30):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stock.unary_unary("/a/Wait")(b"late")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(serve, peers):
    address = await serve(max_connection_idle=0.1)
    busy, idle = GrpcTransport().connect(address), GrpcTransport().connect(address)
    async with asyncio.timeout(30):
        await idle.unary("/a/Echo", b"x", content_type="application/protobuf")
        (wire,) = idle._wires
        while not wire.lost.done():
            await busy.unary("/a/Echo", b"x", content_type="application/protobuf")
        assert len(peers.seen) == 2
        assert await idle.unary("/a/Echo", b"again", content_type="application/protobuf") == b"again"
    await busy.close()
    await idle.close()
