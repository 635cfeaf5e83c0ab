"""Link: one nsqd's part of a channel, over a connection that is kept up."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from ...errors import BrokerError, BrokerUnavailable, SubscriptionRefused
from . import protocol
from .connection import Connection, connect
from .publishing import FIRST_WAIT, LONGEST_WAIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...broker import Site
    from .config import Config
    from .protocol import Received

log = logging.getLogger("ketch.broker")

#: Seconds for nsqd's last messages after we asked it to send no more.
_GOODBYE = 1.0


class Link:
    """A connection that takes a channel's messages, made again whenever it is lost."""

    def __init__(
        self,
        config: Config,
        site: Site,
        address: tuple[str, int],
        *,
        topic: str,
        channel: str,
        ready: int,
        take: Callable[[Link, list[Received]], None],
    ) -> None:
        """Describe it.

        Args:
            config: the broker's options.
            site: who we are.
            address: the nsqd.
            topic: NSQ's.
            channel: NSQ's.
            ready: how many messages may be unsettled.
            take: is given messages as they come.
        """
        self.connection: Connection | None = None
        self.trouble = ""
        self._config = config
        self._site = site
        self._address = address
        self._topic = topic
        self._channel = channel
        self._ready = ready
        self._take = take
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> BrokerError | None:
        """Subscribe, and keep subscribed; return what went wrong at first."""
        failure: BrokerError | None = None
        try:
            self.connection = await self._subscribe()
        except BrokerError as error:
            failure = error
            self.trouble = str(error)
        self._task = asyncio.create_task(self._keep(self.connection))
        return failure

    async def _subscribe(self) -> Connection:
        connection = await connect(self._config, self._site, self._address, self._came)
        try:
            async with asyncio.timeout(self._config.timeout):
                await connection.request(protocol.sub(self._topic, self._channel))
        except TimeoutError:
            connection.abort("it didn't answer")
            raise BrokerUnavailable(f"{self._config.location}: no answer to SUB {self._topic}") from None
        except BrokerUnavailable:
            raise
        except BrokerError as error:
            connection.abort("it was refused")
            raise SubscriptionRefused(f"{self._config.location}: {self._topic}: {error}") from error
        connection.write(protocol.rdy(min(self._ready, connection.most_ready)))
        return connection

    def _came(self, messages: list[Received]) -> None:
        self._take(self, messages)

    async def _keep(self, connection: Connection | None) -> None:
        wait = FIRST_WAIT
        while True:
            if connection is not None:
                await connection.lost.wait()
                self.trouble = f"{self._config.location}: no messages of {self._topic}: {connection.why}"
                log.warning("nsq: lost the subscription to %s, trying on: %s", self._topic, connection.why)
                self.connection = connection = None
                wait = FIRST_WAIT
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - to be apart from others, no secret
            wait = min(wait * 2, LONGEST_WAIT)
            try:
                self.connection = connection = await self._subscribe()
            except BrokerError as error:
                self.trouble = str(error)
            else:
                self.trouble = ""
                log.warning("nsq: the subscription to %s is back", self._topic)

    def ready(self, count: int) -> None:
        """Say how many messages may be unsettled from now on."""
        self._ready = count
        if self.connection is not None:
            self.connection.write(protocol.rdy(min(count, self.connection.most_ready)))

    async def stop(self) -> None:
        """Take no more; what is on its way still comes, and what came can be settled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        if self.connection is not None and not self.connection.lost.is_set():
            try:
                async with asyncio.timeout(_GOODBYE):
                    await self.connection.request(protocol.CLS)
            except (TimeoutError, BrokerError) as error:
                log.info("nsq: left %s without an answer: %s", self._topic, str(error) or "no answer")

    async def close(self) -> None:
        """End the connection; what was written is sent."""
        if self.connection is not None:
            await self.connection.close(self._config.timeout)
            self.connection = None
