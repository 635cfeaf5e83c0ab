"""EtcdRegistry: instances in an etcd cluster."""

from __future__ import annotations

import asyncio
import logging
from random import uniform
from typing import TYPE_CHECKING, Self

from ...errors import NotRunning, RegistryError
from ...registry import Registry
from ..mirror import Mirror
from ..upkeep import Upkeep
from .config import Config
from .etcd_pb2 import RangeRequest
from .following import Following
from .layout import layout
from .link import RANGE, Link
from .records import Records

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ...registry import Instance
    from ...url import Url
    from .layout import Layout

log = logging.getLogger("ketch.registry")

#: Renewals for each time to live.
_RENEWALS = 3


class EtcdRegistry(Registry):
    """Records under a lease of this process's, found by watches.

    Args:
        config: where, as whom, how.
    """

    name = "etcd"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._layout = layout(config)
        self._session: _Session | None = None
        self.lag = config.ttl + 1.0  # etcd looks for leases that have run out twice a second

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `etcd://user:password@host:port,host:port?prefix=/ketch&ttl=15`."""
        return cls(Config.from_url(url))

    async def open(self) -> None:
        """Connect, and see that what is under the prefix may be read. Opening twice is no error."""
        if self._session is None:
            session = _Session(self._config, self._layout)
            try:
                await session.check()
            except BaseException:
                await session.close()
                raise
            session.start()
            self._session = session

    async def close(self) -> None:
        """Take away what is registered here, end the watches, disconnect."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def register(self, instance: Instance) -> None:
        """Write the instance's record."""
        session = self._opened()
        lease = session.records.lease
        await session.upkeep.add(instance)
        if lease not in (0, session.records.lease):
            session.upkeep.renew_now()  # the lease was lost, and the others' records with it

    async def deregister(self, instance: Instance) -> None:
        """Delete the instance's record."""
        session = self._opened()
        async with session.upkeep.lock:
            session.upkeep.held.pop(instance.id, None)
            await session.records.remove(instance)

    def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield snapshots until the registry is closed."""
        return self._opened().mirror.watch(name)

    @property
    def location(self) -> str:
        """The cluster, and the prefix of our keys."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Why it is out of touch with etcd."""
        session = self._session
        return "" if session is None else session.mirror.trouble or session.upkeep.trouble

    def _opened(self) -> _Session:
        if self._session is None:
            raise NotRunning("the etcd registry isn't open; use it as `async with registry:`")
        return self._session


class _Session:
    """What there is between `open` and `close`."""

    def __init__(self, config: Config, layout: Layout) -> None:
        every = config.ttl / _RENEWALS
        self._prefix = config.prefix.encode()
        self._every = every
        self._link = Link(config)
        self._following = Following(self._link, layout, config.location, config.timeout)
        self._looking: asyncio.Task[None] | None = None
        self.records = Records(self._link, layout, config.ttl)
        self.upkeep = Upkeep(self.records.write, every, config.location)
        self.mirror = Mirror(self._following.follow, config.location, keep=config.ttl + config.timeout)

    def start(self) -> None:
        self._looking = asyncio.create_task(self._look(), name=f"ketch probe of etcd at {self._prefix!r}")

    async def check(self) -> None:
        """Read something, with the cluster's consent.

        Raises:
            RegistryError: there is no majority of members, or it refuses us.
        """
        await self._link.call(RANGE, RangeRequest(key=self._prefix + b"/", limit=1, keys_only=True))

    async def close(self) -> None:
        try:
            if self._looking is not None:
                self._looking.cancel()
                await asyncio.wait([self._looking])
            await self.mirror.close()
            await self.upkeep.close()
            await self.records.revoke()
        except RegistryError as error:
            log.warning("records in etcd aren't removed, they go by themselves after their time to live: %s", error)
        finally:
            await self._link.close()

    async def _look(self) -> None:
        """Ask now and then: a member that is cut off, or frozen, ends no watch, it is only silent."""
        while True:
            await asyncio.sleep(uniform(0.8 * self._every, self._every))  # noqa: S311 - spreading needs no secret
            if self._following.names:
                try:
                    await self.check()
                except RegistryError as error:
                    log.debug("etcd: the watches begin anew: %s", error)  # the link has left that member
