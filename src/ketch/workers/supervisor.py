"""Supervisor: workers of a service, started, watched, restarted, replaced and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final

from .changes import Changes
from .console import Console
from .process import SILENCE, Process, how_it_ended
from .reload import Reload
from .reports import Status
from .say import say
from .slot import Slot, line_of
from .sockets import Sockets
from .tally import Tally
from .web import Web

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: Exit code of a worker whose configuration is wrong: starting it again won't help.
_CONFIGURATION: Final = 2
#: Seconds between two looks at the workers, and at the files; what they say is heard at once.
_TICK: Final = 0.1
#: Seconds for such a look that tell that this process was held up itself.
_LATE: Final = 1.0
#: Seconds that callers may wait for a worker when there is none, and not be refused.
_REFUSE: Final = 1.0
#: Seconds after which a signal to stop at once is sent again: on a busy machine two that come close become one.
_INSIST: Final = 1.0
#: Seconds that a worker which was killed may take to be gone.
_DEATH: Final = 5.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How workers are watched over; seconds.

    Attributes:
        count: how many there are.
        patience: what they get to drain before they are killed.
        start: what they get to become ready.
        hang: how long an event loop may not turn before its worker is killed, 0 for ever.
        folders: where a change of a .py file has all workers replaced.
        metrics: where figures are served over HTTP, `host:port`, "" for nowhere.
        runtime: the user's runtime directory, "" where there is none.
    """

    count: int = 1
    patience: float = 60.0
    start: float = 60.0
    hang: float = 0.0
    folders: Sequence[Path] = field(default=())
    metrics: str = ""
    runtime: str = ""


