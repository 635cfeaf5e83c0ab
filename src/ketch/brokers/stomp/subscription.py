"""Subscription: what comes from a destination, and what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, cast

from ...broker import Delivery, Outcome, Subscription
from ...errors import BrokerError
from . import frames
from .envelope import read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .connection import Connection
    from .frames import Frame

log = logging.getLogger("ketch.broker")

#: Most deliveries that one `receive` returns.
_BATCH = 512


class StompSubscription(Subscription):
    """One member's share.

    ActiveMQ takes a NACK for the end of a message: it goes to the dead letters. So what is to come again waits here,
    and comes again to this member; to the server it stays unacknowledged, and goes to another member should this one
    vanish.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - STOMP's word
        destination: str,
        prefetch: int,
        timeout: float,
        leave: Callable[[StompSubscription], None],
    ) -> None:
        self.id = id
        self._destination = destination
        self._prefetch = self._limit = prefetch
        self._timeout = timeout
        self._leave = leave
        self._connection: Connection | None = None
        self._waiting: deque[Delivery] = deque()
        self._hand: set[Delivery] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._readable = asyncio.Event()
        self._subscribed = False
        self._stopped = self._closed = False

    async def begin(self, connection: Connection) -> None:
        """Subscribe over a connection.

        Raises:
            BrokerError: the server refuses, or doesn't answer.
        """
        if self._stopped:
            return
        self._connection = connection
        headers = {
            "id": self.id,
            "destination": self._destination,
            "ack": "client-individual",
            "activemq.prefetchSize": str(self._prefetch),
        }
        await connection.ask(b"SUBSCRIBE", headers, self._timeout)
        self._subscribed = True

    def lost(self) -> None:
        """Forget what came over the connection: it comes again over the next one."""
        self._connection = None
        self._subscribed = False
        self._waiting.clear()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._readable.set()

    def take(self, messages: list[Frame]) -> None:
        """Take messages."""
        if self._stopped:
            return  # unacknowledged, they go to another member as soon as we have left
        connection = self._connection
        self._waiting.extend(
            Delivery(read(frame), raw=(connection, frame.headers.get("ack", ""))) for frame in messages
        )
        self._readable.set()

    async def receive(self) -> Sequence[Delivery]:
        """Return what is there, as far as the prefetch allows."""
        while True:
            room = min(self._limit - len(self._hand), _BATCH)
            if self._waiting and room > 0:
                batch = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
                self._hand.update(batch)
                return batch
            if self._stopped and not self._waiting:
                return ()
            self._readable.clear()
            await self._readable.wait()

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Acknowledge what is done; let the rest come again."""
        acks: list[bytes] = []
        for delivery, outcome in settled:
            if delivery not in self._hand:
                continue
            self._hand.discard(delivery)
            connection, ack = _origin(delivery)
            if connection is not self._connection or connection is None:
                continue  # of a connection that was lost: it comes again
            if outcome is Outcome.DONE:
                acks.append(b"ACK\nid:" + frames.escape(ack).encode() + b"\n\n\0")
            else:
                self._again(delivery)
        if acks and self._connection is not None:
            self._connection.write(b"".join(acks))
        self._readable.set()
        if self._stopped:
            await self._leave_others()

    def _again(self, delivery: Delivery) -> None:
        fresh = Delivery(delivery.message, delivery.attempt + 1, delivery.raw)

        def due() -> None:
            self._timers.discard(timer)
            if not self._stopped:
                self._waiting.append(fresh)
                self._readable.set()

        timer = asyncio.get_running_loop().call_later(max(delivery.retry_after, 0.0), due)
        self._timers.add(timer)

    async def limit(self, unsettled: int) -> None:
        """Hand out fewer or more; what the server sends ahead was settled at the beginning."""
        self._limit = min(unsettled, self._prefetch)
        self._readable.set()

    async def stop(self) -> None:
        """Take no more. ActiveMQ forgets what is in hand when we leave, so we leave when nothing is."""
        if not self._stopped:
            self._stopped = True
            self._readable.set()
            await self._leave_others()

    async def _leave_others(self, *, at_once: bool = False) -> None:
        """Unsubscribe, once nothing is in hand: what is unacknowledged goes to the others."""
        connection = self._connection
        if not self._subscribed or connection is None or ((self._hand or self._waiting) and not at_once):
            return
        self._subscribed = False
        try:
            await connection.ask(b"UNSUBSCRIBE", {"id": self.id}, self._timeout)
        except BrokerError as error:
            # Then the server is away or in trouble, and doesn't count us as there either.
            log.info("stomp: left %s without the server's answer: %s", self._destination, error)

    async def close(self) -> None:
        """Give back what was not settled."""
        if self._closed:
            return
        self._closed = True
        await self.stop()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
        self._hand.clear()
        self._readable.set()
        await self._leave_others(at_once=True)
        self._leave(self)


def _origin(delivery: Delivery) -> tuple[Connection | None, str]:
    """Return a delivery's connection and what to acknowledge it by, as `take` has put them there."""
    return cast("tuple[Connection | None, str]", delivery.raw)
