"""Process: one worker's process, as the supervisor sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final

from ..errors import KetchError
from .link import Link
from .reports import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .sockets import Sockets

#: Seconds of silence after which a worker's event loop counts as blocked; it reports every second.
SILENCE: Final = 10.0
#: Seconds between SIGABRT, which has a worker say where it hangs, and SIGKILL.
_LAST_WORDS: Final = 1.0


class Process:
    """A process that was started, until it was seen to have ended.

    Args:
        serial: a number of its own.
        command: starts it.
        sockets: what it may ask for.
        wake: called when it becomes ready.
        silence: seconds of it after which its event loop counts as blocked.

    Attributes:
        serial: as given.
        born: on `time.monotonic()`'s clock.
        report: the last that it said.
        stopping: whether it was told to stop.
    """

    def __init__(
        self, serial: int, command: Sequence[str], sockets: Sockets, wake: Callable[[], None], silence: float = SILENCE
    ) -> None:
        self.serial = serial
        self.born = time.monotonic()
        self.report = Report()
        self.stopping = False
        self.call_rate = self.event_rate = 0.0
        self._sockets = sockets
        self._wake = wake
        self._silence = silence
        self._heard = 0.0
        self._hung = False
        ours, theirs = socket.socketpair()
        with theirs:
            # A process group of its own: Ctrl-C is for the supervisor, which then asks the workers to stop, once.
            self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter
                [*command, f"--supervised={theirs.fileno()}:{serial}"], pass_fds=[theirs.fileno()], process_group=0
            )
        self._link = Link(ours)
        self._reading = asyncio.create_task(self._read(), name=f"ketch link to worker {serial}")

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._popen.pid

    @property
    def ready(self) -> bool:
        """Whether it has started, and was not told to stop."""
        return self.report.ready and not self.stopping

    @property
    def hanging(self) -> float:
        """Seconds that its event loop has not turned, 0 where that is not worth a word."""
        silence = time.monotonic() - self._heard
        return silence if self.report.ready and silence > self._silence else 0.0

    @property
    def state(self) -> str:
        """As in `reports.Line`."""
        if self.stopping:
            return "stopping"
        if not self.report.ready:
            return "starting"
        return "hanging" if self.hanging else "not serving" if self.report.trouble else "serving"

    def look(self) -> int | None:
        """Return its exit code once it has ended, negative for a signal."""
        return self._popen.poll()

    def changed_hanging(self) -> bool:
        """Tell whether it hangs or has come back since the last time that this was asked."""
        before, self._hung = self._hung, bool(self.hanging)
        return before != self._hung

    def terminate(self) -> None:
        """Ask it to stop; a second time, to stop at once."""
        self.stopping = True
        self._popen.terminate()

    def kill(self) -> None:
        """End it."""
        self._popen.kill()

    async def abort(self) -> None:
        """End it, after it has said where it hangs."""
        self._popen.send_signal(signal.SIGABRT)
        deadline = time.monotonic() + _LAST_WORDS
        while self.look() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - another process ends
            await asyncio.sleep(0.05)
        self._popen.kill()

    async def close(self) -> None:
        """Let go of what is left of it; it has ended. What it said last is in `report`."""
        # Whatever it started itself may hold the other end open.
        await asyncio.wait([self._reading], timeout=_LAST_WORDS)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._link.close()
        own = self.report.address
        if own.startswith("unix:") and own.endswith(f".{self.serial}"):
            with contextlib.suppress(OSError):  # gone, unless it was killed
                os.unlink(own.removeprefix("unix:"))  # noqa: PTH108 - one system call

    async def _read(self) -> None:
        async for said in self._link.read():
            if isinstance(said, Report):
                self._take(said)
            else:
                self._hand_over(said.address)

    def _take(self, report: Report) -> None:
        before, self.report = self.report, report
        self._heard = time.monotonic()
        if (seconds := report.at - before.at) > 0 and before.ready:
            self.call_rate = (_calls(report) - _calls(before)) / seconds
            self.event_rate = (_events(report) - _events(before)) / seconds
        if not before.ready:
            self._wake()

    def _hand_over(self, address: str) -> None:
        try:
            self._link.grant(*self._sockets.get(address))
        except KetchError as error:
            self._link.refuse(str(error))


def how_it_ended(code: int) -> str:
    """Say what an exit code means."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _calls(report: Report) -> int:
    return sum(method.calls for method in report.stats.methods)


def _events(report: Report) -> int:
    return sum(topic.handled for topic in report.stats.topics)
