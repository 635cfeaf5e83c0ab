"""A cluster of three: its members are restarted one after the other, and one is cut off from the others."""

import asyncio
import os
import re
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest
import pytest_asyncio

from ketch.registries.etcd import EtcdRegistry
from ketch.registry import Instance
from ketch.testing.registries import OutageSuite
from ketch.testing.servers import etcd_member, free_port
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("etcd-cluster")

USER = Instance("go.micro.srv.user", "user-1", "127.0.0.1:5001", contracts=("shippy.user.v1.UserService",))
EMAIL = Instance("go.micro.srv.email", "email-1", "127.0.0.1:5002")

suite = OutageSuite()
suite.patience = 20.0
prefixes = iter(range(1_000_000))


class PeerRelay:
    """Stands before one member's port for its peers, and knows who calls by what they say (`X-Server-From`)."""

    def __init__(self, target):
        self.target = target
        self.cut = set()
        self.open = True
        self.whole = asyncio.Event()
        self._tasks = set()
        self._server = None

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def stop(self):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        back = None
        try:
            head = await reader.read(65536)
            found = re.search(rb"(?i)x-server-from: *(\w+)", head)
            caller = found[1].decode() if found else ""
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            await self._pass(head, reader, back, caller)
            await asyncio.gather(self._pump(reader, back, caller), self._pump(there, writer, caller))
        except OSError:
            pass
        finally:
            self._tasks.discard(asyncio.current_task())
            for one in (writer, back):
                if one is not None:
                    one.transport.abort()

    async def _pump(self, reader, writer, caller):
        while data := await reader.read(65536):
            await self._pass(data, reader, writer, caller)
        raise ConnectionResetError

    async def _pass(self, data, reader, writer, caller):
        if not self.open or caller in self.cut:
            await self.whole.wait()
            raise ConnectionResetError  # what was on its way is lost, and so is the connection
        writer.write(data)
        await writer.drain()


class Cluster:
    """Three members.

    Attributes:
        members: their servers.
        relays: before each one's port for its peers.
        ids: the members' ids, in hexadecimal.
    """

    def __init__(self, members, relays):
        self.members = members
        self.relays = relays
        self.ids = []

    def addresses(self, *numbers):
        return ",".join(self.members[number].url.removeprefix("etcd://") for number in numbers or range(3))

    def isolate(self, number):
        for other, relay in enumerate(self.relays):
            relay.whole.clear()
            if other == number:
                relay.open = False
            else:
                relay.cut.add(self.ids[number])

    def heal(self):
        for relay in self.relays:
            relay.open = True
            relay.cut.clear()
            relay.whole.set()

    async def member_ids(self):
        """Ask each member who it is."""
        for number in range(3):
            async with at(f"etcd://{self.addresses(number)}") as registry:
                from ketch.registries.etcd.etcd_pb2 import RangeRequest  # noqa: PLC0415
                from ketch.registries.etcd.link import RANGE  # noqa: PLC0415

                answer = await registry._session._link.call(RANGE, RangeRequest(key=b"x"))
                self.ids.append(f"{answer.header.member_id:x}")


def at(url):
    return EtcdRegistry.from_url(Url.parse(url))


@asynccontextmanager
async def running():
    async with AsyncExitStack() as stack:
        ports = [(free_port(), free_port()) for _ in range(3)]
        relays = [PeerRelay(peer) for _, peer in ports]
        advertised = []
        for relay in relays:
            advertised.append(await relay.start())
            stack.push_async_callback(relay.stop)
        names = ",".join(f"m{number}=http://127.0.0.1:{port}" for number, port in enumerate(advertised))
        members = [
            await stack.enter_async_context(
                etcd_member(f"m{number}", client, peer, cluster=names, advertised=advertised[number])
            )
            for number, (client, peer) in enumerate(ports)
        ]
        await asyncio.gather(*(member.start() for member in members))
        cluster = Cluster(members, relays)
        await cluster.member_ids()
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster():
    try:
        async with running() as found:
            yield found
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def options():
    return f"?prefix=/cluster-{next(prefixes)}&ttl=3"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_rolling_restart_is_noticed_by_nobody(cluster, options):
    url = f"etcd://{cluster.addresses()}{options}"
    async with at(url) as registry, at(url) as client, aclosing(client.watch()) as snapshots:
        await registry.register(USER)
        await suite.until(snapshots, USER)
        change = asyncio.ensure_future(anext(snapshots))
        for member in cluster.members:
            await member.restart()
            await suite.calm(registry)
            await suite.calm(client)
        assert not change.done(), change.result()
        await registry.register(EMAIL)
        assert await asyncio.wait_for(change, 20) == (EMAIL, USER)
        async with at(url) as fresh:
            await suite.see(fresh, None, USER, EMAIL)


@pytest.mark.asyncio(loop_scope="module")
async def test_who_knows_only_a_member_that_is_cut_off_says_so_and_keeps_what_was_known(cluster, options):
    inside = f"etcd://{cluster.addresses(0)}{options}&timeout=1.5"
    outside = f"etcd://{cluster.addresses(1, 2)}{options}"  # its `timeout` is long enough for an election
    async with at(inside) as minority, at(outside) as majority, aclosing(minority.watch()) as snapshots:
        await majority.register(USER)
        await suite.until(snapshots, USER)
        change = asyncio.ensure_future(anext(snapshots))
        cluster.isolate(0)
        try:
            await suite.troubled(minority)
            await suite.calm(majority)
            await majority.register(EMAIL)
            await suite.see(majority, None, USER, EMAIL)
            assert not change.done(), change.result()
        finally:
            cluster.heal()
        assert await asyncio.wait_for(change, 20) == (EMAIL, USER)
        await suite.calm(minority)


@pytest.mark.asyncio(loop_scope="module")
async def test_who_knows_other_members_leaves_the_one_that_is_cut_off(cluster, options):
    first = f"etcd://{cluster.addresses()}{options}"
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(at(first)) for _ in range(3)]
        watches = [await stack.enter_async_context(aclosing(client.watch())) for client in clients]
        for snapshots in watches:
            await suite.until(snapshots)
        connected = [client._session._link._endpoint for client in clients]
        lonely = next(n for n in range(3) if cluster.addresses(n) in connected)
        cluster.isolate(lonely)
        try:
            async with at(f"etcd://{cluster.addresses(*({0, 1, 2} - {lonely}))}{options}") as outside:
                async with asyncio.timeout(20):
                    await outside.register(USER)
                for snapshots in watches:
                    await suite.until(snapshots, USER)
                for client in clients:
                    await suite.calm(client)
        finally:
            cluster.heal()
