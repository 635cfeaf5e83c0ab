"""Peer: one process that receives our events."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from ...codec import PROTOBUF
from ...errors import StatusError
from ...mailbox import PATIENCE
from .wire import head

if TYPE_CHECKING:
    from ...transport import Channel, Stream
    from .audience import Run

log = logging.getLogger("ketch.broker")

DELIVER = "/ketch.direct.v1.Events/Deliver"

#: Bytes that wait for one peer, beside the batch that is being filled.
_CAPACITY = 16 * 1024 * 1024

#: What an event counts beside its own bytes: a small one takes about as much of Python's memory.
_EVENT = 64

#: What must be left before who waits for room goes on.
_ROOMY = _CAPACITY * 15 // 16

#: Largest batch; an event that is larger makes one of its own.
_BATCH = 64 * 1024

#: Seconds to send what is left, at the end.
_FLUSH = 5.0

#: Seconds between two tries to connect, at most.
_BACKOFF = 2.0


class _Batch:
    """Events of one topic for the same subscriptions."""

    __slots__ = ("events", "run", "size")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.events: list[bytes] = []
        self.size = 0


class Peer:
    """Sends batches over one stream, each event at most once, in order.

    While the peer can't be reached events wait for it, in bounds; those that were on the wire when a connection broke
    are lost. A peer whose buffer stays full is slow: its events are dropped, counted and logged until it has caught up.
    """

    def __init__(self, address: str, channel: Channel) -> None:
        self.address = address
        self.dropped = 0
        self._channel = channel
        self._batches: deque[_Batch] = deque()
        self._open: _Batch | None = None  # the last of them, while it may still grow
        self._waiting = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._slow = False
        self._closing = False
        self._failing = False
        self._task = asyncio.create_task(self._run(), name=f"ketch events to {address}")

    def offer(self, run: Run, event: bytes) -> bool:
        """Take an encoded event for subscriptions of the peer; False when there is no room."""
        size = len(event) + _EVENT
        batch = self._open
        if batch is None or batch.size + size > _BATCH or batch.run != run:
            if self._waiting >= _CAPACITY or self._closing:
                return False
            batch = self._begin(run)
        batch.events.append(event)
        batch.size += size
        return True

    def _begin(self, run: Run) -> _Batch:
        if self._open is not None:
            self._waiting += self._open.size
        batch = self._open = _Batch(run)
        self._batches.append(batch)
        self._wake.set()
        return batch

    async def offer_patiently(self, run: Run, event: bytes) -> None:
        """Take an event that was refused as soon as there is room; drop it when there is none for too long."""
        if not self._slow:
            try:
                async with asyncio.timeout(PATIENCE):
                    while not self._closing:
                        self._room.clear()
                        await self._room.wait()
                        if self.offer(run, event):
                            return
            except TimeoutError:
                self._stalled()
        self.dropped += 1

    def _stalled(self) -> None:
        if not self._slow:  # others may have waited as well
            self._slow = True
            log.warning("%s doesn't keep up; events are dropped for it until it does", self.address)

    async def close(self) -> None:
        """Send what is left, for a bounded time, and disconnect."""
        self._closing = True
        self._wake.set()
        self._room.set()
        _, late = await asyncio.wait({self._task}, timeout=_FLUSH)
        if late:
            self._task.cancel()
            await asyncio.wait(late)
        left = sum(len(batch.events) for batch in self._batches)
        if left:
            log.warning("%s: %d events could not be delivered before the end", self.address, left)
        await self._channel.close()

    async def _run(self) -> None:
        pause = 0.05
        while not (self._closing and not self._batches):
            stream = None
            try:
                if not await self._something_to_send():
                    return
                stream = await self._channel.stream(DELIVER, content_type=PROTOBUF)
                self._connected()
                await self._send(stream)
                await self._end(stream)
            except StatusError as error:
                self._failed(error)
                if self._closing:
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 2, _BACKOFF)
            else:
                pause = 0.05
            finally:
                if stream is not None:
                    stream.cancel()

    async def _something_to_send(self) -> bool:
        while not self._batches:
            if self._closing:
                return False
            self._wake.clear()
            await self._wake.wait()
        return True

    async def _send(self, stream: Stream) -> None:
        while await self._something_to_send():
            await stream.send(self._take())

    async def _end(self, stream: Stream) -> None:
        """Wait until the peer has taken everything: it answers when it has."""
        await stream.end()
        while await stream.receive() is not None:
            pass

    def _take(self) -> bytes:
        batch = self._batches.popleft()
        if batch is self._open:
            self._open = None
        else:
            self._waiting -= batch.size
        if self._waiting <= _ROOMY:
            self._room.set()
            if self._slow and self._waiting <= _CAPACITY // 2:
                self._slow = False
                log.warning("%s keeps up again; %d events were dropped for it", self.address, self.dropped)
        return head(*batch.run) + b"".join(batch.events)

    def _connected(self) -> None:
        if self._failing:
            log.info("%s: reached again", self.address)
            self._failing = False

    def _failed(self, error: StatusError) -> None:
        if not self._failing:
            log.warning("%s can't be reached, trying on: %s", self.address, error)
            self._failing = True
