"""Taking: the channel that a subscription takes deliveries on, and which of them aren't settled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from . import wire
from .channel import Channel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...errors import BrokerError
    from .connection import Connection


class Taker(Protocol):
    """Who takes what comes from a queue."""

    def on_arrivals(self, channel: TakingChannel, arrivals: list[wire.Arrival]) -> None:
        """Take deliveries."""

    def on_loss(self, channel: TakingChannel) -> None:
        """Hear that a channel has ended: what it delivered and isn't settled comes again."""

    def on_failure(self, error: BrokerError) -> None:
        """Hear that nothing will come any more."""


class TakingChannel(Channel):
    """A channel that consumes one queue.

    Attributes:
        cancelled: done when the server has ended the consumer, which leaves the channel as it is.
        taken: how many deliveries came, to tell silence by.
    """

    def __init__(self, line: Connection, number: int, taker: Taker) -> None:
        super().__init__(line, number)
        self.cancelled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.taken = 0
        self._connection = line
        self._taker = taker
        self._unsettled: dict[int, None] = {}
        self._highest = 0

    @property
    def unsettled(self) -> int:
        """How many deliveries aren't settled."""
        return len(self._unsettled)

    def on_arrivals(self, arrivals: list[wire.Arrival]) -> None:
        """Take deliveries; the server numbers them one by one (section 1.8.3.13 of the reference)."""
        if self.lost.done():
            return  # given up, and the server hasn't heard of it
        self.taken += len(arrivals)
        self._highest = arrivals[-1].tag
        self._unsettled.update(dict.fromkeys(arrival.tag for arrival in arrivals))
        self._taker.on_arrivals(self, arrivals)

    def on_cancel(self, consumer_tag: str) -> None:
        """Hear that the server ended the consumer."""
        if not self.cancelled.done():
            self.cancelled.set_result(consumer_tag)

    def holds(self, tag: int) -> bool:
        """Tell whether a delivery isn't settled yet."""
        return tag in self._unsettled

    def settle(self, done: Iterable[int], again: Iterable[int]) -> None:
        """Tell the server what became of deliveries, in one go.

        Raises:
            AMQPError, OSError: the channel has ended; they come again.
        """
        unsettled = self._unsettled
        number = self.number
        frames: list[bytes] = []
        for tag in again:
            if tag in unsettled:
                del unsettled[tag]
                frames.append(wire.requeue(number, tag))
        ready: list[int] = []
        for tag in done:
            if tag in unsettled:
                del unsettled[tag]
                ready.append(tag)
        if ready:
            frames += self._acks(ready)
        if frames:
            self.send(b"".join(frames))

    def _acks(self, ready: list[int]) -> list[bytes]:
        """Return as few acks as possible: one for all below the first that isn't settled, one each for the others."""
        first_open = next(iter(self._unsettled), self._highest + 1)
        below = max((tag for tag in ready if tag < first_open), default=0)
        number = self.number
        frames = [wire.ack(number, below, multiple=True)] if below else []
        return frames + [wire.ack(number, tag) for tag in ready if tag > first_open]

    async def room(self) -> None:
        """Wait until the server has read what was written."""
        if self._connection.full:
            await self._connection.room()
