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
    from collections.abc import Awaitable, Callable, Collection, Sequence

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
        self._queue: deque[tuple[Collection[Delivery], int]] = deque()
        self._count = self._bytes = 0
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._slow = False
        self._leaving = False
        self._stopped = False
        self._error: BrokerError | None = None

    def offer(self, deliveries: Collection[Delivery], size: int | None = None) -> bool:
        """Take deliveries in, all or none; False when the mailbox is full.

        They are iterated over when they are received, so they needn't exist before. `size` is what they take until
        then in bytes, by default their bodies.
        """
        if self._stopped:
            return True
        if self._count >= CAPACITY or self._bytes >= CAPACITY_BYTES:
            return False
        if deliveries:
            if size is None:
                size = sum(len(delivery.message.body) for delivery in deliveries)
            self._queue.append((deliveries, size))
            self._count += len(deliveries)
            self._bytes += size
            self._readable.set()
        return True

    async def offer_patiently(self, deliveries: Collection[Delivery], size: int | None = None) -> None:
        """Take deliveries in as soon as there is room; drop them when there is none for too long."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not self.offer(deliveries, size):
                    if self._slow:
                        break
                    self._writable.clear()
                    await self._writable.wait()
                else:
                    return
        except TimeoutError:
            self._stalled()
        self.dropped += len(deliveries)

    def fail(self, error: BrokerError) -> None:
        """Say that nothing will come any more; what is there can still be received, then the error is raised."""
        self._error = error
        self._readable.set()

    def _stalled(self) -> None:
        if not self._slow:  # another deliverer may have waited as well
            self._slow = True
            log.warning("a subscriber of %s doesn't keep up; events are dropped for it until it does", self.topic)

    async def receive(self) -> Sequence[Delivery]:
        """Return what is there, up to a batch, or what one offer brought; wait while there is nothing."""
        queue = self._queue
        while not queue:
            if self._stopped:
                return ()
            if self._error is not None:
                raise self._error
            self._readable.clear()
            await self._readable.wait()
        first, size = queue.popleft()
        batch = list(first)
        while queue and len(batch) + len(queue[0][0]) <= _BATCH:
            more, its_size = queue.popleft()
            batch.extend(more)
            size += its_size
        self._count -= len(batch)
        self._bytes -= size
        self._make_room()
        return batch

    def _make_room(self) -> None:
        if self._count <= _ROOMY and self._bytes <= _ROOMY_BYTES:
            self._writable.set()
            if self._slow and self._count <= CAPACITY // 2 and self._bytes <= CAPACITY_BYTES // 2:
                self._slow = False
                log.warning("the subscriber of %s keeps up again; %d events were dropped", self.topic, self.dropped)

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
        self._count = self._bytes = 0
        self._writable.set()
