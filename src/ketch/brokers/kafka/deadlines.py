"""Deadlines: one timer for all publications that wait for their confirmation."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any


class Deadlines:
    """Gives futures a time to be done in; all have the same, so they end in order and share a timer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """Have a future fail with `TimeoutError` unless it is done in time; return it."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting
        while waiting and waiting[0][1].done():
            waiting.popleft()
        waiting.append((loop.time() + self._seconds, future))
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._sweep, loop)
        return future

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now, waiting = loop.time(), self._waiting
        while waiting and (waiting[0][1].done() or waiting[0][0] <= now):
            _, future = waiting.popleft()
            if not future.done():
                future.set_exception(TimeoutError())
        self._timer = loop.call_at(waiting[0][0], self._sweep, loop) if waiting else None

    def close(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
