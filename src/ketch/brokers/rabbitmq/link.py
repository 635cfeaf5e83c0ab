"""Link: a connection that is made again for ever."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Final

from pamqp.exceptions import AMQPError

from ...errors import BrokerError, BrokerUnavailable
from .connection import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .config import Config

log = logging.getLogger("ketch.broker")

#: Seconds to wait before the first and at most before any further try.
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0

#: Replies that no repetition changes: not allowed, or there with other properties.
_REFUSALS: Final = (403, 406, 530)


def waits() -> Iterator[float]:
    """Yield how many seconds to wait before each further try: doubled each time, with jitter, for ever."""
    wait = _FIRST_WAIT
    while True:
        yield wait * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, protects nothing
        wait = min(2 * wait, _LONGEST_WAIT)


def refused(error: Exception) -> bool:
    """Tell whether the server said no, and will say no again."""
    return isinstance(error, AMQPError) and getattr(error, "value", 0) in _REFUSALS


def why(error: Exception) -> str:
    """Return an error's text, or its class's name where it has none."""
    return str(error) or ("no answer" if isinstance(error, TimeoutError) else type(error).__name__)


class Link:
    """One of the connections: while it is lost it is made again, with backoff."""

    def __init__(self, config: Config, name: str) -> None:
        self._config = config
        self._name = name
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._last = ""

    @property
    def trouble(self) -> str:
        """Why there is no connection, or nothing is taken; "" where all is well."""
        if self._connection is None:
            return f"the connection to {self._config.location} is lost: {self._last}"
        if self._connection.blocked:
            return f"{self._config.location} takes no events: {self._connection.blocked}"
        return ""

    @property
    def connection(self) -> Connection | None:
        """The connection, None while there is none."""
        return self._connection

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailable: it can't be reached.
            BrokerError: it refuses us.
        """
        location = self._config.location
        try:
            self._take(await self._connect())
        except AMQPError as error:
            raise _refusal(location, error) from error
        except (OSError, TimeoutError) as error:
            raise BrokerUnavailable(f"{location}: {why(error)}; is it running?") from error
        self._keeper = asyncio.create_task(self._keep())

    async def _connect(self) -> Connection:
        """Try the addresses in turn."""
        last: Exception = OSError("there is no address")
        addresses = self._config.addresses
        for address in addresses:
            try:
                timeout = self._config.connect_timeout / len(addresses)
                return await Connection.open(self._config, address, self._name, timeout)
            except (OSError, TimeoutError) as error:
                last = error
        raise last

    def _take(self, connection: Connection) -> None:
        self._connection = connection
        self._up.set()

    async def _keep(self) -> None:
        while True:
            assert self._connection is not None  # noqa: S101 - that is how the loop begins and goes on
            error = await asyncio.shield(self._connection.lost)
            self._up.clear()
            self._connection = None
            self._last = why(error)
            log.warning("rabbitmq: %s: lost %s, trying on: %s", self._name, self._config.location, self._last)
            self._take(await self._again())
            log.warning("rabbitmq: %s: %s is back", self._name, self._config.location)

    async def _again(self) -> Connection:
        for wait in waits():
            await asyncio.sleep(wait)
            try:
                return await self._connect()
            except (OSError, TimeoutError, AMQPError) as error:
                if self._last != why(error):
                    self._last = why(error)
                    log.info("rabbitmq: %s: %s: %s", self._name, self._config.location, self._last)
        raise AssertionError  # `waits` has no end

    async def connected(self) -> Connection:
        """Return the connection; wait while there is none."""
        while self._connection is None:
            await self._up.wait()
        return self._connection

    async def close(self) -> None:
        """Disconnect, and stay so."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
        connection, self._connection = self._connection, None
        self._up.clear()
        self._last = "it was closed"
        if connection is not None:
            await connection.close(self._config.timeout)


def _refusal(location: str, error: AMQPError) -> BrokerError:
    # 403 while logging in is always the login; the server's text names the user.
    if getattr(error, "value", 0) == 403:  # noqa: PLR2004 - ACCESS_REFUSED
        return BrokerError(f"{location}: the server refuses our credentials")
    return BrokerError(f"{location}: the server refuses us: {error}")
