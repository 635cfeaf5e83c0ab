"""Lifetime: a server's connections end in good order when they are old or idle (gRPC's A9, "max connection age").

A client that kept one connection for ever would never notice new instances behind a load balancer. It is told to open
another one (GOAWAY), and what it has under way is finished first.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..http2.streams import Streams
    from .tuning import Tuning

#: By how much an age differs from connection to connection, so that a fleet doesn't reconnect all at once.
_JITTER: Final = 0.1


class Lifetime:
    """Ends one connection.

    Args:
        loop: the connection's.
        tuning: how old and how idle it may become.
        streams: the open ones.
        drain: tells the peer to go elsewhere and waits for the calls in hand.
        finish: cancels what is left, and closes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tuning: Tuning,
        streams: Streams,
        drain: Callable[[], Awaitable[None]],
        finish: Callable[[], Awaitable[None]],
    ) -> None:
        self._loop = loop
        self._tuning = tuning
        self._streams = streams
        self._drain = drain
        self._finish = finish
        self._seen = -1
        self._age: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None
        if tuning.max_connection_age:
            age = tuning.max_connection_age * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load, hides nothing
            self._age = loop.call_later(age, self._end)
        if tuning.max_connection_idle:
            self._look()

    def stop(self) -> None:
        """End nothing any more: the connection is gone, or is ended by somebody else."""
        for timer in (self._age, self._idle):
            if timer is not None:
                timer.cancel()

    def _look(self) -> None:
        opened = self._streams.past.highest
        if opened == self._seen and not self._streams:
            self._end()
            return
        self._seen = opened
        self._idle = self._loop.call_later(self._tuning.max_connection_idle, self._look)

    def _end(self) -> None:
        self.stop()
        if self._ending is None:
            self._ending = self._loop.create_task(self._see_off(), name="ketch end of a connection")

    async def _see_off(self) -> None:
        grace = self._tuning.max_connection_age_grace
        try:
            async with asyncio.timeout(grace or None):
                await self._drain()
        except TimeoutError:
            pass  # what is left is cancelled next
        await self._finish()
