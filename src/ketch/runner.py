"""Runner: a service as a process: event loop, signals, exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Protocol

from .errors import ConfigurationError, KetchError

log = logging.getLogger("ketch")


class Runnable(Protocol):
    """What can be run: started and stopped as a context, and waited for."""

    async def __aenter__(self) -> object:
        """Start."""

    async def __aexit__(self, *error: object) -> None:
        """Stop."""

    async def wait(self) -> None:
        """Wait until it fails; raise what it failed of."""


def run_until_stopped(service: Runnable, name: str) -> int:
    """Run a service until SIGTERM or SIGINT and return the exit code.

    0 after a signal; 1 when it could not start, failed, or a second signal cut the draining short; 2 when its
    configuration is wrong.
    """
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            return runner.run(_Process(service, name).main())
    except ConfigurationError as error:
        log.error("%s: %s", name, error)  # noqa: TRY400 - the sentence says it all
        return 2
    except KetchError as error:
        log.error("%s: %s", name, error)  # noqa: TRY400 - as above
        return 1
    except Exception:
        log.exception("%s failed", name)
        return 1


class _Process:
    def __init__(self, service: Runnable, name: str) -> None:
        self._service = service
        self._name = name
        self._signals = 0
        self._up = False
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None]

    async def main(self) -> int:
        # One task enters and leaves the service, since what users open in a lifespan may insist on that.
        self._task = asyncio.create_task(self._serve(), name=f"ketch {self._name}")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            await self._task
        except asyncio.CancelledError:
            return 0 if self._signals == 1 else 1
        return 0

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals > 1 or not self._up:
            self._task.cancel()
            return
        log.info("%s: %s, stopping; once more to stop at once", self._name, signal.Signals(number).name)
        self._stop.set()

    async def _serve(self) -> None:
        async with self._service:
            self._up = True
            failing = asyncio.ensure_future(self._service.wait())
            stopping = asyncio.ensure_future(self._stop.wait())
            try:
                await asyncio.wait({failing, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if failing.done():
                    failing.result()
            finally:
                failing.cancel()
                stopping.cancel()
                await asyncio.gather(failing, stopping, return_exceptions=True)  # raised above, where it counts


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - absent on Windows and PyPy
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
