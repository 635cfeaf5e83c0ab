"""Hand: what a subscription has taken and not settled, and how much more it may take."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...broker import Delivery

#: Bytes of bodies that one command is to bring, about.
_BYTES = 4 * 1024 * 1024

#: Most events that one command brings.
_COUNT = 512

#: The share of the limit that is to be free before more is taken: one event at a time is expensive. Where nothing is
#: settled for a while, every bit of room is used.
_SHARE = 8


class Hand:
    """Deliveries that were taken and not settled: those that wait to be received, and those that were.

    Args:
        limit: how many they may be; it can be changed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._waiting: deque[list[Delivery]] = deque()
        self._held: dict[object, Delivery] = {}  # by id
        self._size = 1.0  # bytes of an event, of late
        self._eager = False

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._held

    @property
    def room(self) -> int:
        """How many more may be taken."""
        return max(0, self.limit - len(self._held))

    @property
    def wanted(self) -> int:
        """How many more to take at once; 0 to wait until some are settled."""
        room = self.room
        if room < self.limit // _SHARE and not self._eager:
            return 0
        return min(room, _COUNT, max(1, int(_BYTES / self._size)))

    def put(self, deliveries: list[Delivery]) -> None:
        """Take deliveries in."""
        if deliveries:
            size = sum(len(delivery.message.body) for delivery in deliveries) / len(deliveries)
            self._size = max(size, self._size / 2, 1.0)
            for delivery in deliveries:
                self._held[delivery.raw] = delivery
            self.put_again(deliveries)

    def put_again(self, deliveries: list[Delivery]) -> None:
        """Have deliveries received that were taken in before."""
        self._waiting.append(deliveries)
        self.filled.set()

    def receive(self) -> list[Delivery]:
        """Return what waits, nothing if there is nothing."""
        waiting = self._waiting
        if not waiting:
            return []
        batch = waiting.popleft()
        while waiting:
            batch += waiting.popleft()
        return batch

    def untried(self) -> list[object]:
        """Return the ids of what waits."""
        return [delivery.raw for batch in self._waiting for delivery in batch]

    def drop(self, settled: Iterable[Delivery]) -> None:
        """Let go of what was settled."""
        for delivery in settled:
            self._held.pop(delivery.raw, None)
        self._eager = False
        self._emptied.set()

    def clear(self) -> None:
        """Let go of everything."""
        self._waiting.clear()
        self._held.clear()

    async def emptier(self, seconds: float) -> None:
        """Wait, so long at most, until something was let go of, or `nudge`."""
        self._emptied.clear()
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._emptied.wait()
        except TimeoutError:
            self._eager = True

    def nudge(self) -> None:
        """End the wait for more room."""
        self._emptied.set()
