"""A bounded bridge from nats-py's callback to batches."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from nats import errors

from ...broker import Delivery, Outcome, Subscription

if TYPE_CHECKING:
    from ...errors import BrokerError
    from collections.abc import Callable, Sequence

    from nats.aio.msg import Msg

    from ...message import Message

log = logging.getLogger("ketch.broker")

#: Messages that wait here; beyond it they wait in the driver, whose limits follow.
_CAPACITY = 1024
PENDING_MESSAGES = 512 * 1024
PENDING_BYTES = 128 * 1024 * 1024

#: Seconds to tell the server that no more is wanted and to get what is on its way.
_DRAIN = 5.0


class NatsSubscription(Subscription):
    """One NATS subscription.

    The driver's callback fills a bounded queue and waits when it is full; the driver's own bounded queue then fills,
    and beyond that it drops messages and reports a slow consumer, which the broker logs.
    """

    def __init__(self, topic: str, read: Callable[[str, Any, bytes], Message]) -> None:
        self.topic = topic
        self.sid: int | None = None
        self._read = read
        self._driver: Any = None
        self._queue: deque[Msg] = deque()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._stopping = False
        self._stopped = False
        self._lost: BrokerError | None = None

    def attach(self, driver: Any) -> None:
        """Take the driver's subscription."""
        self._driver = driver

    async def on_message(self, message: Msg) -> None:
        """Take one message of the driver's."""
        queue = self._queue
        queue.append(message)
        if len(queue) == 1:
            self._readable.set()
        elif len(queue) >= _CAPACITY and not self._stopping:
            self._writable.clear()
            await self._writable.wait()

    def lose(self, error: BrokerError) -> None:
        """The connection is gone for good; whoever receives is told."""
        self._lost = error
        self._readable.set()

    async def receive(self) -> Sequence[Delivery]:
        """Return all that is there."""
        queue = self._queue
        while not queue:
            if self._lost is not None and not self._stopping:
                raise self._lost
            if self._stopped:
                return ()
            self._readable.clear()
            await self._readable.wait()
        read = self._read
        batch = [Delivery(read(message.subject, message.headers, message.data)) for message in queue]
        queue.clear()
        self._writable.set()
        return batch

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Nothing to do: at most once."""

    async def stop(self) -> None:
        """Unsubscribe, and take in what the server had sent by then."""
        if self._stopping:
            return
        self._stopping = True
        self._writable.set()
        try:
            async with asyncio.timeout(_DRAIN):
                await self._driver.drain()
        except (errors.Error, TimeoutError, OSError) as error:
            # The server is away, so it sends nothing either.
            log.info("nats: left %s without the server's answer: %s", self.topic, str(error) or "no answer")
        self._stopped = True
        self._readable.set()

    async def close(self) -> None:
        """Unsubscribe and drop what was not received."""
        await self.stop()
        self._queue.clear()
