"""Upkeep: keeps registered what this process has registered with a backend that forgets, or is away."""

from __future__ import annotations

import asyncio
import logging
from random import uniform
from typing import TYPE_CHECKING

from ..cancellation import cancelled
from ..errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from ..registry import Instance

    #: Writes instances, new ones and known ones alike, so that the backend keeps them for a while. It raises
    #: `RegistryError` where it can't, and bounds its own waiting.
    Write = Callable[[Collection[Instance]], Awaitable[None]]

log = logging.getLogger("ketch.registry")

#: Seconds before a renewal that failed is tried again: doubled each time up to the ordinary interval, and spread.
_FIRST_PAUSE = 0.2


class Upkeep:
    """The instances that are registered here, renewed in time and put back after an absence of the backend.

    One lock orders what is written, so a renewal never puts back what was just deregistered; `drop` and whatever else
    a plugin writes about these instances is done while holding it.

    Args:
        write: see `Write`.
        every: seconds between two renewals; a third of the backend's time to live is customary.
        place: the backend, for people; never a secret.
    """

    def __init__(self, write: Write, every: float, place: str) -> None:
        self.held: dict[str, Instance] = {}
        self.lock = asyncio.Lock()
        self.trouble = ""
        self._write = write
        self._every = every
        self._place = place
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def add(self, instance: Instance) -> None:
        """Write an instance, and keep it there.

        Raises:
            RegistryError: it can't be written; it isn't kept then.
        """
        async with self.lock:
            await self._write((instance,))
            self.held[instance.id] = instance
        if self._task is None:
            self._task = asyncio.create_task(self._renew(), name=f"ketch registrations at {self._place}")

    def renew_now(self) -> None:
        """Renew at once: the backend may have lost what it knew."""
        self._due.set()

    async def close(self) -> tuple[Instance, ...]:
        """Renew no more, and return what was kept, for the plugin to take away. Closing twice is no error."""
        await self._stop()
        async with self.lock:  # what is just being added is to be taken away as well
            left = tuple(self.held.values())
            self.held.clear()
        await self._stop()  # it may have begun with that
        return left

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _renew(self) -> None:
        pause = self._every
        while True:
            await self._wait(uniform(0.8 * pause, pause))  # noqa: S311 - spreading needs no secret
            try:
                async with self.lock:
                    if self.held:
                        await self._write(tuple(self.held.values()))
            except RegistryError as error:
                pause = _FIRST_PAUSE if not self.trouble else min(2 * pause, self._every)
                self._lost(error)
            except (Exception, asyncio.CancelledError) as error:
                if cancelled():
                    raise
                # A bug of the plugin's; in silence this service would drop out of everybody's sight.
                log.exception("registry at %s: renewing registrations failed", self._place)
                pause = self._every
                self._lost(error)
            else:
                pause = self._every
                if self.trouble:
                    log.info("registry at %s is back; registered again: %s", self._place, ", ".join(self.held))
                self.trouble = ""

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._due.wait()
        except TimeoutError:
            return
        self._due.clear()

    def _lost(self, error: BaseException) -> None:
        if not self.trouble:
            log.warning("registry at %s is away, registrations can't be renewed: %s", self._place, error)
        self.trouble = f"registry at {self._place} is away: {error}"
