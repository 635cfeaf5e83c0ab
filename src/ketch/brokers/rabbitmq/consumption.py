"""Consumption: a queue's consumer at the server, on a channel of its own, begun anew whenever it ends.

It ends with the connection, by an error of the server's, or because the queue was deleted; all that it needs is
declared again then. One whose queue holds events while nothing comes is taken for lost, too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pamqp.commands import Basic, Queue
from pamqp.commands import Channel as ChannelMethods
from pamqp.exceptions import AMQPError

from ...errors import BrokerError
from .link import refused, waits, why
from .taking import TakingChannel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pamqp.base import Frame

    from .config import Config
    from .link import Link
    from .taking import Taker

log = logging.getLogger("ketch.broker")

#: Seconds after which silence is looked into. After a channel was lost that is soon, for a server that has just crashed
#: may take a consumer and forget it; then seldom.
_FIRST_SILENCE: Final = 2.0
_SILENCE: Final = 30.0


class Source(NamedTuple):
    """What is taken from.

    Attributes:
        topic: the topic or pattern.
        queue: the queue's name.
        frames: what declares it.
        alone: whether it is one subscription's alone.
    """

    topic: str
    queue: str
    frames: Sequence[Frame]
    alone: bool


class Consumption:
    """Consumes a queue for one taker, until it is stopped."""

    def __init__(self, config: Config, link: Link, source: Source, prefetch: int, taker: Taker) -> None:
        self._config = config
        self._link = link
        self._source = source
        self._prefetch = self._limit = prefetch
        self._taker = taker
        self._channel: TakingChannel | None = None
        self._consumer = 0
        self._changing = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._stopped = False
        self._trouble = ""
        self._silence = _SILENCE
        #: Whether the consumer is ended for a change of the limit, and begins again when enough is settled.
        self.pausing = False

    @property
    def trouble(self) -> str:
        """Why nothing is taken just now."""
        if self._stopped or self._channel is not None:
            return ""
        return self._trouble or f"{self._source.topic}: nothing is taken"

    # --- beginning, and beginning again

    async def open(self) -> None:
        """Begin to take.

        Raises:
            AMQPError, OSError, TimeoutError: as `Channel.call`.
        """
        await self._attach()
        self._keeper = asyncio.create_task(self._keep())
        self._keeper.add_done_callback(self._on_keeper_end)

    def _on_keeper_end(self, keeper: asyncio.Task[None]) -> None:
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self._taker.on_failure(BrokerError(f"{self._source.topic}: the subscription is lost: {error!r}"))

    async def _attach(self) -> None:
        async with asyncio.timeout(self._config.timeout):
            connection = await self._link.connected()
        async with self._changing:
            if self._stopped:
                return
            channel = connection.channel(lambda line, number: TakingChannel(line, number, self._taker))
            frames = self._consume(self._limit)
            await channel.call(ChannelMethods.Open(), *self._source.frames, *frames, timeout=self._config.timeout)
            self._channel = channel
            self._trouble = ""
            self.pausing = False

    def _consume(self, limit: int) -> list[Frame]:
        self._consumer += 1
        return [
            Basic.Qos(prefetch_count=max(1, min(limit, 65_535))),
            Basic.Consume(queue=self._source.queue, consumer_tag=f"ketch-{self._consumer}"),
        ]

    async def _keep(self) -> None:
        while True:
            channel = self._channel
            if channel is not None:
                reason = await self._lost(channel)
                self._channel = None
                self._taker.on_loss(channel)
                self._trouble = f"{self._source.topic}: nothing is taken: {reason}"
                if self._link.connection is not None and not self._stopped:
                    log.warning("rabbitmq: %s, subscribing anew", self._trouble)
            if self._stopped or not await self._again():
                return

    async def _again(self) -> bool:
        """Begin again, as often as it takes; False if the server will never let us."""
        for wait in waits():
            try:
                await self._attach()
            except (AMQPError, OSError, TimeoutError) as error:
                if refused(error):
                    self._taker.on_failure(BrokerError(f"{self._config.location}: {self._source.topic}: {error}"))
                    return False
                self._trouble = f"{self._source.topic}: nothing is taken: {why(error)}"
                log.info("rabbitmq: %s", self._trouble)
                await asyncio.sleep(wait)
            else:
                break
        return True

    # --- being lost

    async def _lost(self, channel: TakingChannel) -> str:
        """Wait until nothing more can come on a channel, and say why."""
        ends: tuple[asyncio.Future[Any], ...] = (channel.lost, channel.cancelled)
        while True:
            before = channel.taken
            await asyncio.wait(ends, timeout=self._silence, return_when=asyncio.FIRST_COMPLETED)
            self._silence = min(2 * self._silence, _SILENCE)
            if channel.lost.done():
                self._silence = _FIRST_SILENCE
                return why(channel.lost.result())
            if channel.cancelled.done():
                await channel.close(self._config.timeout)
                return "its queue was deleted, or has lost its server"
            if channel.taken == before and await self._deaf(channel):
                await channel.close(self._config.timeout)
                return "its queue holds events, and none came"

    async def _deaf(self, channel: TakingChannel) -> bool:
        """Tell whether the queue holds events for us, and none came, twice in a row.

        All is declared again with it: a binding that somebody took away would be silence, too.
        """
        before = channel.taken
        for _ in range(2):
            if channel.taken != before or channel.unsettled or self._stopped or self.pausing:
                return False
            try:
                found = await channel.call(*self._source.frames, timeout=self._config.timeout)
            except (AMQPError, OSError):
                return False  # then the channel has ended: the next round will tell
            if not self._waiting(found):
                return False
            await asyncio.sleep(1.0)
        return channel.taken == before

    def _waiting(self, replies: Sequence[Frame]) -> int:
        """Return how many events wait in the queue, by the server's answers to its declaration."""
        queue = self._source.queue
        counts = [r.message_count or 0 for r in replies if isinstance(r, Queue.DeclareOk) and r.queue == queue]
        return counts[-1] if counts else 0

    # --- less, and no more

    async def limit(self, unsettled: int) -> None:
        """Take fewer or more ahead: end the consumer and begin another, for a quorum queue's can't be changed."""
        async with self._changing:
            channel = self._channel
            if self._stopped or unsettled == self._limit:
                return
            self._limit = min(unsettled, self._prefetch)
            if channel is None or channel.lost.done() or self.pausing:
                return
            self.pausing = await self._ask(channel, Basic.Cancel(f"ketch-{self._consumer}"))
        await self.go_on()

    async def go_on(self) -> None:
        """Consume again after a change of the limit, as soon as enough is settled that the bound holds."""
        async with self._changing:
            channel = self._channel
            if channel is None or not self.pausing or self._stopped:
                return
            room = self._prefetch - channel.unsettled
            if room >= min(self._limit, max(1, self._prefetch // 4)):
                self.pausing = False
                await self._ask(channel, *self._consume(min(self._limit, room)))

    async def _ask(self, channel: TakingChannel, *methods: Frame) -> bool:
        try:
            await channel.call(*methods, timeout=self._config.timeout)
        except (AMQPError, OSError) as error:
            log.info("rabbitmq: %s: %s", self._source.topic, why(error))
        else:
            return True
        return False

    async def stop(self) -> None:
        """End the consumer; all that was on its way has come when the server has said so."""
        if self._stopped:
            return
        self._stopped = True
        async with self._changing:
            channel = self._channel
            if channel is not None and not channel.lost.done() and not self.pausing:
                await self._ask(channel, Basic.Cancel(f"ketch-{self._consumer}"))

    async def close(self) -> None:
        """Close the channel, which gives back what isn't settled, and take the queue away that nobody else has."""
        await self.stop()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        channel, self._channel = self._channel, None
        if channel is not None and not channel.lost.done():
            if self._source.alone:
                await self._ask(channel, Queue.Delete(queue=self._source.queue))
            await channel.close(self._config.timeout)
