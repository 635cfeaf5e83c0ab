"""The registry in NATS's KV at a cluster of three: a member that is cut off, and a restart of one after the other."""

import asyncio
from contextlib import AsyncExitStack, aclosing

import nats
import pytest
import pytest_asyncio

from ketch.errors import RegistryError
from ketch.registries.nats import NatsRegistry
from ketch.registry import Instance
from ketch.testing.servers.nats import nats_server
from ketch.testing.servers.process import free_port
from ketch.testing.servers.relay import relay
from ketch.url import Url

pytestmark = [pytest.mark.xdist_group("nats-registry-cluster"), pytest.mark.timeout(180)]

FIRST = Instance("svc", "svc-1", "127.0.0.1:5001")
SECOND = Instance("svc", "svc-2", "127.0.0.1:5002")

#: The address that they tell others of is nobody's: only the routes of their configuration are used.
MEMBER = """
server_name: n{number}
ping_interval: "1s"
ping_max: 2
cluster {{ name: ketch, listen: "127.0.0.1:{port}", advertise: "127.0.0.1:1", routes: [{routes}] }}
"""

#: The last member is called and doesn't call: there is one way to it then, which can be cut.
NOWHERE = ('"nats://127.0.0.1:1"', '"nats://127.0.0.1:2"')


def registry(*addresses, ttl=3):
    url = f"nats://{','.join(addresses)}?bucket=cluster&replicas=3&ttl={ttl}&timeout=5&connect_timeout=5"
    return NatsRegistry.from_url(Url.parse(url))


async def until(snapshots, *expected):
    async with asyncio.timeout(40):
        async for snapshot in snapshots:
            if {instance.id for instance in snapshot} == {instance.id for instance in expected}:
                return


async def registered(one, instance):
    """Register it, however long the cluster has no leader."""
    async with asyncio.timeout(40):
        while True:
            try:
                return await one.register(instance)
            except RegistryError:
                await asyncio.sleep(0.2)


async def calm(one):
    async with asyncio.timeout(40):
        while one.trouble:  # noqa: ASYNC110 - it is a property, as a health check reads it
            await asyncio.sleep(0.1)


class Cluster:
    """Three servers; the last one is behind a network that can be cut."""

    def __init__(self, members, network):
        self.members = members
        self.network = network
        self.addresses = [member.url.partition("://")[2] for member in members]

    async def ready(self):
        async with asyncio.timeout(50):
            while True:
                try:
                    async with registry(*self.addresses) as one:
                        await one.register(Instance("ready", "ready-1", "h:1"))
                    if await self._caught_up():
                        return
                except RegistryError:
                    pass
                await asyncio.sleep(0.2)

    async def _caught_up(self):
        """Tell whether each member has all records: who restarts one before loses them with the next."""
        client = await nats.connect([f"nats://{address}" for address in self.addresses])
        try:
            info = await client.jetstream().stream_info("KV_cluster")
            return len(info.cluster.replicas) == 2 and all(one.current for one in info.cluster.replicas)
        except nats.errors.Error:
            return False
        finally:
            await client.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster():
    ports = [free_port() for _ in range(3)]
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(relay(f"127.0.0.1:{ports[2]}"))
        there = [f'"nats://127.0.0.1:{ports[0]}"', f'"nats://127.0.0.1:{ports[1]}"', f'"nats://{network.address}"']
        members = []
        for number in range(3):
            routes = ", ".join(there[other] if number < 2 else NOWHERE[other] for other in range(3) if other != number)
            config = MEMBER.format(number=number, port=ports[number], routes=routes)
            members.append(await stack.enter_async_context(nats_server(jetstream=True, config=config)))
        running = Cluster(members, network)
        await running.ready()
        yield running


@pytest.mark.asyncio(loop_scope="module")
async def test_who_is_with_the_minority_keeps_what_was_known_and_says_so(cluster):
    majority, minority = cluster.addresses[:2], cluster.addresses[2:]
    async with registry(*majority) as here, registry(*minority) as there:
        await here.register(FIRST)
        await there.register(SECOND)
        async with aclosing(here.watch("svc")) as seen, aclosing(there.watch("svc")) as known:
            await until(seen, FIRST, SECOND)
            await until(known, FIRST, SECOND)
            change = asyncio.ensure_future(anext(known))
            cluster.network.cut()
            try:
                await until(seen, FIRST)
                async with asyncio.timeout(40):
                    while not there.trouble:  # noqa: ASYNC110 - as above
                        await asyncio.sleep(0.1)
                assert not change.done(), change.result()
            finally:
                cluster.network.heal()
                cluster.network.reset()
            await until(seen, FIRST, SECOND)
            await calm(there)
            assert not change.done(), change.result()
            change.cancel()
            await asyncio.wait([change])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_rolling_restart_is_not_noticed_by_who_watches(cluster):
    # An election may take longer than a time to live of three seconds, in which nobody can renew anything.
    there = registry(*reversed(cluster.addresses), ttl=20)
    async with registry(*cluster.addresses, ttl=20) as here, there:
        await here.register(FIRST)
        async with aclosing(there.watch("svc")) as seen:
            await until(seen, FIRST)
            change = asyncio.ensure_future(anext(seen))
            for member in cluster.members:
                await member.stop()
                await member.start()
                await cluster.ready()
            await calm(here)
            await calm(there)
            assert not change.done(), change.result()
            await registered(here, SECOND)
            assert {instance.id for instance in await asyncio.wait_for(change, 20)} == {"svc-1", "svc-2"}
