"""Following: a name's instances, read once and then kept current by what is told.

Nothing is polled for news. What the server is asked for is what nobody tells: whether a record has run out, at the
moment at which the first of them would have, had it not been renewed. Who asks first removes it, others are told.
"""

from __future__ import annotations

import asyncio
from random import uniform
from typing import TYPE_CHECKING

from ..complaints import Complaints
from .shelf import shelves_for
from .view import View

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ...registry import Instance
    from .config import Config
    from .listening import Ear, Listening
    from .store import Store

#: Seconds that watchers spread over what they ask at the same moment.
_SPREAD = 0.1


class Following:
    """Follows names."""

    def __init__(self, config: Config, store: Store, listening: Listening) -> None:
        self._config = config
        self._store = store
        self._listening = listening
        self._complaints = Complaints(config.location)
        self._now = asyncio.get_running_loop().time

    async def follow(self, name: str | None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield all instances that answer to a name: at once, then after each change.

        Raises:
            RegistryError: the server is away, or something was missed.
        """
        shelves = shelves_for(self._config.prefix, name)
        async with self._listening.listen([shelf.channel for shelf in shelves]) as ear:
            views = {shelf.channel: View(shelf, name, self._complaints) for shelf in shelves}
            for view in views.values():
                await self._read(view)
            self._apply(views, ear)
            yield _snapshot(views)
            while True:
                await ear.wait(min(view.due for view in views.values()) - self._now())
                changed = self._apply(views, ear)
                for view in views.values():
                    if view.due <= self._now():
                        version = await self._sweep(view)
                        await ear.catch_up()
                        changed |= self._apply(views, ear)
                        view.check(version)
                if changed:
                    yield _snapshot(views)

    def _apply(self, views: dict[str, View], ear: Ear) -> bool:
        now, news = self._now(), 0
        for channel, change in ear.take():
            news += views[channel].apply(change, now)
        return bool(news)

    async def _read(self, view: View) -> None:
        view.version = await self._sweep(view)
        async for key, data in self._store.read(view.shelf):
            view.put(key, data)

    async def _sweep(self, view: View) -> int:
        """Have the server remove what has run out; return its version of the shelf."""
        version, left = await self._store.sweep(view.shelf)
        # The channel tells it all; but to look once in a time to live costs little, and what is wrong comes out.
        left = self._config.ttl if left is None else min(left, self._config.ttl)
        view.due = self._now() + left + uniform(0, _SPREAD)  # noqa: S311 - spreading needs no secret
        return version


def _snapshot(views: dict[str, View]) -> tuple[Instance, ...]:
    return tuple({key: instance for view in views.values() for key, instance in view.instances.items()}.values())
