"""One NATS subscription: from the connection into a mailbox."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from nats import errors

from ...broker import Delivery
from ...mailbox import Mailbox
from ...nats.wire import round_trip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...message import Message
    from ...nats.wire import Received, Sink

log = logging.getLogger("ketch.broker")

#: Seconds to tell the server that no more is wanted and to get what is on its way.
_DRAIN = 5.0


class NatsSubscription(Mailbox):
    """A mailbox that NATS fills.

    While it is full nothing is read from the connection, for a tenth of a second at most: the server holds what comes
    meanwhile. A consumer that is slower than that has its events dropped, counted and logged.
    """

    def __init__(self, topic: str, read: Callable[[str, Mapping[str, str] | None, bytes], Message]) -> None:
        super().__init__(topic, self._unsubscribe)
        self._read = read
        self._driver: Any = None

    def attach(self, client: Any, driver: Any, sinks: dict[int, Sink]) -> None:
        """Take the driver's subscription and its messages."""
        self._client = client
        self._driver = driver
        self._sinks = sinks
        sinks[driver._id] = self.take  # noqa: SLF001 - the id that messages come with

    async def take(self, batch: list[Received]) -> None:
        """Take messages as they came over the connection."""
        read = self._read
        deliveries = [Delivery(read(subject, headers, data)) for subject, headers, data, _ in batch]
        if not self.offer(deliveries):
            await self.offer_patiently(deliveries)

    async def _unsubscribe(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN):
                await self._driver.drain()
                await round_trip(self._client, _DRAIN)
        except (errors.Error, TimeoutError, OSError) as error:
            # The server is away, so it sends nothing either.
            log.info("nats: left %s without the server's answer: %s", self.topic, str(error) or "no answer")
        self._sinks.pop(self._driver._id, None)  # noqa: SLF001 - as in attach
