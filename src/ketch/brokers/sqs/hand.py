"""Hand: what a subscription has taken and not settled, never more than its bound."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from .receipts import receipt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...broker import Delivery

#: Messages that a call of ReceiveMessage brings at most (SQS: ReceiveMessage).
MOST = 10

#: Seconds that a poll waits for room for a full batch when there is room for less: a call costs the same for one.
_TIDY = 0.02


class Hand:
    """Deliveries that wait for `receive`, and those that were received and wait to be settled.

    Attributes:
        closed: nothing is taken any more.
    """

    def __init__(self, limit: int) -> None:
        self.closed = False
        self._limit = limit
        self._ready: deque[Delivery] = deque()
        self._held: dict[int, Delivery] = {}
        self._asked = 0
        self._readable = asyncio.Event()
        self._room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def expiring(self, before: float) -> list[Delivery]:
        """Return those that others would see before a time of the monotonic clock."""
        return [delivery for delivery in self._held.values() if receipt(delivery).until < before]

    @property
    def room(self) -> int:
        """How many more may be asked for."""
        return self._limit - len(self._held) - self._asked

    def resize(self, limit: int) -> None:
        """Take fewer or more from now on."""
        self._limit = limit
        self._room.set()

    async def reserve(self) -> int:
        """Wait for room, and return for how many it was reserved; give it back by `release`."""
        while self.room <= 0:
            self._room.clear()
            await self._room.wait()
            if 0 < self.room < min(MOST, self._limit):
                await asyncio.sleep(_TIDY)
        asked = min(MOST, self.room)
        self._asked += asked
        return asked

    def release(self, asked: int) -> None:
        """Give back room that was reserved."""
        self._asked -= asked
        self._room.set()

    def put(self, deliveries: Sequence[Delivery]) -> None:
        """Take deliveries."""
        self._ready.extend(deliveries)
        for delivery in deliveries:
            self._held[id(delivery)] = delivery
        self.wake()

    def wake(self) -> None:
        """Have whoever waits in `take` look again."""
        self._readable.set()

    async def take(self) -> list[Delivery]:
        """Return what is ready; wait while nothing is, unless nothing will be."""
        while not self._ready and not self.closed:
            self._readable.clear()
            await self._readable.wait()
        batch = list(self._ready)
        self._ready.clear()
        return batch

    def drop(self, delivery: Delivery) -> bool:
        """Forget a delivery; tell whether it was in hand."""
        self._room.set()
        return self._held.pop(id(delivery), None) is not None

    def holds(self, delivery: Delivery) -> bool:
        """Tell whether a delivery is in hand."""
        return id(delivery) in self._held

    def lose(self, deliveries: Sequence[Delivery]) -> None:
        """Forget deliveries that are somebody else's by now; those nobody has received yet won't be."""
        for delivery in deliveries:
            self.drop(delivery)
            if delivery in self._ready:
                self._ready.remove(delivery)

    def clear(self) -> list[Delivery]:
        """Forget all, and return it."""
        held = list(self._held.values())
        self._held.clear()
        self._ready.clear()
        return held
