"""DnsRegistry: instances as DNS tells them."""

from __future__ import annotations

import asyncio
import logging
from random import uniform
from typing import TYPE_CHECKING, ClassVar, Self

from ...errors import NotRunning
from ...registry import Instance, Registry
from ..mirror import Mirror
from ..record import decode, encode
from .config import Config
from .lookup import Found, Lookup, Place

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from ...url import Url

log = logging.getLogger("ketch.registry")

#: Seconds for which instances that are missing from the first answer after an outage are believed in: a resolver that
#: has just started may not know all yet.
_KEEP = 5.0
_MAX_LOGGED = 1000  # names


class DnsRegistry(Registry):
    """Resolves names anew whenever their time to live has run out.

    Nothing is written to DNS: whoever runs it (Kubernetes, Consul, a person) does that. What is registered here is
    seen by this object only, so that a service which uses it starts as ever. Without a name a watch yields that, and
    the services which the URL names; DNS can't list others.
    """

    name: ClassVar[str] = "dns"

    def __init__(self, config: Config) -> None:
        self._config = config
        self.lag = config.most
        self._lookup: Lookup | None = None
        self._mirror = Mirror(self._follow, config.location, _KEEP)
        self._own: dict[str, Instance] = {}
        self._changed = asyncio.Event()
        self._unnamed: set[str] = set()

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `dns://resolver:53/?option=…`."""
        return cls(Config.from_url(url))

    async def open(self) -> None:
        """Read /etc/resolv.conf, if the URL names no resolver. Nobody is asked yet. Opening twice is no error."""
        if self._lookup is None:
            self._lookup = Lookup(self._config)

    async def close(self) -> None:
        """Forget what was registered here; end the watches."""
        self._lookup = None
        self._own.clear()
        await self._mirror.close()

    async def register(self, instance: Instance) -> None:
        """Make the instance known to this object."""
        self._opened()
        self._own[instance.id] = decode(encode(instance))
        self._wake()

    async def deregister(self, instance: Instance) -> None:
        """Forget the instance."""
        self._opened()
        self._own.pop(instance.id, None)
        self._wake()

    def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield the instances that a name resolves to, and anew when its time to live has run out."""
        self._opened()
        return self._mirror.watch(name)

    @property
    def location(self) -> str:
        """The resolvers."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Why a name can't be resolved just now."""
        return self._mirror.trouble

    def _opened(self) -> Lookup:
        if self._lookup is None:
            raise NotRunning("the dns registry isn't open; use it as `async with registry:`")
        return self._lookup

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _follow(self, name: str | None) -> AsyncGenerator[tuple[Instance, ...], None]:
        names = self._config.names
        services = names.listed if name is None else (names.service(name),)
        loop = asyncio.get_running_loop()
        while True:
            found, ttl = await self._resolve(services)
            bounded = min(max(ttl, self._config.least), self._config.most)
            until = loop.time() + uniform(bounded, 1.1 * bounded)  # noqa: S311 - spreading needs no secret
            while loop.time() < until:
                changed = self._changed
                yield self._merged(found, name)
                try:
                    async with asyncio.timeout_at(until):
                        await changed.wait()
                except TimeoutError:
                    break

    async def _resolve(self, services: Iterable[str]) -> tuple[list[Instance], float]:
        instances, ttl = [], self._config.most
        for service in services:
            found = await self._find(service)
            ttl = min(ttl, found.ttl)
            instances += [self._instance(service, place) for place in found.places]
        return instances, ttl

    async def _find(self, service: str) -> Found:
        host = self._config.names.host(service)
        if host:
            return await self._opened().find(host)
        if service not in self._unnamed and len(self._unnamed) < _MAX_LOGGED:
            self._unnamed.add(service)
            log.warning("dns: %r makes no name in DNS; nobody is found by it (see ?host.NAME=)", service)
        return Found((), self._config.most)

    def _instance(self, service: str, place: Place) -> Instance:
        address = f"[{place.host}]:{place.port}" if ":" in place.host else f"{place.host}:{place.port}"
        labels: dict[str, str] = {}
        if place.target:
            labels |= {"target": place.target, "priority": str(place.priority)}
        if place.weight is not None:
            labels["weight"] = str(place.weight)
        contracts = self._config.names.contracts(service)
        return Instance(service, f"{service}@{address}", address, contracts=contracts, metadata=labels)

    def _merged(self, found: Iterable[Instance], name: str | None) -> tuple[Instance, ...]:
        """Add what is registered here, in the place of what DNS says of the same address."""
        own = [one for one in self._own.values() if name is None or one.answers_to(name)]
        addresses = {one.address for one in own}
        return (*own, *{one.id: one for one in found if one.address not in addresses}.values())
