"""Deadlines: one timer for all calls of a connection.

It is set for the earliest deadline it has seen and looks through the calls in hand when it fires. Most calls are gone
long before, so a call costs one comparison instead of a timer.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

#: Seconds between two looks at least: deadlines that lie closer together expire together.
_TICK: Final = 0.001


class Deadlines:
    """Expires the calls of one connection: those of `calls` that have a `deadline` get `expire()` called."""

    def __init__(self, loop: asyncio.AbstractEventLoop, calls: Mapping[int, Any]) -> None:
        self._loop = loop
        self._calls = calls
        self._next = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, deadline: float) -> None:
        """See to it that a call with this deadline, on `time.monotonic()`'s clock, expires."""
        if deadline < self._next:
            self._set(deadline)

    def stop(self) -> None:
        """Expire nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, deadline: float) -> None:
        self.stop()
        self._next = deadline
        self._timer = self._loop.call_later(max(_TICK, deadline - time.monotonic()), self._look)

    def _look(self) -> None:
        now = time.monotonic()
        self._timer = None
        self._next = earliest = math.inf
        for call in list(self._calls.values()):
            deadline = call.deadline
            if deadline is None:
                continue
            if deadline <= now:
                call.expire()
            elif deadline < earliest:
                earliest = deadline
        if earliest < self._next:
            self._set(earliest)
