"""Bulkhead: so many calls at a time, so that one that hangs doesn't take all of a client with it."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

from ..errors import DeadlineExceeded, ResourceExhausted


class Bulkhead:
    """At most so many calls at a time; others wait in order."""

    def __init__(self, name: str, most: int, waiting: int) -> None:
        self._name = name
        self._most = most
        self._waiting_most = waiting
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, timeout: float | None) -> float | None:
        """Wait for a place; return what is left of the timeout. `leave` gives it back.

        Raises:
            ResourceExhausted: too many wait.
            DeadlineExceeded: none was free in time.
        """
        if self._in_flight < self._most and not self._waiting:
            self._in_flight += 1
            return timeout
        if len(self._waiting) >= self._waiting_most:
            raise ResourceExhausted(
                f"{self._name}: {self._in_flight} calls in flight (max_in_flight) and {len(self._waiting)} waiting"
            )
        began = monotonic()
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(timeout):
                await place
        except TimeoutError:
            self._give_up(place)
            raise DeadlineExceeded(f"{self._name}: {self._most} calls in flight until the deadline") from None
        except BaseException:
            self._give_up(place)
            raise
        return None if timeout is None else max(0.0, timeout - (monotonic() - began))

    def leave(self) -> None:
        """Give the place back, to whoever has waited longest."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._in_flight -= 1

    def _give_up(self, place: asyncio.Future[None]) -> None:
        if place.done() and not place.cancelled():
            self.leave()  # it was given to us as we gave up
        elif place in self._waiting:
            self._waiting.remove(place)
