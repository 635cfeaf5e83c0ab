"""ConsulRegistry: instances as services of a Consul agent."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from ...errors import NotRunning, RegistryError
from ...registry import Registry
from ..mirror import Mirror
from ..upkeep import Upkeep
from .agent import Agent
from .config import Config
from .entries import TAG, Catalog, Entries
from .polls import Poll, Polls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from ...registry import Instance
    from ...url import Url

log = logging.getLogger("ketch.registry")

_T = TypeVar("_T")

_CATALOG = "/v1/catalog/services"
#: Seconds between two questions, at least. The list of services is large and changes with every instance.
_CATALOG_PAUSE, _SERVICE_PAUSE = 0.5, 0.1
_AT_ONCE = 16  # writes
_OK, _NOT_FOUND = 200, 404


class ConsulRegistry(Registry):
    """Registers with an agent, which tells the servers; a TTL check that heartbeats pass tells the living.

    Consul shows no instance whose check, or whose node's, is critical, and takes a service away for good after a
    minute of that (its least).
    """

    name: ClassVar[str] = "consul"
    lag: float = 1.0

    def __init__(self, config: Config) -> None:
        self._config = config
        self._agent = Agent(config)
        self._entries = Entries(config.prefix, go_micro=config.go_micro)
        self._polls = Polls(self._agent, config.wait, config.connections)
        self._written: dict[str, Instance] = {}
        every = config.ttl / 3
        self._upkeep = Upkeep(self._write, every, config.place)
        self._mirror = Mirror(self._follow, config.place, 2 * every + 1.0)

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `consul://:token@host:port?option=…`."""
        return cls(Config.from_url(url))

    async def open(self) -> None:
        """Connect to the agent, and wait until its cluster has a leader. Opening twice is no error."""
        if self._agent.is_open:
            return
        self._agent.open()
        try:
            await self._agent.wait_for_leader()
        except BaseException:
            await self._agent.close()
            raise

    async def close(self) -> None:
        """Deregister what is left. What can't be reached goes by its time to live."""
        left = await self._upkeep.close()
        await self._mirror.close()
        if self._agent.is_open:
            await self._leave(left)
        self._written.clear()
        await self._agent.close()

    async def register(self, instance: Instance) -> None:
        """Register with the agent; servers know it some milliseconds later."""
        self._need_open()
        await self._upkeep.add(instance)

    async def deregister(self, instance: Instance) -> None:
        """Take it from the agent; servers know it some milliseconds later."""
        self._need_open()
        async with self._upkeep.lock:
            self._upkeep.held.pop(instance.id, None)
            await self._take_away(instance)

    def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield the instances whose checks pass: those named so, and those that have the name as a tag.

        Services that others registered are seen by their names and tags too, but not without a name.
        """
        self._need_open()
        return self._mirror.watch(name)

    @property
    def location(self) -> str:
        """The agent's URL."""
        return self._config.place

    @property
    def trouble(self) -> str:
        """Why registrations or watches are out of touch with the agent."""
        return self._upkeep.trouble or self._mirror.trouble

    def _need_open(self) -> None:
        if not self._agent.is_open:
            raise NotRunning("the consul registry isn't open; use it as `async with registry:`")

    # --- writing

    async def _write(self, instances: Collection[Instance]) -> None:
        at_once = asyncio.Semaphore(_AT_ONCE)

        failures: list[RegistryError] = []

        async def keep(instance: Instance) -> None:
            async with at_once:
                try:
                    # One may be refused for its name; when all are, the agent is away, and each would wait for it.
                    if len(failures) < _AT_ONCE and not await self._beat(instance):
                        await self._register(instance)
                except RegistryError as error:
                    failures.append(error)

        await asyncio.gather(*(keep(instance) for instance in instances))
        if failures:
            raise failures[0]

    async def _beat(self, instance: Instance) -> bool:
        """Pass the check of an instance; tell whether the agent has one."""
        if self._written.get(instance.id) is not instance:
            return False
        status, _ = await self._agent.put(f"/v1/agent/check/pass/{self._entries.check(instance)}")
        return status == _OK

    async def _register(self, instance: Instance) -> None:
        registration = self._entries.write(instance, self._config.ttl)
        path = "/v1/agent/service/register"
        status, refusal = await self._agent.put(path, registration, **{"replace-existing-checks": "true"})
        if status != _OK:
            raise refusal
        self._written[instance.id] = instance

    async def _take_away(self, instance: Instance) -> None:
        self._written.pop(instance.id, None)
        status, refusal = await self._agent.put(f"/v1/agent/service/deregister/{self._entries.id(instance)}")
        if status not in (_OK, _NOT_FOUND):
            raise refusal

    async def _leave(self, left: Collection[Instance]) -> None:
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def take_away(instance: Instance) -> None:
            async with at_once:
                await self._take_away(instance)

        try:
            async with asyncio.timeout(self._config.timeout):
                await asyncio.gather(*(take_away(instance) for instance in left))
        except (RegistryError, TimeoutError) as error:
            log.warning(
                "consul at %s: not all of %d instances could be deregistered, the rest goes in %g s: %s",
                self._config.place,
                len(left),
                self._config.ttl,
                str(error) or "no answer in time",
            )

    # --- reading

    async def _follow(self, name: str | None) -> AsyncGenerator[tuple[Instance, ...], None]:
        woken = asyncio.Event()
        catalog = self._polls.join(_CATALOG, self._entries.read_catalog, _CATALOG_PAUSE, woken)
        services: dict[str, Poll[tuple[Instance, ...]]] = {}
        try:
            while True:
                woken.clear()
                await self._choose(name, _result(catalog), services, woken)
                answers = [_result(poll) for poll in services.values()]
                if catalog.answer is not None and None not in answers:
                    found = {one.id: one for answer in answers for one in answer or ()}.values()
                    yield tuple(one for one in found if name is None or one.answers_to(name))
                await woken.wait()
        finally:
            await self._polls.leave(_CATALOG, catalog, woken)
            for path, poll in services.items():
                await self._polls.leave(path, poll, woken)

    async def _choose(
        self,
        name: str | None,
        catalog: Catalog | None,
        services: dict[str, Poll[tuple[Instance, ...]]],
        woken: asyncio.Event,
    ) -> None:
        """Poll the services in which a name is to be found, and no others."""
        if catalog is None:
            return
        if name is None:
            wanted = catalog.tagged.get(TAG, frozenset())
        else:
            wanted = catalog.tagged.get(name, frozenset()) | (catalog.names & {self._entries.name(name)})
        paths = {f"/v1/health/service/{service}?passing" for service in wanted}
        for path in services.keys() - paths:
            await self._polls.leave(path, services.pop(path), woken)
        for path in paths - services.keys():
            services[path] = self._polls.join(path, self._entries.read_service, _SERVICE_PAUSE, woken)


def _result(poll: Poll[_T]) -> _T | None:
    """Return a poll's answer, if it has one, or raise what ended it."""
    if poll.error is not None:
        raise poll.error
    return poll.answer
