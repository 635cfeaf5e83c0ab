"""NatsRegistry: instances in a bucket of NATS's KV."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from ...errors import NotRunning, RegistryError
from ...registry import Registry
from ..mirror import Mirror
from ..upkeep import Upkeep
from .bucket import Bucket
from .config import Config
from .following import Following
from .link import Link

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ...registry import Instance
    from ...url import Url

log = logging.getLogger("ketch.registry")

#: Renewals for each time to live.
_RENEWALS = 3


class NatsRegistry(Registry):
    """Records that expire, found by ordered consumers.

    Args:
        config: where, as whom, how.
    """

    name = "nats"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._session: _Session | None = None
        self.lag = config.ttl + 2.0

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `nats://user:password@host:port,host:port?bucket=ketch-instances&ttl=15`."""
        return cls(Config.from_url(url, "bucket", "ttl", "replicas", "storage", "services", "format"))

    async def open(self) -> None:
        """Connect, find or make the bucket. Opening twice is no error."""
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
        """Put the instance's records."""
        await self._opened().upkeep.add(instance)

    async def deregister(self, instance: Instance) -> None:
        """Delete the instance's records."""
        session = self._opened()
        async with session.upkeep.lock:
            held = session.upkeep.held.pop(instance.id, instance)
            await session.bucket.remove((held,))

    def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield snapshots until the registry is closed."""
        return self._opened().mirror.watch(name)

    @property
    def location(self) -> str:
        """The servers, and the bucket."""
        return f"{self._config.access.location} (bucket {self._config.bucket})"

    @property
    def trouble(self) -> str:
        """Why it is out of touch with the server."""
        session = self._session
        return "" if session is None else session.mirror.trouble or session.upkeep.trouble

    def _opened(self) -> _Session:
        if self._session is None:
            raise NotRunning("the NATS registry isn't open; use it as `async with registry:`")
        return self._session


class _Session:
    """What there is between `open` and `close`."""

    def __init__(self, config: Config) -> None:
        place = config.access.location
        self.link = Link(config.access, config.ttl / _RENEWALS, self._back)
        self.bucket = Bucket(self.link, config)
        self.upkeep = Upkeep(self.bucket.write, config.ttl / _RENEWALS, place)
        self.mirror = Mirror(Following(self.link, self.bucket, config.ttl).follow, place, keep=config.ttl)

    async def open(self) -> None:
        await self.link.open()
        await self.bucket.check()

    async def close(self) -> None:
        await self.mirror.close()
        left = await self.upkeep.close()
        if left:
            try:
                await self.bucket.remove(left)
            except RegistryError as error:
                log.warning("records at NATS aren't removed, they go by themselves after their time to live: %s", error)
        await self.link.close()

    def _back(self) -> None:
        self.bucket.forget()
        self.upkeep.renew_now()
