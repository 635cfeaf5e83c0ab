"""Link: a connection that is made again, for ever, whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from ...errors import BrokerError, BrokerUnavailable
from .connection import Connection, dial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .config import Config
    from .packets import Answer, Connect, Publish

log = logging.getLogger("ketch.broker")

#: Seconds before the first and, at most, before any further try to connect again.
_FIRST, _LAST = 0.1, 10.0


class Link:
    """Keeps one connection.

    Attributes:
        connection: the connection, ready for use; None while there is none.
        trouble: why there is none; "" where there is one.
    """

    def __init__(
        self,
        config: Config,
        what: str,
        *,
        hello: Callable[[], Connect],
        ready: Callable[[Connection, Answer], Awaitable[None]],
        on_lost: Callable[[Connection], None],
        wanted: Callable[[], bool] = lambda: True,
        on_publishes: Callable[[list[Publish]], None],
        on_puback: Callable[[int, int], None],
    ) -> None:
        """Describe it.

        Args:
            config: where, and who we are.
            what: what the connection is for, in logs.
            hello: what a connection begins with.
            ready: called with each new connection and the server's welcome; what it raises ends the connection.
            on_lost: called when a connection that was ready is lost.
            wanted: asked before each new try whether to go on.
            on_publishes: as in `Connection`.
            on_puback: as in `Connection`.
        """
        self.connection: Connection | None = None
        self.trouble = ""
        self._config = config
        self._what = what
        self._hello = hello
        self._ready = ready
        self._on_lost = on_lost
        self._wanted = wanted
        self._on_publishes = on_publishes
        self._on_puback = on_puback
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and keep the connection from now on.

        Raises:
            BrokerUnavailable: nobody answers in time.
            BrokerError: the server refuses us.
        """
        await self._connect()
        self._keeping = asyncio.create_task(self._keep(), name=f"ketch mqtt {self._what}")

    async def close(self, *, forget: bool) -> None:
        """Send what was written, take leave; `forget` has the server forget the session."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
            self._keeping = None
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close(self._config.timeout, forget=forget)

    async def _connect(self) -> None:
        location = self._config.location
        connection = Connection(self._on_publishes, self._on_puback, self._config.keepalive)
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                await dial(self._config, connection)
                answer = await connection.connect(self._hello())
                await self._ready(connection, answer)
        except (TimeoutError, OSError, BrokerUnavailable) as error:
            connection.abort("it didn't come about")
            why = str(error) or f"no answer within {self._config.connect_timeout:g} s"
            raise BrokerUnavailable(f"{location}: {why}; is it running?") from error
        except BrokerError as error:
            connection.abort("it was refused")
            raise type(error)(f"{location}: {error}") from error
        except BaseException:
            connection.abort("given up")
            raise
        self.connection = connection
        self.trouble = ""

    async def _keep(self) -> None:
        while True:
            connection = self.connection
            if connection is not None:
                why = await asyncio.shield(connection.lost)
                self.connection = None
                self.trouble = f"the connection to {self._config.location} is lost: {why}"
                log.warning("mqtt: lost %s for %s, trying on: %s", self._config.location, self._what, why)
                self._on_lost(connection)
            if not await self._again():
                return
            log.warning("mqtt: %s is back for %s", self._config.location, self._what)

    async def _again(self) -> bool:
        """Connect again; False when that isn't wanted any more."""
        pause = _FIRST
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            if not self._wanted():
                return False
            try:
                await self._connect()
            except BrokerError as error:
                self.trouble = str(error)
                pause = min(2 * pause, _LAST)
            else:
                return True
