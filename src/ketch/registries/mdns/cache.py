"""Cache: what was heard, until its time is over."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...registry import Instance
    from .packet import Name

#: Instances kept; who makes more up must not fill the memory.
_MOST: Final = 50_000
#: Bytes that are kept of what one address told.
MOST_OF_ONE: Final = 16 * 1024 * 1024
#: Seconds that an instance may be believed in beyond its time, for fewer timers.
_LATE: Final = 0.1


class _Entry(NamedTuple):
    instance: Instance
    until: float
    source: str
    size: int


class Cache:
    """Instances by label; `changed` is called when what is known is another than before."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._known: dict[Name, _Entry] = {}
        self._sizes: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def instances(self) -> tuple[Instance, ...]:
        """What is known."""
        return tuple(entry.instance for entry in self._known.values())

    def keep(self, label: Name, instance: Instance, seconds: float, source: str, size: int) -> None:
        """Keep what a peer told in so many bytes for so long, and no longer without hearing of it again."""
        before = self._known.get(label)
        taken = self._sizes[source] + size - (before.size if before is not None and before.source == source else 0)
        if taken > MOST_OF_ONE or (before is None and len(self._known) >= _MOST):
            return
        self._forget(label)
        self._known[label] = _Entry(instance, self._loop.time() + seconds, source, size)
        self._sizes[source] += size
        if before is None or before.instance != instance:
            self._changed()
        if self._timer is None or self._timer.when() > self._loop.time() + seconds + _LATE:
            self._expire_in(seconds)

    def drop(self, label: Name) -> None:
        """Forget an instance."""
        if self._forget(label):
            self._changed()

    def drop_unless(self, wanted: Callable[[Instance], bool]) -> None:
        """Forget those that nobody wants."""
        unwanted = [label for label, entry in self._known.items() if not wanted(entry.instance)]
        for label in unwanted:
            self._forget(label)
        if unwanted:
            self._changed()

    def close(self) -> None:
        """Forget all."""
        self._known.clear()
        self._sizes.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        self._timer = None
        over = [label for label, entry in self._known.items() if entry.until <= now]
        for label in over:
            self._forget(label)
        if self._known:
            self._expire_in(max(_LATE, min(entry.until for entry in self._known.values()) - now))
        if over:
            self._changed()

    def _forget(self, label: Name) -> bool:
        entry = self._known.pop(label, None)
        if entry is None:
            return False
        self._sizes[entry.source] -= entry.size
        if not self._sizes[entry.source]:
            del self._sizes[entry.source]
        return True
