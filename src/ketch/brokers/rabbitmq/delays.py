"""Delays: events that wait at the server, in queues whose messages expire into the queue that they are for.

There is a queue for each of a row of delays, eight for each doubling, made when it is needed; the server removes it ten
minutes after it was last of use. An event expires to the millisecond, unless one that waits longer is before it.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from pamqp import commands
from pamqp.exceptions import AMQPError

from ...errors import BrokerError, BrokerUnavailable
from . import topology
from .channel import Channel
from .confirming import Outgoing
from .content import ATTEMPT, TOPIC, encode
from .link import refused, why

if TYPE_CHECKING:
    from ...message import Message
    from .config import Config
    from .link import Link
    from .publisher import Publisher


class Delays:
    """Publishes for later."""

    def __init__(self, config: Config, link: Link, publisher: Publisher) -> None:
        self._config = config
        self._link = link
        self._publisher = publisher
        self._declared: dict[tuple[int, bool], tuple[int, float]] = {}
        self._lock = asyncio.Lock()

    async def publish(self, message: Message, seconds: float) -> None:
        """Publish an event that comes to everybody after some seconds; raises as `Publisher.publish` does."""
        wait = _milliseconds(seconds)
        via = await self._way(wait, again=False)
        properties = encode(message.headers, expiration=wait)
        await self._publisher.publish(Outgoing(via, message.topic, properties, message.body))

    async def give_back(self, message: Message, queue: str, attempt: int, seconds: float) -> None:
        """Publish an event that comes to one queue alone after some seconds, as its delivery number `attempt`."""
        wait = _milliseconds(seconds)
        via = await self._way(wait, again=True)
        extra = {TOPIC: message.topic, ATTEMPT: str(attempt)}
        properties = encode(message.headers, expiration=wait, extra=extra)
        await self._publisher.publish(Outgoing(via, queue, properties, message.body))

    async def _way(self, wait: int, *, again: bool) -> str:
        """Return the exchange that leads to the queue for a delay; declare both where that was too long ago."""
        upto = topology.step(wait)
        if not self._fresh(upto, again=again):
            async with self._lock:
                if not self._fresh(upto, again=again):
                    await self._declare(upto, again=again)
        return topology.delay_name(self._config.exchange, upto, again=again)

    def _fresh(self, upto: int, *, again: bool) -> bool:
        epoch, until = self._declared.get((upto, again), (-1, 0.0))
        return epoch == self._publisher.epoch and asyncio.get_running_loop().time() < until

    async def _declare(self, upto: int, *, again: bool) -> None:
        epoch = self._publisher.epoch
        config = self._config
        try:
            async with asyncio.timeout(config.timeout):
                connection = await self._link.connected()
            channel = connection.channel(Channel)
            frames = topology.delay_queue(config.exchange, upto, again=again)
            await channel.call(commands.Channel.Open(), *frames, timeout=config.timeout)
            await channel.close(config.timeout)
        except (AMQPError, OSError, TimeoutError) as error:
            kind = BrokerError if refused(error) else BrokerUnavailable
            raise kind(f"{config.location}: the queue for a delay can't be declared: {why(error)}") from error
        # Declaring it again lets it live longer; half the time it lives unused is left as a margin.
        until = asyncio.get_running_loop().time() + topology.DELAY_EXPIRES / 2000
        self._declared[upto, again] = epoch, until


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
