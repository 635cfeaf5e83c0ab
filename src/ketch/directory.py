"""Directory: what a client knows of the services that it calls, kept current by the registry's watch."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

from .cancellation import cancelled
from .errors import NotRunning, RegistryError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .registry import Instance, Registry

log = logging.getLogger("ketch.client")

#: Seconds for a registry to answer with the first snapshot.
_PATIENCE = 5.0


class Directory:
    """The instances of the services asked for, one watch each.

    When the registry fails, what was known stays in use and the watch is begun again, with backoff.

    Args:
        registry: an open registry.
        transport: instances that say they speak another one are left out.
        changed: called with a service's name when what is known of it has changed.

    Attributes:
        instances: what is known now, by the name of the service or contract.
    """

    def __init__(self, registry: Registry, transport: str, changed: Callable[[str], None] | None = None) -> None:
        self._registry = registry
        self._transport = transport
        self._changed = changed
        self.instances: dict[str, tuple[Instance, ...]] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._first: dict[str, asyncio.Future[None]] = {}

    def known(self, service: str) -> tuple[Instance, ...]:
        """Return the instances of a service, or of a contract, as known now; empty before `look`."""
        return self.instances.get(service, ())

    def addresses(self) -> set[str]:
        """Return all addresses known."""
        return {instance.address for instances in self.instances.values() for instance in instances}

    async def look(self, service: str) -> None:
        """Begin to watch a service, unless that was done, and wait for the first snapshot.

        Raises:
            Unreachable: the registry can't be read.
        """
        if service not in self._watches:
            self._first[service] = asyncio.get_running_loop().create_future()
            self._watches[service] = asyncio.create_task(self._watch(service), name=f"ketch watch of {service}")
        first = self._first[service]
        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.shield(first)
        except TimeoutError:
            raise Unreachable(f"{service}: the registry did not answer within {_PATIENCE:g} s") from None
        except (RegistryError, NotRunning) as error:
            if self._first.get(service) is first:  # it isn't when another one has begun anew meanwhile
                await self._forget(service)
            raise Unreachable(f"{service}: {error}") from error

    async def close(self) -> None:
        """Stop watching."""
        for service in list(self._watches):
            await self._forget(service)

    async def _forget(self, service: str) -> None:
        watch, first = self._watches.pop(service, None), self._first.pop(service, None)
        if watch is None or first is None:
            return  # another one was quicker
        self.instances.pop(service, None)
        if not first.done():
            first.set_exception(NotRunning("closed while it was looked up"))
        first.exception()  # seen: `look` raises it
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)

    async def _watch(self, service: str) -> None:
        first = self._first[service]
        pause = 0.1
        while True:
            try:
                async with aclosing(self._registry.watch(service)) as snapshots:
                    async for snapshot in snapshots:
                        pause = 0.1
                        self._learn(service, tuple(filter(self._reachable, snapshot)))
                        if not first.done():
                            first.set_result(None)
            except (RegistryError, NotRunning) as error:
                if not first.done():
                    first.set_exception(error)
                    return
                log.warning("%s: going on with the instances known: %s", service, error)
            except (Exception, asyncio.CancelledError) as error:
                if cancelled():
                    raise
                # A plugin with a bug; silence would leave us with what we know for ever.
                log.exception("%s: the registry's watch failed", service)
                if not first.done():
                    first.set_exception(RegistryError(f"its watch failed: {error}"))
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10.0)

    def _learn(self, service: str, instances: tuple[Instance, ...]) -> None:
        before = self.instances.get(service)
        self.instances[service] = instances
        if self._changed is not None and instances != before:
            self._changed(service)

    def _reachable(self, instance: Instance) -> bool:
        return instance.metadata.get("transport", self._transport) == self._transport
