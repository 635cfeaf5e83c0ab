"""Slot: one worker's place. There is a process in it, or one will be soon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from .reports import Line
from .say import say

if TYPE_CHECKING:
    from .process import Process

#: Seconds before a worker that died is started again: doubled each time, and forgotten after it lived for a while.
_BACKOFF: Final = 0.5
_MAX_BACKOFF: Final = 30.0
_LONG_LIFE: Final = 10.0


class Slot:
    """One of the `count` workers that there are to be.

    Attributes:
        number: from 1.
        process: what runs in it, None while it waits.
        restarts: how often it was filled again after a process had died.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: Process | None = None
        self.restarts = 0
        self._pause = _BACKOFF
        self._due = 0.0

    @property
    def due(self) -> bool:
        """Whether a process is to be started in it now."""
        return self.process is None and 0 < self._due <= time.monotonic()

    @property
    def wait(self) -> float:
        """Seconds until a process is started in it, 0 where one is there or is due."""
        return 0.0 if self.process is not None else max(0.0, self._due - time.monotonic())

    def fill(self, process: Process) -> Process | None:
        """Put a process in it, and return the one that was there."""
        before, self.process = self.process, process
        self._due = 0.0
        return before

    def bury(self, how: str) -> None:
        """Note how its process has ended, and have another started in a while."""
        process, self.process = self.process, None
        now = time.monotonic()
        if process is not None and now - process.born >= _LONG_LIFE:
            self._pause = _BACKOFF
        say(f"worker {self.number} {how}, starting it again in {self._pause:g} s")
        self._due = now + self._pause
        self._pause = min(self._pause * 2, _MAX_BACKOFF)
        self.restarts += 1

    def forget(self) -> None:
        """Start nothing in it by itself any more."""
        self.process = None
        self._due = 0.0

    def line(self) -> Line:
        """Return how it is."""
        if self.process is None:
            return Line(self.number, restarts=self.restarts)
        return line_of(self.process, self.number, self.restarts)


def line_of(process: Process, number: int, restarts: int = 0) -> Line:
    """Return how a process is."""
    report, state = process.report, process.state
    trouble = f"its event loop has not turned for {process.hanging:.0f} s" if state == "hanging" else report.trouble
    methods, topics = report.stats.methods, report.stats.topics
    return Line(
        number=number,
        pid=process.pid,
        state=state,
        trouble="" if state in {"stopping", "starting"} else trouble,
        uptime=time.monotonic() - process.born,
        restarts=restarts,
        address=report.address,
        memory=report.memory,
        cpu=report.cpu,
        calls=sum(method.calls for method in methods),
        errors=sum(method.errors for method in methods),
        events=sum(topic.handled for topic in topics),
        call_rate=process.call_rate,
        event_rate=process.event_rate,
    )
