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
    from .frames import Frame

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
        ready: Callable[[Connection], Awaitable[None]],
        on_lost: Callable[[], None],
        on_messages: Callable[[list[Frame]], None],
        on_answer: Callable[[str, str], None],
    ) -> None:
        """Describe it.

        Args:
            config: where, and who we are.
            what: what the connection is for, in logs.
            ready: called with each new connection; what it raises ends the connection.
            on_lost: called when a connection that was ready is lost.
            on_messages: as in `Connection`.
            on_answer: as in `Connection`.
        """
        self.connection: Connection | None = None
        self.trouble = ""
        self._config = config
        self._what = what
        self._ready = ready
        self._on_lost = on_lost
        self._on_messages = on_messages
        self._on_answer = on_answer
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and keep the connection from now on.

        Raises:
            BrokerUnavailable: nobody answers in time.
            BrokerError: the server refuses us.
        """
        await self._connect()
        self._keeping = asyncio.create_task(self._keep(), name=f"ketch stomp {self._what}")

    async def close(self) -> None:
        """Send what was written, and disconnect."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
            self._keeping = None
        connection, self.connection = self.connection, None
        if connection is not None:
            await connection.close(self._config.timeout)

    async def _connect(self) -> None:
        location = self._config.location
        connection = Connection(self._on_messages, self._on_answer, self._config.heartbeat)
        try:
            async with asyncio.timeout(self._config.connect_timeout):
                await dial(self._config, connection)
                await connection.connect(self._config)
                await self._ready(connection)
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
                log.warning("stomp: lost %s for %s, trying on: %s", self._config.location, self._what, why)
                self._on_lost()
            await self._again()
            log.warning("stomp: %s is back for %s", self._config.location, self._what)

    async def _again(self) -> None:
        pause = _FIRST
        while True:
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            try:
                await self._connect()
            except BrokerError as error:
                self.trouble = str(error)
                pause = min(2 * pause, _LAST)
            else:
                return
