"""Publisher: publishes, and waits for the server's confirmation; many at a time share packets both ways.

What was on its way when the connection broke is published again when it is back, within the publish timeout: the
server may have taken it the first time, so it may come twice. That is what at least once means.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from pamqp import commands
from pamqp.exceptions import AMQPAccessRefused, AMQPError, AMQPNotFound, AMQPPreconditionFailed

from ...errors import BrokerError, BrokerUnavailable, MessageTooLarge
from .confirming import ConfirmChannel, Outgoing
from .link import refused, waits, why

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pamqp.base import Frame

    from .config import Config
    from .connection import Connection
    from .link import Link

log = logging.getLogger("ketch.broker")

#: Channels that are closed by the server under a message until it is the message that counts as refused.
_REFUSALS = 5


class Publisher:
    """Publishes over a link, with one channel that is opened again whenever it ends."""

    def __init__(self, config: Config, link: Link, topology: Sequence[Frame]) -> None:
        """Make it, not open.

        Args:
            config: whose timeouts and place it takes.
            link: its connection.
            topology: methods that declare what it publishes to.
        """
        self._config = config
        self._link = link
        self._topology = topology
        self._channel: ConfirmChannel | None = None
        self._ready = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._marks: list[tuple[ConfirmChannel, int]] = []
        self._largest = 0
        self.epoch = 0  # counts the channels: what was declared for the one before may be gone
        self._trouble = "it isn't open"

    @property
    def trouble(self) -> str:
        """Why nothing can be published, though there is a connection; "" where all is well."""
        return self._trouble if self._channel is None else ""

    async def open(self) -> None:
        """Declare what is published to.

        Raises:
            BrokerUnavailable: the connection is lost again.
            BrokerError: the server refuses it.
        """
        try:
            await self._attach()
        except (AMQPError, OSError, TimeoutError) as error:
            kind = BrokerError if refused(error) else BrokerUnavailable
            raise kind(
                f"{self._config.location}: the exchange {self._config.exchange!r} can't be declared: {why(error)}; "
                "another one is named by ?exchange="
            ) from error
        self._keeper = asyncio.create_task(self._keep())

    async def _attach(self) -> None:
        connection = await self._link.connected()
        channel = connection.channel(ConfirmChannel)
        setup = (commands.Channel.Open(), commands.Confirm.Select(), *self._topology)
        await channel.call(*setup, timeout=self._config.timeout)
        self._channel = channel
        self.epoch += 1
        self._trouble = ""
        self._ready.set()

    async def _keep(self) -> None:
        while True:
            if self._channel is not None:
                error = await asyncio.shield(self._channel.lost)
                self._channel = None
                self._ready.clear()
                self._trouble = f"{self._config.location}: nothing can be published: {why(error)}"
                if isinstance(error, AMQPError):
                    log.warning("rabbitmq: the channel for publishing was closed: %s", error)
            await self._again()

    async def _again(self) -> None:
        for wait in waits():
            try:
                await self._attach()
            except (AMQPError, OSError, TimeoutError) as error:
                self._trouble = f"{self._config.location}: nothing can be published: {why(error)}"
                log.info("rabbitmq: %s", self._trouble)
                await asyncio.sleep(wait)
            else:
                return

    async def publish(self, message: Outgoing) -> None:
        """Publish, and return when the server took it.

        Raises:
            BrokerUnavailable: it can't be reached, takes nothing, or doesn't confirm in time.
            MessageTooLarge: over the server's limit.
            BrokerError: the server refuses it.
        """
        channel = self._channel
        connection = self._link.connection
        if channel is None or connection is None or connection.full or connection.blocked:
            await self._publish_patiently(message)
            return
        self._check_size(message, connection)
        if self._watch is None:
            self._start_watch()
        try:
            taken = await channel.publish(message)
        except TimeoutError:
            raise self._unconfirmed(message) from None
        except (AMQPError, OSError) as error:
            self._learn(message, error)
            await self._publish_patiently(message)
            return
        self._check(message, taken=taken)

    async def _publish_patiently(self, message: Outgoing) -> None:
        """Publish as soon as there is a channel that has room."""
        refusals = 0
        try:
            async with asyncio.timeout(self._config.timeout):
                while True:
                    await self._ready.wait()
                    connection = await self._link.connected()
                    await connection.room()
                    if connection.blocked:
                        await asyncio.sleep(0.05)
                        continue
                    channel = self._channel
                    if channel is None or channel.lost.done():
                        await asyncio.sleep(0.01)
                        continue
                    self._check_size(message, connection)
                    try:
                        taken = await channel.publish(message)
                    except (AMQPError, OSError) as error:
                        if isinstance(error, TimeoutError):
                            raise
                        self._learn(message, error)
                        refusals += isinstance(error, AMQPError)
                        if refusals > _REFUSALS:
                            raise BrokerError(f"{self._config.location}: not published: {error}") from error
                        continue
                    self._check(message, taken=taken)
                    return
        except TimeoutError:
            raise self._unconfirmed(message) from None

    def _unconfirmed(self, message: Outgoing) -> BrokerUnavailable:
        because = self._link.trouble or self.trouble or f"{self._config.location} doesn't confirm it"
        return BrokerUnavailable(
            f"rabbitmq: publishing to {message.key} was given up after {self._config.timeout:g} s: {because}"
        )

    def _check(self, message: Outgoing, *, taken: bool) -> None:
        if not taken:
            raise BrokerError(
                f"{self._config.location}: the server did not take the event on {message.key}: a queue of it is full, "
                "or has lost its majority"
            )

    def _check_size(self, message: Outgoing, connection: Connection) -> None:
        if len(message.properties) > connection.frame_max - 64:
            raise MessageTooLarge(
                f"headers of {len(message.properties)} bytes are over the server's limit of {connection.frame_max - 64}"
            )
        if self._largest and len(message.body) > self._largest:
            raise MessageTooLarge(f"{len(message.body)} bytes are over the server's limit of {self._largest}")

    def _learn(self, message: Outgoing, error: Exception) -> None:
        """Raise if it is this message that the channel was closed for; all on it have to be told apart."""
        said = str(error)
        if isinstance(error, AMQPPreconditionFailed) and "larger than configured max size" in said:
            limit = said.rpartition(" ")[2]
            if limit.isdecimal():
                self._largest = int(limit)
        if isinstance(error, AMQPAccessRefused) and (f"'{message.key}'" in said or "topic" not in said):
            raise BrokerError(f"{self._config.location}: {said}")
        if (
            isinstance(error, AMQPNotFound)
            and f"'{message.exchange}'" in said
            and message.exchange != self._config.exchange
        ):
            raise BrokerUnavailable(f"{self._config.location}: {said}")

    # --- those that are never confirmed: one timer for all

    def _start_watch(self) -> None:
        self._watch = asyncio.get_running_loop().call_later(self._config.timeout / 4, self._look)

    def _look(self) -> None:
        channel = self._channel
        self._watch = None
        if channel is None or channel.idle:
            self._marks.clear()
            return
        self._marks.append((channel, channel.tag))
        if len(self._marks) > 4:  # noqa: PLR2004 - four looks are one timeout
            old, tag = self._marks.pop(0)
            old.give_up(tag)
        self._start_watch()

    # --- the end

    async def close(self) -> None:
        """Stop; what is on its way is written before the connection is closed."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        channel, self._channel = self._channel, None
        self._ready.clear()
        self._trouble = "it isn't open"
        if channel is not None and not channel.lost.done():
            await self._confirmed(channel)
            await channel.close(self._config.timeout)

    async def _confirmed(self, channel: ConfirmChannel) -> None:
        try:
            async with asyncio.timeout(self._config.timeout):
                while not channel.idle:  # noqa: ASYNC110 - rare: whoever publishes has mostly waited by itself
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.warning("rabbitmq: closed before %s had confirmed everything", self._config.location)
