"""A rolling restart under load: every instance is stopped and started again, and not one call fails."""

import asyncio
import json

import grpc
import pytest

from ketch import Client
from ketch.registries.memory import MemoryRegistry
from ketch.registry import Instance
from ketch.rpc import Method, Stub
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

_ECHO = Method("a.Echo", "Echo", str, str)


class EchoStub(Stub):
    contract = "a.Echo"

    def echo(self, text):
        return self._unary(_ECHO, text, 10.0, None)


class Server:
    """One instance, which keeps its port."""

    def __init__(self, registry, number):
        self.registry = registry
        self.number = number
        self.address = "127.0.0.1:0"
        self.served = 0
        self.life = 0

    async def echo(self, request):
        await asyncio.sleep(0.001)
        self.served += 1
        return request.body

    async def start(self):
        self.life += 1
        self.listener = await GrpcTransport().listen(self.address, {"/a.Echo/Echo": Route(unary=self.echo)})
        self.address = self.listener.address
        self.instance = Instance("echo", f"{self.number}-{self.life}", self.address, contracts=("a.Echo",))
        await self.registry.register(self.instance)

    async def stop(self):
        await self.registry.deregister(self.instance)
        await self.listener.stop(10)


@pytest.fixture
async def servers():
    async with MemoryRegistry("rolling") as registry:
        servers = [Server(registry, number) for number in range(3)]
        for server in servers:
            await server.start()
        yield servers
        for server in servers:
            await server.stop()


async def restart_each_under_load(servers, call):
    """Return how many calls were made while each server was restarted twice; any failure is raised."""
    made = 0
    going = True

    async def load():
        nonlocal made
        while going:
            await call(made)
            made += 1

    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(load())
        for _ in range(2):
            for server in servers:
                await server.stop()
                await server.start()
                before = server.served
                while server.served < before + 20:
                    await call(made)
        going = False
    return made


async def test_with_ketchs_client_no_call_fails(servers):
    async with Client.from_env(environ={}, registry=MemoryRegistry("rolling"), transport=GrpcTransport()) as client:
        stub = client.stub(EchoStub)

        async def call(number):
            assert await stub.echo(str(number)) == str(number)

        assert await restart_each_under_load(servers, call) > 200


async def test_with_a_stock_client_no_call_fails(servers):
    target = "ipv4:" + ",".join(server.address for server in servers)
    options = [
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 200),
    ]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        echo = channel.unary_unary("/a.Echo/Echo")

        async def call(number):
            assert await echo(b"%d" % number, timeout=10) == b"%d" % number

        assert await restart_each_under_load(servers, call) > 200
