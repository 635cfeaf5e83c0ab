"""RedisRegistry: instances in Redis."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Self

from ...errors import NotRunning, RegistryError
from ...registry import Registry
from ..mirror import Mirror
from ..upkeep import Upkeep
from .config import Config
from .following import Following
from .listening import Listening
from .records import Records
from .store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ...registry import Instance
    from ...url import Url

log = logging.getLogger("ketch.registry")

#: Renewals for each time to live.
_RENEWALS = 3


class RedisRegistry(Registry):
    """Records that expire by the server's clock, and channels that tell of changes.

    Args:
        config: where, as whom, how.
    """

    name = "redis"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._session: _Session | None = None
        self.lag = config.ttl

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `redis://user:password@host:port/database?prefix=ketch&ttl=15`."""
        return cls(Config.from_url(url))

    async def open(self) -> None:
        """Connect: one connection to ask, one to listen. Opening twice is no error."""
        if self._session is None:
            session = _Session(self._config)
            try:
                await session.open()
            except BaseException:
                await session.close()
                raise
            self._session = session

    async def close(self) -> None:
        """Take away what is registered here, end the watches, disconnect."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def register(self, instance: Instance) -> None:
        """Write the instance's record."""
        await self._opened().upkeep.add(instance)

    async def deregister(self, instance: Instance) -> None:
        """Remove the instance's record."""
        session = self._opened()
        async with session.upkeep.lock:
            session.upkeep.held.pop(instance.id, None)
            await session.records.remove(instance)

    def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield snapshots until the registry is closed."""
        return self._opened().mirror.watch(name)

    @property
    def location(self) -> str:
        """The server, and the prefix of our keys."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Why it is out of touch with the server."""
        session = self._session
        return "" if session is None else session.mirror.trouble or session.upkeep.trouble

    def _opened(self) -> _Session:
        if self._session is None:
            raise NotRunning("the redis registry isn't open; use it as `async with registry:`")
        return self._session


class _Session:
    """What there is between `open` and `close`."""

    def __init__(self, config: Config) -> None:
        self._store = Store(config)
        self._listening = Listening(config)
        self._place = config.location
        self._timeout = config.place.timeout
        following = Following(config, self._store, self._listening)
        self.records = Records(self._store, config.prefix)
        self.upkeep = Upkeep(self.records.write, config.ttl / _RENEWALS, config.location)
        self.mirror = Mirror(following.follow, config.location, keep=config.ttl + self._timeout)

    async def open(self) -> None:
        await self._store.open()
        await self._listening.open()

    async def close(self) -> None:
        try:
            await self.mirror.close()
            await self._remove(await self.upkeep.close())
        finally:
            await self._listening.close()
            await self._store.close()

    async def _remove(self, left: tuple[Instance, ...]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                for instance in left:
                    await self.records.remove(instance)
        except (RegistryError, TimeoutError) as error:
            why = str(error) or "no answer"
            log.warning("registry at %s: not all records are removed, they go by themselves: %s", self._place, why)
