"""Later: deliveries that were given back, until they are due."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...broker import Delivery

#: Seconds to wait where nothing is due.
_LONG = 3600.0


class Later:
    """Deliveries by the time at which they are due; as many as are unsettled at most."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Delivery]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def add(self, delivery: Delivery, seconds: float) -> None:
        """Keep a delivery for so long."""
        due = asyncio.get_running_loop().time() + seconds
        heapq.heappush(self._waiting, (due, next(self._numbers), delivery))

    def due(self, most: int) -> list[Delivery]:
        """Take out what is due, so many at most."""
        if not self._waiting:
            return []
        now = asyncio.get_running_loop().time()
        found: list[Delivery] = []
        while self._waiting and self._waiting[0][0] <= now and len(found) < most:
            found.append(heapq.heappop(self._waiting)[2])
        return found

    @property
    def next(self) -> float:
        """Seconds until the next is due."""
        if not self._waiting:
            return _LONG
        return max(0.0, self._waiting[0][0] - asyncio.get_running_loop().time())

    def keep(self, wanted: Callable[[Delivery], bool]) -> None:
        """Drop what isn't wanted any more."""
        self._waiting = [entry for entry in self._waiting if wanted(entry[2])]
        heapq.heapify(self._waiting)
