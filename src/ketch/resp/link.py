"""Link: a connection that is made again, for ever."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any

from hiredis import ReplyError

from ..errors import BrokerError, BrokerUnavailable
from .connection import Argument, Connection, Pushed
from .refusal import refusal, refused_login

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .config import Config

log = logging.getLogger("ketch.broker")

#: Seconds between two tries to reach the server again: at first, and at most.
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0


async def _no_greeting(_: Connection) -> None:
    pass


class Link:
    """A connection that is made again, for ever, with backoff.

    Args:
        config: where, as whom, how long.
        name: what the server's `CLIENT LIST` shows; never a secret.
        greet: called with each new connection before anybody else uses it.
        pushed: see `Connection`.
        blocks: seconds that a command may block on the server.
        quiet: whether what becomes of it is for debugging only, because another link to the server tells.
    """

    def __init__(
        self,
        config: Config,
        name: str,
        *,
        greet: Callable[[Connection], Awaitable[None]] = _no_greeting,
        pushed: Pushed | None = None,
        blocks: float = 0.0,
        quiet: bool = False,
    ) -> None:
        self._config = config
        self._name = "".join(c if "!" <= c <= "~" else "-" for c in name)
        self._greet = greet
        self._pushed = pushed
        self._patience = config.timeout + blocks
        self._level = logging.DEBUG if quiet else logging.WARNING
        self._up = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        #: The connection, None while there is none.
        self.connection: Connection | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerUnavailable: the server can't be reached within `connect_timeout`.
            BrokerError: it refuses us.
        """
        self._use(await self._connect())
        self._keeping = asyncio.create_task(self._keep())

    async def _connect(self) -> Connection:
        config = self._config
        connection: Connection | None = None
        try:
            async with asyncio.timeout(config.connect_timeout):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(config.location, self._patience, self._pushed),
                    config.host,
                    config.port,
                    ssl=config.tls,
                )
                await self._introduce(connection)
                await self._greet(connection)
        except BaseException as error:
            if connection is not None:
                connection.abort("it wasn't taken into use")
            if isinstance(error, (OSError, TimeoutError)):
                raise BrokerUnavailable(f"{config.location}: {str(error) or 'no answer'}; is it running?") from error
            if isinstance(error, ReplyError):
                raise self._refused(error) from error
            raise
        return connection

    async def _introduce(self, connection: Connection) -> None:
        config = self._config
        if config.password:
            who = (config.username, config.password) if config.username else (config.password,)
            await connection.request("AUTH", *who)
        # In one write; a server that loads its data answers the first with an error.
        answers: tuple[Any, ...] = await asyncio.gather(
            connection.request("PING"),
            connection.request("SELECT", config.database),
            connection.request("CLIENT", "SETNAME", self._name),
            return_exceptions=True,
        )
        for answer in answers[:2]:
            if isinstance(answer, BaseException):
                raise answer
        if isinstance(answers[2], ReplyError):
            log.debug("%s: the connection stays without a name: %s", config.location, answers[2])

    def _refused(self, error: ReplyError) -> BrokerError:
        if refused_login(error):
            return BrokerError(f"{self._config.location}: the server refuses our credentials")
        return refusal(self._config.location, "can't connect", error)

    def _use(self, connection: Connection) -> None:
        self.connection = connection
        self._up.set()

    async def _keep(self) -> None:
        while self.connection is not None:
            await self.connection.lost.wait()
            why = self.connection.why
            self.connection = None
            self._up.clear()
            log.log(self._level, "redis: lost %s, trying on: %s", self._config.location, why)
            self._use(await self._reconnect())
            log.log(self._level, "redis: %s is back; subscriptions go on", self._config.location)

    async def _reconnect(self) -> Connection:
        wait = _FIRST_WAIT
        told = ""
        while True:
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            wait = min(wait * 2, _LONGEST_WAIT)
            try:
                return await self._connect()
            except BrokerUnavailable as error:
                log.debug("redis: %s", error)
            except BrokerError as error:
                if told != str(error):  # one line for each change
                    log.log(self._level, "redis: %s", error)
                    told = str(error)
            except Exception:  # whatever it is, to give up would leave a deaf program that looks well
                log.exception("redis: can't connect to %s, trying on", self._config.location)

    async def up(self) -> Connection:
        """Return the connection; wait for it, if need be, up to the timeout.

        Raises:
            BrokerUnavailable: it doesn't come back in time.
        """
        if self.connection is not None and not self.connection.lost.is_set():
            return self.connection
        if self._keeping is None:
            raise BrokerUnavailable(f"{self._config.location}: the connection was closed")
        try:
            async with asyncio.timeout(self._config.timeout):
                return await self.back()
        except TimeoutError:
            raise BrokerUnavailable(
                f"{self._config.location}: waited {self._config.timeout:g} s for the lost connection"
            ) from None

    async def back(self) -> Connection:
        """Return the connection; wait for it, if need be, however long."""
        while self.connection is None or self.connection.lost.is_set():
            self._up.clear()
            await self._up.wait()
        return self.connection

    async def call(self, *command: Argument) -> Any:
        """Send a command and return its reply.

        Raises:
            BrokerUnavailable: no connection, or it is lost before the reply.
            hiredis.ReplyError: an error of the server's.
        """
        return await (await self.up()).request(*command)

    async def close(self) -> None:
        """Disconnect, whatever is on its way."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait({keeping})
        connection, self.connection = self.connection, None
        self._up.clear()
        if connection is not None:
            connection.abort("it was closed")

    @property
    def trouble(self) -> str:
        """Why it isn't there just now, "" where it is."""
        if self._keeping is None or (self.connection is not None and not self.connection.lost.is_set()):
            return ""
        return f"the connection to {self._config.location} is lost"
