"""NatsRegistry and NatsServicesRegistry: instances in a bucket of NATS's KV, or told of without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from ...errors import NotRunning
from ...registry import Registry
from .announcing import Announcing
from .bucket import Bucket
from .config import GO_MICRO, Config
from .following import Following
from .hearsay import Hearsay
from .link import Link
from .querying import Owner, Querying
from .responder import Responder
from .session import RENEWALS, Session

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ...registry import Instance
    from ...stats import Stats
    from ...url import Url


class NatsRegistry(Registry):
    """Records that expire in a bucket, found by ordered consumers; or go-micro's protocol, which needs no JetStream.

    Args:
        config: where, as whom, how.
    """

    name = "nats"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._session: Session | None = None
        self._stats: Stats | None = None
        self.lag = config.ttl + 2.0

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `nats://user:password@host:port,host:port?bucket=ketch-instances&ttl=15`."""
        return cls(Config.from_url(url, "bucket", "ttl", "replicas", "storage", "services", "format"))

    def observe(self, stats: Stats) -> None:
        """Tell NATS's tools these figures."""
        self._stats = stats

    async def open(self) -> None:
        """Connect, find or make the bucket. Opening twice is no error."""
        if self._session is None:
            session = self._made()
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
        await self._opened().register(instance)

    async def deregister(self, instance: Instance) -> None:
        """Delete the instance's records."""
        await self._opened().deregister(instance)

    def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield snapshots until the registry is closed."""
        return self._opened().mirror.watch(name)

    @property
    def location(self) -> str:
        """The servers, and the bucket where there is one."""
        config = self._config
        how = "as go-micro" if config.format == GO_MICRO else f"bucket {config.bucket}"
        return f"{config.access.location} ({how})"

    @property
    def trouble(self) -> str:
        """Why it is out of touch with the server."""
        return "" if self._session is None else self._session.trouble

    def _made(self) -> Session:
        config = self._config
        link = Link(config.access, config.ttl / RENEWALS)
        courtesies = (Responder(link, 0.0, self._figures),) if config.services else ()
        if config.format == GO_MICRO:
            heard = Hearsay(link, Querying(), config.ttl)
            return Session(config, link, heard, heard.follow, (Owner(link),), courtesies)
        bucket = Bucket(link, config)
        return Session(config, link, bucket, Following(link, bucket, config.ttl).follow, (), courtesies)

    def _figures(self) -> Stats | None:
        return self._stats

    def _opened(self) -> Session:
        if self._session is None:
            raise NotRunning(f"the registry {self.name} isn't open; use it as `async with registry:`")
        return self._session


class NatsServicesRegistry(NatsRegistry):
    """Instances that answer NATS's services protocol, ketch's and others'; no JetStream is needed.

    Args:
        config: where, as whom, how.
    """

    name = "nats-services"

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `nats-services://user:password@host:port,host:port?ttl=15`."""
        return cls(Config.from_url(url, "prefix", "ttl"))

    @property
    def location(self) -> str:
        """The servers."""
        return self._config.access.location

    def _made(self) -> Session:
        config = self._config
        link = Link(config.access, config.ttl / RENEWALS)
        heard = Hearsay(link, Announcing(config.prefix, config.ttl), config.ttl)
        return Session(config, link, heard, heard.follow, (Responder(link, config.ttl, self._figures),))
