"""Cache: what was heard, until its time is over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...registry import Instance
    from .packet import Name

#: Instances kept; who makes more up must not fill the memory.
_MOST: Final = 50_000


class Cache:
    """Instances by label; `changed` is called when what is known is another than before."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._known: dict[Name, tuple[Instance, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def instances(self) -> tuple[Instance, ...]:
        """What is known."""
        return tuple(instance for instance, _ in self._known.values())

    def keep(self, label: Name, instance: Instance, seconds: float) -> None:
        """Keep an instance for so long, and no longer without hearing of it again."""
        before = self._known.get(label)
        if before is None and len(self._known) >= _MOST:
            return
        self._known[label] = instance, self._loop.time() + seconds
        if before is None or before[0] != instance:
            self._changed()
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._expire)

    def drop(self, label: Name) -> None:
        """Forget an instance."""
        if self._known.pop(label, None) is not None:
            self._changed()

    def drop_unless(self, wanted: Callable[[Instance], bool]) -> None:
        """Forget those that nobody wants."""
        left = {label: entry for label, entry in self._known.items() if wanted(entry[0])}
        if len(left) < len(self._known):
            self._known = left
            self._changed()

    def close(self) -> None:
        """Forget all."""
        self._known.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        now = self._loop.time()
        over = [label for label, (_, until) in self._known.items() if until <= now]
        for label in over:
            del self._known[label]
        soonest = min((until for _, until in self._known.values()), default=0.0)
        self._timer = self._loop.call_at(max(soonest, now + 0.05), self._expire) if soonest else None
        if over:
            self._changed()
