"""Pace: how many events to take ahead, by how long they take."""

from __future__ import annotations

from typing import Final

#: Seconds of work that may wait at one member while others may be idle.
_AHEAD: Final = 0.25
#: What a consumer begins with, before it knows its handler.
_FIRST: Final = 16


class Pace:
    """Decides on the limit of a subscription.

    A handler that takes a millisecond gets hundreds of events ahead, one that takes seconds gets one for each of those
    that run at a time, so that the other members of its group find work.

    Attributes:
        limit: what the subscription was told last.
    """

    def __init__(self, concurrency: int, most: int) -> None:
        self._concurrency = concurrency
        self._most = most
        self._mean = 0.0
        self.limit = min(most, max(_FIRST, concurrency))

    def observe(self, count: int, seconds: float) -> int | None:
        """Take in how long some events took, one after the other; return a new limit where it has changed a lot."""
        took = seconds / count
        self._mean = took if not self._mean else (3 * self._mean + took) / 4
        ahead = self._concurrency * _AHEAD / self._mean if self._mean > 0 else self._most
        wanted = max(self._concurrency, min(self._most, int(ahead)))
        # Up by doubling at most: the first events of a handler may be its quickest.
        wanted = min(wanted, 2 * self.limit)
        if wanted > self.limit * 3 // 2 or wanted < self.limit * 2 // 3:
            self.limit = wanted
            return wanted
        return None
