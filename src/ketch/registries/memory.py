"""The memory registry: instances of one process, `memory://name`; for tests and one-process programs."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Self

from ..errors import ConfigurationError, NotRunning
from ..registry import Instance, Registry
from .feed import Feed
from .record import decode, encode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ..url import Url


class MemoryRegistry(Registry):
    """Registries of one name share their instances, in all threads and event loops of the process.

    Changes are pushed. What a name holds is gone with the last registry of that name that is open. Records
    pass through the same encoding as elsewhere, so what a real registry would refuse is refused here.
    """

    name = "memory"

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._space: _Space | None = None

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `memory://` or `memory://name`."""
        url.only()
        if url.path:
            raise ConfigurationError(f"the memory registry has a name and no path: memory://{url.address}, not {url}")
        return cls(url.address)

    async def open(self) -> None:
        """Join the registries of that name. Opening twice is no error."""
        if self._space is None:
            with _lock:
                self._space = _spaces.setdefault(self._name, _Space())
                self._space.join(self)

    async def close(self) -> None:
        """Leave; end the watches of this object."""
        space, self._space = self._space, None
        if space is not None:
            with _lock:
                space.leave(self)
                if space.empty and _spaces.get(self._name) is space:
                    del _spaces[self._name]

    async def register(self, instance: Instance) -> None:
        """Make the instance known, at once."""
        space, known = self._opened(), decode(encode(instance))
        with _lock:
            space.put(self, known)

    async def deregister(self, instance: Instance) -> None:
        """Take its record away, whichever registry of this name put it there."""
        space = self._opened()
        with _lock:
            space.drop(instance.id)

    def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield snapshots until the registry is closed."""
        return self._opened().feed(self).watch(name)

    @property
    def location(self) -> str:
        """Its name."""
        return self._name

    def _opened(self) -> _Space:
        if self._space is None:
            raise NotRunning("the memory registry isn't open; use it as `async with registry:`")
        return self._space


class _Space:
    """What the registries of one name share. Every call but `feed` is made with `_lock` held."""

    def __init__(self) -> None:
        self._records: dict[str, tuple[MemoryRegistry, Instance]] = {}
        self._members: dict[MemoryRegistry, tuple[asyncio.AbstractEventLoop, Feed]] = {}

    @property
    def empty(self) -> bool:
        return not self._members

    def join(self, member: MemoryRegistry) -> None:
        self._members[member] = asyncio.get_running_loop(), Feed()
        self._announce()

    def leave(self, member: MemoryRegistry) -> None:
        if member in self._members:
            self.feed(member).end()
            self._forget(member)
        self._announce()

    def put(self, owner: MemoryRegistry, instance: Instance) -> None:
        self._records[instance.id] = owner, instance
        self._announce()

    def drop(self, instance_id: str) -> None:
        if self._records.pop(instance_id, None):
            self._announce()

    def feed(self, member: MemoryRegistry) -> Feed:
        return self._members[member][1]

    def _announce(self) -> None:
        # A registry left open in a loop that is no more is like a process that died.
        for member in [member for member, (loop, _) in self._members.items() if loop.is_closed()]:
            self._forget(member)
        here = asyncio.get_running_loop()
        for loop, feed in self._members.values():
            if loop is here:
                self._publish(feed)
            else:
                loop.call_soon_threadsafe(self._refresh, feed)

    def _refresh(self, feed: Feed) -> None:
        # Reads anew what there is: snapshots handed over could overtake each other.
        with _lock:
            self._publish(feed)

    def _publish(self, feed: Feed) -> None:
        feed.publish(instance for _, instance in self._records.values())

    def _forget(self, member: MemoryRegistry) -> None:
        del self._members[member]
        self._records = {id_: pair for id_, pair in self._records.items() if pair[0] is not member}


_lock = threading.Lock()
_spaces: dict[str, _Space] = {}
