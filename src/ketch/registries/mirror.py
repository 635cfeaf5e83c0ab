"""Mirror: what a backend that can be away has told us, for everybody who watches it here."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from functools import partial
from random import uniform
from typing import TYPE_CHECKING

from ..cancellation import cancelled
from ..errors import NotRunning, RegistryError
from .feed import Feed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from ..registry import Instance

    #: Yields all that answers to a name (all there is, for None): at once, then after each change. It raises
    #: `RegistryError` when the backend is lost; it is called again then.
    Follow = Callable[[str | None], AsyncGenerator[tuple[Instance, ...], None]]

log = logging.getLogger("ketch.registry")

#: Seconds before a watch that was lost is begun again: doubled each time, and spread, for all clients lose it together.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0


class Mirror:
    """Follows each name once, however many watch it, and outlives the backend's absences.

    While the backend is away, watchers keep what they knew. When it is back it may have lost its memory, or not have
    heard of the living yet: instances that are missing from it then are believed in for `keep` seconds more, in which
    they register again.

    Args:
        follow: see `Follow`.
        place: the backend, for people; never a secret.
        keep: seconds; a little more than what it takes the living to register again.
    """

    def __init__(self, follow: Follow, place: str, keep: float) -> None:
        self._follow = follow
        self._place = place
        self._keep = keep
        self._followers: dict[str | None, _Follower] = {}

    @property
    def trouble(self) -> str:
        """Why what is known may be old, "" when it isn't."""
        return next((follower.trouble for follower in self._followers.values() if follower.trouble), "")

    async def watch(self, name: str | None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield snapshots, as `Registry.watch` has it, until `close`.

        Raises:
            RegistryError: the first snapshot can't be read.
        """
        follower = self._followers.get(name)
        if follower is None:
            follower = _Follower(partial(self._follow, name), self._place, self._keep, lambda: bool(self.trouble))
            self._followers[name] = follower
        follower.watchers += 1
        try:
            await asyncio.shield(follower.first)
            async with aclosing(follower.feed.watch(None)) as snapshots:
                async for snapshot in snapshots:
                    yield snapshot
        finally:
            follower.watchers -= 1
            if not follower.watchers or follower.failed:
                if self._followers.get(name) is follower:
                    del self._followers[name]
                await follower.close()

    async def close(self) -> None:
        """End all watches. Closing twice is no error."""
        followers, self._followers = self._followers, {}
        for follower in followers.values():
            await follower.close()


class _Follower:
    """One name, followed. Of many that lose the backend at the same time one says so, by `known`."""

    def __init__(
        self,
        follow: Callable[[], AsyncGenerator[tuple[Instance, ...], None]],
        place: str,
        keep: float,
        known: Callable[[], bool],
    ) -> None:
        self.feed = Feed()
        self.watchers = 0
        self.trouble = ""
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._follow = follow
        self._place = place
        self._keep = keep
        self._known = known
        self._latest: tuple[Instance, ...] = ()
        self._doubted: dict[str, Instance] = {}
        self._doubt_ends: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run(), name=f"ketch registry watch at {place}")

    @property
    def failed(self) -> bool:
        """Whether there was never a first snapshot."""
        return self.first.done() and (self.first.cancelled() or self.first.exception() is not None)

    async def close(self) -> None:
        self.feed.end()
        self._stop_doubting()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if not self.first.done():
            self.first.set_exception(NotRunning("the registry was closed while it was asked"))
        self.failed  # noqa: B018 - the exception is seen: `watch` raises it, if anybody still waits

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        pause = _FIRST_PAUSE
        while True:
            began = clock()
            error = await self._follow_on()
            if not self.first.done():
                self.first.set_exception(error)
                return
            if not self.trouble and clock() - began > pause:
                pause = _FIRST_PAUSE  # it held; one that breaks at once, again and again, is left alone for longer
            self._lost(error)
            await asyncio.sleep(uniform(pause / 2, pause))  # noqa: S311 - spreading needs no secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _follow_on(self) -> RegistryError:
        """Follow until the backend is lost; return why."""
        try:
            async with aclosing(self._follow()) as snapshots:
                async for snapshot in snapshots:
                    self._learn(snapshot)
        except RegistryError as error:
            return error
        except (Exception, asyncio.CancelledError) as error:
            if cancelled():
                raise
            # A bug of the plugin's; in silence we would go on with what we know for ever.
            log.exception("registry at %s: watching it failed", self._place)
            return RegistryError(f"watching it failed: {error}")
        return RegistryError("the watch has ended")

    def _lost(self, error: Exception) -> None:
        if not self._known():
            log.warning("registry at %s is away, going on with what was known: %s", self._place, error)
        self.trouble = f"registry at {self._place} is away: {error}"
        self._stop_doubting()

    def _learn(self, snapshot: tuple[Instance, ...]) -> None:
        if self.trouble:
            self.trouble = ""
            self._doubt(snapshot)
            if not self._known():
                log.info("registry at %s is back", self._place)
        self._latest = snapshot
        for instance in snapshot:
            self._doubted.pop(instance.id, None)
        self.feed.publish((*snapshot, *self._doubted.values()))
        if not self.first.done():
            self.first.set_result(None)

    def _doubt(self, snapshot: tuple[Instance, ...]) -> None:
        told = {instance.id for instance in snapshot}
        self._doubted = {one.id: one for one in self.feed.select(None) if one.id not in told}
        if self._doubted:
            log.debug("registry at %s doesn't know any more, or yet: %s", self._place, ", ".join(self._doubted))
            loop = asyncio.get_running_loop()
            self._doubt_ends = loop.call_later(self._keep, self._believe_no_more)

    def _believe_no_more(self) -> None:
        self._doubted.clear()
        self.feed.publish(self._latest)

    def _stop_doubting(self) -> None:
        # What was doubted stays in the feed while the backend is away, and is doubted again after it.
        if self._doubt_ends is not None:
            self._doubt_ends.cancel()
            self._doubt_ends = None
