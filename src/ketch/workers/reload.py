"""Reload: all workers replaced, without a moment in which nobody serves."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from .process import how_it_ended
from .say import say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .process import Process
    from .slot import Slot

#: Seconds between two looks at those that start.
_LOOK: Final = 0.05


class Reload:
    """New workers are started; when all of them are ready the old ones drain. If one of them fails, the old ones stay.

    First one is started alone: what can't even be imported is said once. One reload goes on at a time; what is wanted
    meanwhile is done after it, once.

    Attributes:
        fresh: those that are starting.
        done: how many reloads there were.
        failed: why the last one failed, "" where it didn't.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        spawn: Callable[[], Process],
        dismiss: Callable[[Process, int], None],
        patience: float,
    ) -> None:
        self.fresh: list[Process] = []
        self.done = 0
        self.failed = ""
        self._slots = slots
        self._spawn = spawn
        self._dismiss = dismiss
        self._patience = patience
        self._wanted = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether one is going on."""
        return self._task is not None and not self._task.done()

    def want(self, why: str) -> None:
        """Have all workers replaced soon."""
        self._wanted = why

    def begin(self) -> None:
        """Begin, if it is wanted and none is going on."""
        if self._wanted and not self.running:
            why, self._wanted = self._wanted, ""
            self._task = asyncio.create_task(self._run(why), name="ketch reload")

    async def cancel(self) -> None:
        """End it, with those that were starting."""
        self._wanted = ""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._discard()

    async def _run(self, why: str) -> None:
        say(f"{why}, starting new workers")
        try:
            trouble = await self._start()
        except OSError as error:  # no more processes, memory or file descriptors
            trouble = f"could not be started: {error.strerror}"
        self.failed = trouble
        if trouble:
            old = sum(slot.process is not None for slot in self._slots)
            say(f"the new workers {trouble}; " + ("the old ones go on" if old else "waiting for a change"))
            self._discard()
            return
        for slot, process in zip(self._slots, self.fresh, strict=True):
            before = slot.fill(process)
            if before is not None:
                self._dismiss(before, slot.number)
        self.fresh = []
        self.done += 1
        say(f"{len(self._slots)} new worker(s) serve, the old ones drain")

    async def _start(self) -> str:
        """Start as many as there are to be; return what is wrong with them, "" for nothing."""
        for number in range(len(self._slots)):
            if number == 1 and (trouble := await self._trouble()):
                return trouble
            self.fresh.append(self._spawn())
        return await self._trouble()

    async def _trouble(self) -> str:
        """Wait until those that start are ready; return why they never will be, "" when they are."""
        deadline = time.monotonic() + self._patience
        while not all(process.report.ready for process in self.fresh):
            for process in self.fresh:
                if (code := process.look()) is not None:
                    return how_it_ended(code)
            if time.monotonic() > deadline:
                return f"were not ready after {self._patience:g} s"
            await asyncio.sleep(_LOOK)
        return ""

    def _discard(self) -> None:
        fresh, self.fresh = self.fresh, []
        for number, process in enumerate(fresh):
            self._dismiss(process, number + 1)
