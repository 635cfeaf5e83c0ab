"""Peer: one process that receives our events."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from ...codec import PROTOBUF
from ...errors import StatusError
from ...mailbox import PATIENCE
from .wire import head

if TYPE_CHECKING:
    from ...transport import Channel, Stream

log = logging.getLogger("ketch.broker")

DELIVER = "/ketch.direct.v1.Events/Deliver"

#: Events, and their bytes, that wait for one peer.
_CAPACITY = 65_536
_CAPACITY_BYTES = 64 * 1024 * 1024

#: What must be left before who waits for room goes on.
_ROOMY = _CAPACITY * 15 // 16
_ROOMY_BYTES = _CAPACITY_BYTES * 15 // 16

#: Size at which a batch is sent; one event may make it larger.
_BATCH_BYTES = 64 * 1024

#: Seconds to send what is left, at the end.
_FLUSH = 5.0

#: Seconds between two tries to connect, at most.
_BACKOFF = 2.0

_Run: TypeAlias = tuple[str, tuple[str, ...]]


class Peer:
    """Sends batches over one stream, each event at most once, in order.

    While the peer can't be reached events wait for it, in bounds; those that were on the wire when a connection broke
    are lost. A peer whose buffer stays full is slow: its events are dropped, counted and logged until it has caught up.
    """

    def __init__(self, address: str, channel: Channel) -> None:
        self.address = address
        self.dropped = 0
        self._channel = channel
        self._runs: deque[tuple[_Run, list[bytes]]] = deque()
        self._events = 0
        self._bytes = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._slow = False
        self._closing = False
        self._failing = False
        self._task = asyncio.create_task(self._run(), name=f"ketch events to {address}")

    def offer(self, run: _Run, event: bytes) -> bool:
        """Take an encoded event for subscriptions of the peer; False when there is no room."""
        if self._events >= _CAPACITY or self._bytes >= _CAPACITY_BYTES:
            return False
        runs = self._runs
        if runs and runs[-1][0] == run:
            runs[-1][1].append(event)
        else:
            runs.append((run, [event]))
        self._events += 1
        self._bytes += len(event)
        self._wake.set()
        return True

    async def offer_patiently(self, run: _Run, event: bytes) -> None:
        """Take an event as soon as there is room; drop it when there is none for too long."""
        if not self._slow:
            self._room.clear()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._room.wait()
            except TimeoutError:
                self._slow = True
                log.warning("%s doesn't keep up; events are dropped for it until it does", self.address)
        if not self.offer(run, event):
            self.dropped += 1

    async def close(self) -> None:
        """Send what is left, for a bounded time, and disconnect."""
        self._closing = True
        self._wake.set()
        _, late = await asyncio.wait({self._task}, timeout=_FLUSH)
        if late:
            self._task.cancel()
            await asyncio.wait(late)
        if self._events:
            log.warning("%s: %d events could not be delivered before the end", self.address, self._events)
        await self._channel.close()

    async def _run(self) -> None:
        pause = 0.05
        while not (self._closing and not self._events):
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
        while not self._runs:
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
        run, events = self._runs[0]
        size = count = 0
        for event in events:
            size += len(event)
            count += 1
            if size >= _BATCH_BYTES:
                break
        if count == len(events):
            self._runs.popleft()
            taken = events
        else:
            taken = events[:count]
            del events[:count]
        self._events -= count
        self._bytes -= size
        if self._events <= _ROOMY and self._bytes <= _ROOMY_BYTES:
            self._room.set()
            if self._slow and self._events <= _CAPACITY // 2:
                self._slow = False
                log.warning("%s keeps up again; %d events were dropped for it", self.address, self.dropped)
        return head(*run) + b"".join(taken)

    def _connected(self) -> None:
        if self._failing:
            log.info("%s: reached again", self.address)
            self._failing = False

    def _failed(self, error: StatusError) -> None:
        if not self._failing:
            log.warning("%s can't be reached, trying on: %s", self.address, error)
            self._failing = True
