"""Worker: a service in a process of its own, that reports to the supervisor and stops when that has gone."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from ..errors import KetchError
from ..runner import run_until_stopped
from .link import Supervised
from .reports import Report

if TYPE_CHECKING:
    from ..lifecycle import Lifecycle
    from ..options import Options
    from ..service import Service

log = logging.getLogger("ketch")

#: Seconds between two reports.
PERIOD: Final = 1.0
#: Seconds that the last report may take to go.
_FAREWELL: Final = 1.0
#: prctl(2): be sent a signal when the parent dies. A supervisor that was killed must not leave orphans at work.
_PR_SET_PDEATHSIG: Final = 1


def prepare() -> None:
    """Make this process a worker, before any of the service's code is imported."""
    faulthandler.enable()  # a supervisor that ends a worker which hangs sends SIGABRT: it says where it hung
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def run(service: Service, options: Options, descriptor: int, serial: int) -> int:
    """Run a service as a worker, and return its exit code: as `Service.run`'s.

    Args:
        service: what to run.
        options: with which.
        descriptor: of the link.
        serial: a number that no other process of this supervisor has or had.
    """
    supervised = Supervised(descriptor)
    return run_until_stopped(_Worker(service, options, supervised, serial), service.name)


def share(options: Options, supervised: Supervised, serial: int) -> Options:
    """Return options with which a worker serves a socket together with others, and an address of its own.

    Raises:
        AddressUnavailable: it is taken, not ours, or not allowed.
    """
    if options.settings["server_id"]:  # of all workers; an instance's is its own, also while it replaces another
        options = replace(options, id=f"{options.id}-{serial}")
    if not options.transport.shares:
        return options
    _, listening = supervised.wish(options.address)
    place = options.address
    own = f"{place}.{serial}" if place.startswith("unix:") else f"{place.rpartition(':')[0]}:0"
    return replace(options, address=own, shared=listening)


class _Worker:
    """A service, and beside it the task that reports."""

    def __init__(self, service: Service, options: Options, supervised: Supervised, serial: int) -> None:
        self._service = service
        self._options = options
        self._supervised = supervised
        self._serial = serial
        self._block: Any = None
        self._running: Lifecycle
        self._reporting: asyncio.Task[None] | None = None
        self._gone: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        options = share(self._options, self._supervised, self._serial)
        self._block = self._service.started(options)
        self._running = await self._block.__aenter__()
        self._reporting = asyncio.create_task(self._report(), name="ketch worker's reports")
        self._gone = asyncio.create_task(self._supervised.wait(), name="ketch worker's supervisor")
        return self

    async def wait(self) -> None:
        """Wait until the supervisor has gone, or the service fails."""
        assert self._gone is not None  # noqa: S101 - it was entered
        failing = asyncio.ensure_future(self._running.wait())
        try:
            await asyncio.wait({failing, self._gone}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                failing.result()
            log.warning("%s: the supervisor has gone, stopping", self._options.name)
        finally:
            failing.cancel()
            await asyncio.gather(failing, return_exceptions=True)

    async def __aexit__(self, *error: object) -> None:
        await self._block.__aexit__(*error)
        tasks = [task for task in (self._reporting, self._gone) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(OSError, TimeoutError):
            # What was counted to the very end, for the totals.
            await asyncio.wait_for(self._supervised.report(self._state()), _FAREWELL)

    async def _report(self) -> None:
        with suppress(OSError):  # the supervisor has gone; `wait` hears of it
            while True:
                await self._supervised.report(self._state())
                await asyncio.sleep(PERIOD)

    def _state(self) -> Report:
        running = self._running
        trouble = _trouble(running)
        return Report(
            service=running.options.name,
            version=running.options.version,
            address=running.address,
            ready=True,
            trouble=trouble,
            memory=_memory(),
            cpu=time.process_time(),
            at=time.monotonic(),
            stats=running.stats,
        )


def _trouble(running: Lifecycle) -> str:
    try:
        return running.health.trouble()
    except KetchError as error:
        return str(error)


def _memory() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - once a second, and no disk
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource  # noqa: PLC0415 - where there is no /proc; the most there ever was, not what there is

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
