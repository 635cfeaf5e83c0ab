# ruff: noqa: D102 - a test's name is its sentence
"""Outages: registrants are killed and frozen, the server is killed, the network between them is cut."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest
import pytest_asyncio

from ...errors import RegistryError
from ...registry import Instance
from ..servers.relay import Relay, relay
from .suite import EMAIL, USER, RegistrySuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ...registry import Registry
    from ..servers import Server

#: A program that registers one instance at the registry of its URL, says so, and stays until it is killed.
_REGISTRANT = """
import asyncio, sys
from ketch.plugins import Plugins
from ketch.registry import Instance
from ketch.url import Url

async def main(url, service, id):
    async with Plugins().load("Registry", url.name).from_url(url) as registry:
        await registry.register(Instance(service, id, "127.0.0.1:7001"))
        print("registered", flush=True)
        await asyncio.Event().wait()

asyncio.run(main(Url.parse(sys.argv[1]), *sys.argv[2:]))
"""


class OutageSuite(RegistrySuite):
    """The promises of a registry whose records are with a server, beside those of `RegistrySuite`.

    Override the fixtures `server` and `url_at`. The time to live should be short: a few seconds.

    Attributes:
        lifetime: seconds that a record lives without its process, as `url_at` configures it.
        expires: a record goes by itself when its process dies. Without it (DNS) those cases are skipped.
    """

    lifetime: ClassVar[float] = 2.0
    expires: ClassVar[bool] = True

    @pytest_asyncio.fixture
    async def server(self) -> Server:
        """Return the server, running; started again at the same address by `restart`, remembering or not."""
        raise NotImplementedError("override the fixture `server`")

    @pytest.fixture
    def url_at(self) -> Callable[[str], Registry]:
        """Return a function from `host:port` to a registry, not open, whose server is there."""
        raise NotImplementedError("override the fixture `url_at`: it returns a function from host:port to a URL")

    @pytest.fixture
    def at(self, url_at: Callable[[str], str]) -> Callable[[str], Registry]:
        """Return a function from `host:port` to a registry, not open, whose server is there."""
        from ...plugins import Plugins  # noqa: PLC0415
        from ...url import Url  # noqa: PLC0415

        def make(address: str) -> Registry:
            url = Url.parse(url_at(address))
            registry: Registry = Plugins().load("Registry", url.name).from_url(url)
            return registry

        return make

    @pytest.fixture
    def address(self, server: Server) -> str:
        """Return the server's `host:port`."""
        return server.url.partition("://")[2].partition("/")[0].partition("?")[0]

    @pytest.fixture
    def make(self, at: Callable[[str], Registry], address: str) -> Callable[[], Registry]:
        """Return a function that makes registries at the server."""
        return lambda: at(address)

    @pytest_asyncio.fixture
    async def network(self, address: str) -> AsyncIterator[Relay]:
        """Return a relay to the server."""
        async with relay(address) as running:
            yield running

    @asynccontextmanager
    async def registrant(self, url: str, instance: Instance) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run a process that has registered an instance."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _REGISTRANT, url, instance.service, instance.id, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(self.patience):
                assert await process.stdout.readline() == b"registered\n"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def calm(self, registry: Registry) -> None:
        """Wait until the registry has no trouble."""
        async with asyncio.timeout(self.patience):
            while registry.trouble:  # noqa: ASYNC110 - it is a property, as a health check reads it
                await asyncio.sleep(0.05)

    async def troubled(self, registry: Registry) -> None:
        """Wait until the registry has noticed that its server is away."""
        async with asyncio.timeout(self.patience):
            while not registry.trouble:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)

    # --- registrants

    async def test_an_instance_goes_when_its_process_is_killed(
        self, at: Callable[[str], Registry], url_at: Callable[[str], str], address: str
    ) -> None:
        self._need_expiry()
        doomed = Instance("doomed", "doomed-1", "127.0.0.1:7001")
        registering = self.registrant(url_at(address), doomed)
        async with at(address) as registry, aclosing(registry.watch("doomed")) as snapshots, registering as process:
            await self.until(snapshots, doomed)
            process.kill()
            await self.until(snapshots)

    async def test_an_instance_goes_while_its_process_is_frozen_and_comes_back_after(
        self, at: Callable[[str], Registry], url_at: Callable[[str], str], address: str
    ) -> None:
        self._need_expiry()
        frozen = Instance("frozen", "frozen-1", "127.0.0.1:7001")
        registering = self.registrant(url_at(address), frozen)
        async with at(address) as registry, aclosing(registry.watch("frozen")) as snapshots, registering as process:
            await self.until(snapshots, frozen)
            os.kill(process.pid, signal.SIGSTOP)
            await self.until(snapshots)
            os.kill(process.pid, signal.SIGCONT)
            await self.until(snapshots, frozen)

    async def test_an_instance_stays_well_beyond_its_time_to_live(self, make: Callable[[], Registry]) -> None:
        self._need_expiry()
        async with make() as registry, make() as other, aclosing(other.watch(USER.service)) as snapshots:
            await registry.register(USER)
            await self.until(snapshots, USER)
            change = asyncio.ensure_future(anext(snapshots))
            done, _ = await asyncio.wait([change], timeout=2.5 * self.lifetime)
            assert not done, change.result()
            change.cancel()
            await asyncio.wait([change])

    def _need_expiry(self) -> None:
        if not self.expires:
            pytest.skip("its records don't expire")

    # --- the server

    async def test_clients_go_on_with_what_they_knew_while_the_server_is_away(
        self, make: Callable[[], Registry], server: Server
    ) -> None:
        async with make() as registry, make() as client:
            await registry.register(USER)
            async with aclosing(client.watch(USER.service)) as snapshots:
                await self.until(snapshots, USER)
                await server.kill()
                try:
                    await self.troubled(client)
                    async with aclosing(client.watch(USER.service)) as another:
                        assert await asyncio.wait_for(anext(another), self.patience) == (USER,)
                finally:
                    await server.start()
                await self.calm(client)

    async def test_nobody_is_missed_when_the_server_comes_back(
        self, make: Callable[[], Registry], server: Server
    ) -> None:
        """Though it may have forgotten all: instances register again, and are believed in meanwhile."""
        async with make() as registry, make() as client, aclosing(client.watch(USER.service)) as snapshots:
            await registry.register(USER)
            await self.until(snapshots, USER)
            change = asyncio.ensure_future(anext(snapshots))
            await server.restart()
            async with make() as fresh:
                await self.see(fresh, USER.service, USER)
            await self.calm(client)
            await self.calm(registry)
            done, _ = await asyncio.wait([change], timeout=1.5 * self.lifetime)
            assert not done, change.result()
            await registry.register(EMAIL)
            await registry.deregister(USER)
            assert await asyncio.wait_for(change, self.patience) == ()

    async def test_what_comes_after_the_server_is_back_is_seen(
        self, make: Callable[[], Registry], server: Server
    ) -> None:
        async with make() as registry, make() as client, aclosing(client.watch()) as snapshots:
            await registry.register(USER)
            await self.until(snapshots, USER)
            await server.restart()
            await self.calm(client)
            async with asyncio.timeout(self.patience):
                while True:
                    try:
                        await registry.register(EMAIL)
                        break
                    except RegistryError:
                        await asyncio.sleep(0.1)
            await self.until(snapshots, USER, EMAIL)

    async def test_registering_while_the_server_is_away_fails_within_its_time(
        self, make: Callable[[], Registry], server: Server
    ) -> None:
        async with make() as registry:
            await registry.register(USER)
            await server.kill()
            try:
                async with asyncio.timeout(self.patience):
                    with pytest.raises(RegistryError):
                        await registry.register(EMAIL)
            finally:
                await server.start()

    async def test_opening_while_the_server_is_away_fails_within_its_time(
        self, make: Callable[[], Registry], server: Server
    ) -> None:
        await server.kill()
        try:
            async with asyncio.timeout(self.patience):
                with pytest.raises(RegistryError, match=r"\d"):  # it says where
                    async with make() as registry, aclosing(registry.watch()) as snapshots:
                        await anext(snapshots)
        finally:
            await server.start()

    async def test_closing_while_the_server_is_away_ends_within_its_time(
        self, make: Callable[[], Registry], server: Server
    ) -> None:
        before = asyncio.all_tasks()
        async with make() as registry:
            await registry.register(USER)
            async with aclosing(registry.watch()) as snapshots:
                await self.until(snapshots, USER)
                await server.kill()
                try:
                    await self.troubled(registry)
                    async with asyncio.timeout(self.patience):
                        await registry.close()
                finally:
                    await server.start()
        assert asyncio.all_tasks() == before

    # --- the network

    async def test_a_partition_hides_those_behind_it_and_heals(
        self, at: Callable[[str], Registry], make: Callable[[], Registry], network: Relay
    ) -> None:
        """Behind it clients keep what they knew; once it has healed, both sides see everybody."""
        self._need_expiry()
        async with at(network.address) as behind, make() as before:
            await behind.register(USER)
            await before.register(EMAIL)
            async with aclosing(behind.watch()) as inner, aclosing(before.watch()) as outer:
                await self.until(inner, USER, EMAIL)
                await self.until(outer, USER, EMAIL)
                change = asyncio.ensure_future(anext(inner))
                network.cut()
                await self.until(outer, EMAIL)
                await self.troubled(behind)
                assert not change.done(), change.result()
                network.heal()
                await self.until(outer, USER, EMAIL)
                await self.calm(behind)
                change.cancel()
                await asyncio.wait([change])
            await self.see(behind, None, USER, EMAIL)

    async def test_a_broken_connection_is_made_again_and_nobody_is_missed(
        self, at: Callable[[str], Registry], make: Callable[[], Registry], network: Relay
    ) -> None:
        async with at(network.address) as behind, make() as before, aclosing(behind.watch()) as snapshots:
            await behind.register(USER)
            await self.until(snapshots, USER)
            network.reset()
            await before.register(EMAIL)
            await self.until(snapshots, USER, EMAIL)
            await self.see(before, None, USER, EMAIL)