class Supervisor:
    """Keeps workers running until SIGTERM or SIGINT; replaces all of them on SIGHUP, or when a file changes.

    A worker that dies is started again, with backoff. A second signal makes all of them stop at once.

    Args:
        command: starts a worker; which one it is, is added.
        terms: how they are watched over.
    """

    def __init__(self, command: Sequence[str], terms: Terms) -> None:
        self._command = command
        self._terms = terms
        self._born = time.monotonic()
        self._serials = count(1)
        self._slots = [Slot(number + 1) for number in range(terms.count)]
        self._leaving: dict[Process, tuple[int, float]] = {}
        self._sockets = Sockets()
        self._tally = Tally()
        self._changes = Changes(terms.folders)
        self._reload = Reload(self._slots, self.spawn, self.dismiss, terms.start)
        self._signals = 0
        self._code: int | None = None
        self._ever_ready = False
        self._late = False
        self._wake = asyncio.Event()

    def run(self) -> int:
        """Run, and return the exit code: 0 after a signal, 2 when the service's configuration is wrong."""
        return asyncio.run(self._main())

    async def _main(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        loop.add_signal_handler(signal.SIGCHLD, self._wake.set)
        terms = self._terms
        async with AsyncExitStack() as stack:
            stack.callback(self._sockets.close)
            if terms.metrics:
                web = await stack.enter_async_context(Web(terms.metrics, self.status))
                say(f"figures at http://{web.address}/metrics")
            await stack.enter_async_context(Console(terms.runtime, self.status))
            say(f"{terms.count} worker(s)" + (", reloading on change" if terms.folders else ""))
            stack.push_async_callback(self._stop)
            for slot in self._slots:
                self._fill(slot)
            await self._watch()
        return self._code or 0

    def _on_signal(self) -> None:
        self._signals += 1
        self._wake.set()

    def _on_hangup(self) -> None:
        self._reload.want("SIGHUP")
        self._wake.set()

    # what its parts do through it

    def spawn(self) -> Process:
        """Start a process."""
        silence = min(SILENCE, self._terms.hang or SILENCE)
        return Process(next(self._serials), self._command, self._sockets, self._wake.set, silence)

    def dismiss(self, process: Process, number: int) -> None:
        """Have a process drain and end."""
        process.terminate()
        self._leaving[process] = number, time.monotonic() + self._terms.patience

    def status(self) -> Status:
        """Return how all workers are."""
        living = [slot.process for slot in self._slots if slot.process is not None]
        processes = [*living, *self._reload.fresh, *self._leaving]
        said = next((process.report for process in processes if process.report.service), None)
        lines = [slot.line() for slot in self._slots]
        lines += [line_of(process, number + 1) for number, process in enumerate(self._reload.fresh)]
        lines += [line_of(process, number) for process, (number, _) in self._leaving.items()]
        return Status(
            service=said.service if said is not None else "",
            version=said.version if said is not None else "",
            pid=os.getpid(),
            addresses=self._sockets.addresses,
            uptime=time.monotonic() - self._born,
            reloads=self._reload.done,
            failed=self._reload.failed,
            workers=lines,
            stats=self._tally.total(process.report.stats for process in processes),
        )

    # watching

    async def _watch(self) -> None:
        while not self._signals and self._code is None:
            await self._pause()
            for slot in self._slots:
                await self._look(slot)
            await self._look_after_leaving()
            if not (self._leaving or self._reload.fresh) and min(slot.wait for slot in self._slots) > _REFUSE:
                self._sockets.refuse()
            if self._terms.folders and (changed := self._changes.look()):
                self._reload.want(f"{changed} changed")
            self._reload.begin()

    async def _pause(self) -> None:
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(_TICK):
                await self._wake.wait()
        self._wake.clear()
        self._late = time.monotonic() - began > _LATE

    async def _look(self, slot: Slot) -> None:
        process = slot.process
        if process is None:
            if slot.due and not self._reload.running:
                self._fill(slot)
            return
        self._ever_ready |= process.ready
        code = process.look()
        if code is None:
            await self._check(slot, process)
            return
        await self._bury(process)
        if code != _CONFIGURATION or self._ever_ready:
            slot.bury(how_it_ended(code))
            return
        slot.forget()  # nothing but a change of files helps
        if not self._terms.folders:
            self._code = _CONFIGURATION

    def _fill(self, slot: Slot) -> None:
        try:
            slot.fill(self.spawn())
        except OSError as error:  # no more processes, memory or file descriptors, just now
            slot.bury(f"could not be started: {error.strerror}")

    async def _check(self, slot: Slot, process: Process) -> None:
        """See to a worker that doesn't become ready, or whose event loop is blocked."""
        if not process.report.ready:
            if time.monotonic() - process.born > self._terms.start:
                say(f"worker {slot.number} is not ready after {self._terms.start:g} s, killing it")
                await process.abort()
            return
        if self._late:
            return  # we hung ourselves: what workers said meanwhile isn't read yet
        if process.changed_hanging():
            how = "does not turn: a handler blocks it; others take its calls" if process.hanging else "turns again"
            say(f"worker {slot.number} (pid {process.pid}): its event loop {how}")
        if self._terms.hang and process.hanging > self._terms.hang:
            say(f"worker {slot.number} has hung for {process.hanging:.0f} s, killing it")
            await process.abort()

    async def _look_after_leaving(self) -> None:
        for process, (number, deadline) in list(self._leaving.items()):
            if process.look() is not None:
                del self._leaving[process]
                await self._bury(process)
            elif time.monotonic() > deadline:
                say(f"worker {number} did not stop, killing it")
                process.kill()

    async def _bury(self, process: Process) -> None:
        await process.close()
        self._tally.bury(process.report.stats, process.report.cpu)

    # stopping

    async def _stop(self) -> None:
        heard, insist = self._signals, 0.0
        self._sockets.close()
        await self._reload.cancel()
        for slot in self._slots:
            if slot.process is not None:
                self.dismiss(slot.process, slot.number)
            slot.forget()
        last = time.monotonic() + self._terms.patience + _DEATH
        while self._leaving and time.monotonic() < last:
            await self._pause()
            await self._look_after_leaving()
            if self._signals > max(heard, 1) or (insist and time.monotonic() > insist):
                insist = time.monotonic() + _INSIST if self._signals > heard else 0.0
                heard = self._signals
                for process in self._leaving:
                    process.terminate()  # their second signal, too: they stop at once
        for process in self._leaving:
            process.kill()
