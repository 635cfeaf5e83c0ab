"""Hedging: a call that takes too long is made at a second instance as well, and the first answer counts.

(Dean and Barroso, "The Tail at Scale", 2013; gRPC's proposal A6 has the word.) It is for calls that may be made twice.
The first one goes on in its caller's own task, so that a call which isn't hedged costs no task; when the second one is
quicker, the caller's task is woken as `asyncio.timeout` does it: cancelled, and told that it wasn't.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Final, Protocol

#: The least time that a call is waited for before it is hedged, unless that is configured, in seconds; what the first
#: few calls are given, and how many those are.
_LEAST: Final = 0.05
_AT_FIRST: Final = 0.5
_FEW: Final = 10

#: How many mean deviations beyond the mean count as too long: one call in a hundred or fewer, as latencies go.
_DEVIATIONS: Final = 8.0
_GAIN: Final = 0.1


class Racer(Protocol):
    """A call that may be hedged."""

    began: float
    done: bool

    def hedge(self) -> None:
        """Make the call at a second instance, too."""


class Hedging:
    """Watches the calls of one method with one timer, and learns how long they take.

    Args:
        delay: seconds after which a call is hedged; None for as long as nearly all of them take.
    """

    def __init__(self, delay: float | None) -> None:
        self._fixed = delay
        self._mean = 0.0
        self._deviation = 0.0
        self._samples = 0
        self._races: deque[Racer] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def delay(self) -> float:
        """Seconds after which a call is hedged now."""
        if self._fixed is not None:
            return self._fixed
        if self._samples < _FEW:
            return _AT_FIRST
        return max(_LEAST, self._mean + _DEVIATIONS * self._deviation)

    def watch(self, race: Racer) -> None:
        """Hedge a call when it takes too long, unless it is `done` by then."""
        races = self._races
        while races and races[0].done:
            races.popleft()
        races.append(race)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.delay, self._look)

    def took(self, seconds: float) -> None:
        """Learn from a call; one that was overtaken took at least so long."""
        error = seconds - self._mean
        if self._samples < _FEW:
            self._samples += 1
            self._mean += error / self._samples
            self._deviation += (abs(error) - self._deviation) / self._samples
        else:
            self._mean += _GAIN * error
            self._deviation += _GAIN * (abs(error) - self._deviation)

    def _look(self) -> None:
        self._timer = None
        now, delay, races = monotonic(), self.delay, self._races
        while races:
            race = races[0]
            if not race.done:
                wait = race.began + delay - now
                if wait > 0:
                    self._timer = asyncio.get_running_loop().call_later(wait, self._look)
                    return
                races.popleft()
                race.hedge()
            else:
                races.popleft()

    def close(self) -> None:
        """Watch no more."""
        self._races.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
