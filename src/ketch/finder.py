"""Finder: from a service's name to a channel to one of its instances."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from .directory import Directory
from .errors import DeadlineExceeded, Unreachable
from .pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .registry import Instance, Registry
    from .selector import Selector
    from .transport import Channel, Transport


class Finder:
    """Knows the instances of the services that are called, picks one for each call, and keeps the channels to them.

    Args:
        registry, transport: open ones.
        selector: makes what picks an instance; each service gets one of its own.
    """

    def __init__(self, registry: Registry, transport: Transport, selector: Callable[[], Selector]) -> None:
        self._registry = registry
        self._directory = Directory(registry, transport.name, self._changed)
        self._pool = Pool(transport, self._directory.addresses)
        self._make_selector = selector
        self._known = self._directory.instances
        self._only: dict[str, tuple[tuple[Instance, ...], Channel]] = {}  # of services with one instance
        self._selectors: dict[str, Selector] = {}
        self._change = asyncio.Event()

    def start(self) -> None:
        """Begin; the registry and the transport are open."""
        self._change = asyncio.Event()
        self._pool.start()

    async def close(self) -> None:
        """Close the channels and look no further. Closing twice is no error."""
        self._only.clear()
        await self._directory.close()
        await self._pool.close()

    def pick(self, service: str, tried: Collection[Channel] = ()) -> Channel | None:
        """Return a channel to an instance that is known and wasn't tried, None where there is none."""
        instances = self._known.get(service, ())
        only = self._only.get(service)
        if only is not None and only[0] is instances and not tried:
            return only[1]
        if tried:
            instances = tuple(one for one in instances if self._pool.channel(one.address) not in tried)
        if not instances:
            return None
        selector = self._selectors.get(service)
        if selector is None:
            selector = self._selectors[service] = self._make_selector()
        if len(instances) > 1:
            return self._pool.channel(selector(instances).address)
        channel = self._pool.channel(instances[0].address)
        if not tried:
            self._only[service] = instances, channel
        return channel

    async def find(self, service: str, timeout: float | None) -> tuple[Channel, float | None]:
        """Return a channel to an instance, and what is left of the timeout.

        Raises:
            Unreachable: there is none.
            Unavailable: the registry can't be read.
            DeadlineExceeded: the registry took too long.
        """
        began = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await self._directory.look(service)
        except TimeoutError:
            raise DeadlineExceeded(f"{service}: not found within {timeout:g} s") from None
        channel = self.pick(service)
        if channel is None:
            raise Unreachable(f"{service}: no instance in registry {self._registry.name} {self._registry.location}")
        return channel, None if timeout is None else max(0.0, timeout - (time.monotonic() - began))

    async def wait(self, seconds: float) -> None:
        """Wait until more is known of some service, at most so long."""
        self._change.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._change.wait()
        except TimeoutError:
            return  # an instance may answer again although nothing has changed in the registry

    def _changed(self, service: str) -> None:
        self._only.pop(service, None)
        self._change.set()
