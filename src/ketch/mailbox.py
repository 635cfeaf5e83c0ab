"""Mailbox: a bounded queue of deliveries, the subscription of brokers that push from within Python.

When it is full, whoever delivers waits a little, so that a healthy consumer sets the pace. If that was in vain the
mailbox is slow: deliveries are dropped, counted and logged, without waiting, until half of it has been taken. So one
hung handler costs its publishers a tenth of a second, once, and its neighbours nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from .broker import Delivery, Outcome, Subscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .errors import BrokerError

log = logging.getLogger("ketch.broker")

#: Deliveries, and bytes of their bodies, that a mailbox holds.
CAPACITY = 65_536
CAPACITY_BYTES = 64 * 1024 * 1024

#: What it must be down to before who waits for room goes on: soon, or a fast consumer would not make it in time.
_ROOMY = CAPACITY * 15 // 16
_ROOMY_BYTES = CAPACITY_BYTES * 15 // 16

#: Seconds that a deliverer waits for room.
PATIENCE = 0.1

#: Most deliveries that one `receive` returns.
_BATCH = 512


class Mailbox(Subscription):
    """One subscription's deliveries, in the order in which they were offered.

    Args:
        topic: what it is for, in logs.
        leave: called once, when the subscription stops: whoever delivers is told to deliver no more.
    """

    def __init__(self, topic: str, leave: Callable[[], Awaitable[None]]) -> None:
        self.topic = topic
        self.dropped = 0
        self._leave = leave
        self._queue: deque[Delivery] = deque()
        self._bytes = 0
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._slow = False
        self._leaving = False
        self._stopped = False
        self._error: BrokerError | None = None

    def offer(self, deliveries: Sequence[Delivery]) -> bool:
        """Take deliveries in, all or none; False when the mailbox is full."""
        if self._stopped:
            return True
        if len(self._queue) >= CAPACITY or self._bytes >= CAPACITY_BYTES:
            return False
        self._queue.extend(deliveries)
        for delivery in deliveries:
            self._bytes += len(delivery.message.body)
        self._readable.set()
        return True

    async def offer_patiently(self, deliveries: Sequence[Delivery]) -> None:
        """Take deliveries in as soon as there is room; drop them when there is none for too long."""
        if not self.offer(deliveries) and not (await self._room() and self.offer(deliveries)):
            self.dropped += len(deliveries)

    def fail(self, error: BrokerError) -> None:
        """Say that nothing will come any more; what is there can still be received, then the error is raised."""
        self._error = error
        self._readable.set()

    async def _room(self) -> bool:
        if self._slow:
            return False
        self._writable.clear()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._writable.wait()
        except TimeoutError:
            self._slow = True
            log.warning("a subscriber of %s doesn't keep up; events are dropped for it until it does", self.topic)
            return False
        return True

    async def receive(self) -> Sequence[Delivery]:
        """Return what is there, up to a batch; wait while there is nothing."""
        queue = self._queue
        while not queue:
            if self._stopped:
                return ()
            if self._error is not None:
                raise self._error
            self._readable.clear()
            await self._readable.wait()
        batch = [queue.popleft() for _ in range(min(len(queue), _BATCH))]
        for delivery in batch:
            self._bytes -= len(delivery.message.body)
        if len(queue) <= _ROOMY and self._bytes <= _ROOMY_BYTES:
            self._writable.set()
            if self._slow and len(queue) <= CAPACITY // 2:
                self._slow = False
                log.warning("the subscriber of %s keeps up again; %d events were dropped", self.topic, self.dropped)
        return batch

    async def settle(self, settled: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Nothing to do: at most once."""

    async def stop(self) -> None:
        """Have nothing more delivered. What comes until the deliverers have heard of it is still taken."""
        if not self._leaving:
            self._leaving = True
            try:
                await self._leave()
            finally:
                self._stopped = True
                self._readable.set()

    async def close(self) -> None:
        """Stop, and drop what was not received."""
        await self.stop()
        self._queue.clear()
        self._bytes = 0
