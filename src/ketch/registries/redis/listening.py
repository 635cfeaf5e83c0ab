"""Listening: the connection over which changes are told, and who hears them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ...errors import RegistryError
from ...resp.link import Link
from .store import explained

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from ...resp.connection import Connection
    from .config import Config

#: Changes that wait for one follower; who is behind by more reads everything anew.
_MOST_WAITING = 10_000


class Ear:
    """What one follower has heard and not yet taken."""

    def __init__(self, config: Config, connection: Connection) -> None:
        self._config = config
        self._connection = connection
        self._heard: deque[tuple[str, bytes]] = deque()
        self._news = asyncio.Event()
        self._overrun = False

    def hear(self, channel: str, change: bytes) -> None:
        """Keep what was told."""
        self._overrun = self._overrun or len(self._heard) >= _MOST_WAITING
        if not self._overrun:
            self._heard.append((channel, change))
        self._news.set()

    def take(self) -> list[tuple[str, bytes]]:
        """Return channels and what was told there, in order, since the last time.

        Raises:
            RegistryError: some of it is lost.
        """
        self._news.clear()
        if self._connection.lost.is_set():
            where = self._config.place.location
            raise RegistryError(f"redis at {where}: the connection is lost: {self._connection.why}")
        if self._overrun:
            raise RegistryError(f"more than {_MOST_WAITING} changes came at once")
        heard = list(self._heard)
        self._heard.clear()
        return heard

    async def wait(self, seconds: float) -> None:
        """Wait for something to take, at most so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    async def catch_up(self) -> None:
        """Wait until all that the server has told by now is here.

        Raises:
            RegistryError: the server doesn't answer.
        """
        async with explained(self._config, "listening"):
            await self._connection.request("PING")

    def wake(self) -> None:
        """Let whoever waits look whether the connection is still there."""
        self._news.set()


class Listening:
    """One connection to listen on, for all followers."""

    def __init__(self, config: Config) -> None:
        self._config = config
        name = f"ketch/registry/{config.prefix}/in"
        self._link = Link(config.place, name, greet=self._greet, pushed=self._take, quiet=True)
        self._ears: dict[str, list[Ear]] = {}

    async def open(self) -> None:
        """Connect.

        Raises:
            RegistryError: the server can't be reached, or refuses us.
        """
        async with explained(self._config, "connecting"):
            await self._link.open()

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()

    @asynccontextmanager
    async def listen(self, channels: Collection[str]) -> AsyncIterator[Ear]:
        """Give an ear to some channels, from now on.

        Raises:
            RegistryError: the server can't be reached, or refuses us.
        """
        async with explained(self._config, "subscribing"):
            connection = await self._link.up()
        ear = Ear(self._config, connection)
        for channel in channels:
            self._ears.setdefault(channel, []).append(ear)
        watch = asyncio.create_task(_wake_when_lost(connection, ear), name="ketch ear at Redis")
        try:
            async with explained(self._config, "subscribing"):
                await asyncio.gather(*(connection.request("SUBSCRIBE", channel) for channel in channels))
            yield ear
        finally:
            watch.cancel()
            for channel in channels:
                self._leave(channel, ear, connection)
            await asyncio.wait([watch])

    def _leave(self, channel: str, ear: Ear, connection: Connection) -> None:
        ears = self._ears[channel]
        ears.remove(ear)
        if not ears:
            del self._ears[channel]
            reply = connection.request("UNSUBSCRIBE", channel)
            reply.add_done_callback(lambda done: done.cancelled() or done.exception())  # it matters to nobody

    async def _greet(self, connection: Connection) -> None:
        """Leave a new connection to those who will begin anew on it."""

    def _take(self, pushes: list[list[Any]]) -> None:
        for _, channel, change in pushes:
            name = channel.decode("utf-8", "replace")
            for ear in self._ears.get(name, ()):
                ear.hear(name, change)


async def _wake_when_lost(connection: Connection, ear: Ear) -> None:
    await connection.lost.wait()
    ear.wake()
