"""A NATS server that ends a connection with a reason: brokers, transport and registries come back all the same.

The driver would close the connection for good after most of what a server may say.
"""

import asyncio
from contextlib import AsyncExitStack, suppress

import pytest
import pytest_asyncio

from ketch import Client, Service, Topic
from ketch.errors import KetchError, StatusError
from ketch.registry import Instance
from ketch.rpc import Method, Servicer, Stub
from ketch.testing.servers import nats_server
from ketch.testing.servers.relay import relay

pytestmark = pytest.mark.xdist_group("nats-errors")

SAYINGS = ["Maximum Connections Exceeded", "User Authentication Expired", "Authorization Violation", "Slow Consumer"]
WHO = Method("a.Store", "Who", str, str)
noted = Topic("note.taken", str)


class Store(Servicer):
    contract = "a.Store"
    methods = {"who": WHO}  # noqa: RUF012 - as the generator writes it

    async def who(self, text: str) -> str:
        return text


class StoreStub(Stub):
    contract = "a.Store"

    def who(self, text):
        return self._unary(WHO, text, 2.0, None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    async with nats_server(jetstream=True) as server:
        yield server


@pytest.fixture
async def wire(server):
    async with relay(server.url.partition("://")[2]) as wire:
        yield wire


async def again(attempt):
    """Try until it works."""
    async with asyncio.timeout(20):
        while True:
            with suppress(KetchError, StatusError):
                if await attempt():
                    return
            await asyncio.sleep(0.05)


def service(**plugins):
    return Service("store", address="127.0.0.1:0", registry="memory://nats-errors", **plugins)


@pytest.mark.parametrize("saying", SAYINGS)
@pytest.mark.parametrize("broker", ["nats", "jetstream"])
async def test_a_broker_publishes_and_hears_again(wire, broker, saying):
    store, heard = service(broker=f"{broker}://{wire.address}", transport="memory://nats-errors"), asyncio.Event()

    @store.subscribe(noted)
    async def note(_text: str) -> None:
        heard.set()

    publisher = store.publisher(noted)

    async def hears():
        await publisher.publish("x")
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await heard.wait()
        return heard.is_set()

    async with store.started():
        await again(hears)
        wire.last_words(f"-ERR '{saying}'\r\n".encode())
        await asyncio.sleep(0.1)
        heard.clear()
        await again(hears)
        await again(lambda: healthy(store))


async def healthy(store):
    return not store.health.trouble()


@pytest.mark.parametrize("saying", SAYINGS)
async def test_a_transport_calls_and_answers_again(wire, saying):
    store = service(broker="memory", transport=f"nats://{wire.address}")
    store.serve(Store())
    plugins = {"registry": "memory://nats-errors", "transport": f"nats://{wire.address}"}
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(store.started())
        client = await stack.enter_async_context(Client.from_env(environ={}, **plugins))
        stub = client.stub(StoreStub, "store")

        async def answers():
            return await stub.who("x") == "x"

        await again(answers)
        wire.last_words(f"-ERR '{saying}'\r\n".encode())
        await asyncio.sleep(0.1)
        await again(answers)
        await again(lambda: healthy(store))


@pytest.mark.parametrize("saying", SAYINGS)
@pytest.mark.parametrize("name", ["nats", "nats-services"])
async def test_a_registry_tells_and_is_told_again(wire, name, saying):
    async with AsyncExitStack() as stack:
        options = {
            "registry": f"{name}://{wire.address}?ttl=6",
            "transport": "memory://nats-errors",
            "broker": "memory",
        }
        one = await stack.enter_async_context(Client.from_env(environ={}, **options))
        other = await stack.enter_async_context(Client.from_env(environ={}, **options))
        registering, watching = one.options.registry, other.options.registry
        known = []

        async def watch():
            async for snapshot in watching.watch("svc"):
                known[:] = [instance.id for instance in snapshot]

        task = asyncio.create_task(watch())
        stack.callback(task.cancel)
        await registering.register(Instance("svc", "1", "h:1"))

        async def knows(*ids):
            return sorted(known) == sorted(ids)

        await again(lambda: knows("1"))
        wire.last_words(f"-ERR '{saying}'\r\n".encode())
        await asyncio.sleep(0.1)

        async def registers():
            await registering.register(Instance("svc", "2", "h:2"))
            return True

        await again(registers)
        await again(lambda: knows("1", "2"))
