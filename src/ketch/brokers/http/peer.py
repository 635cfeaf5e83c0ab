"""Peer: one process that receives our events, as requests over one connection."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ...mailbox import PATIENCE
from .head import MAX_HEAD, read_head

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("ketch.broker")

#: Bytes that wait for one peer; what must be left before who waits for room goes on; what an event counts besides.
_CAPACITY = 16 * 1024 * 1024
_ROOMY = _CAPACITY * 15 // 16
_EVENT = 256

#: Requests that are sent before their answers have come; go-micro runs its handler before it answers.
_PIPELINE = 64

#: Seconds to connect, to get an answer, to send what is left at the end, and between two tries at most.
_CONNECT = 5.0
_ANSWER = 30.0
_FLUSH = 5.0
_BACKOFF = 2.0


class Peer:
    """Sends each event at most once, in order.

    While the peer can't be reached events wait for it, in bounds; those that were on the wire when a connection broke
    are lost. A peer whose buffer stays full loses events, which are counted and logged, until it has caught up.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.dropped = 0
        self._host, _, self._port = address.rpartition(":")
        self._events: deque[tuple[str, bytes]] = deque()
        self._waiting = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._slow = self._failing = self._closing = False
        self._task = asyncio.create_task(self._run(), name=f"ketch events to {address}")

    async def offer(self, id_: str, event: bytes) -> None:
        """Take an event for one of the peer's subscriptions; drop it where there is no room for too long."""
        if self._waiting >= _CAPACITY and not (self._slow or await self._has_room()):
            self._slow = True
            log.warning("%s doesn't keep up; events are dropped for it until it does", self.address)
        if self._waiting >= _CAPACITY or self._closing:
            self.dropped += 1
            return
        if self._slow:
            self._slow = False
            log.warning("%s keeps up again; %d events were dropped", self.address, self.dropped)
        self._events.append((id_, event))
        self._waiting += len(event) + _EVENT
        self._wake.set()

    async def _has_room(self) -> bool:
        self._room.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._room.wait()
        return self._waiting < _CAPACITY

    async def close(self) -> None:
        """Send what is left, and hang up."""
        self._closing = True
        self._wake.set()
        _, late = await asyncio.wait([self._task], timeout=_FLUSH)
        if late:
            log.warning("%s: %d events were not sent at the end", self.address, len(self._events))
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        pause = 0.05
        while not (self._closing and not self._events):
            if not self._events:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout(_CONNECT):
                    reader, writer = await asyncio.open_connection(
                        self._host.strip("[]"), int(self._port), limit=MAX_HEAD
                    )
            except (OSError, ValueError) as error:  # a time-out, a port that is none
                self._complain(f"can't be reached: {error!r}")
                await asyncio.sleep(pause)
                pause = min(pause * 2, _BACKOFF)
                continue
            pause = 0.05
            try:
                await self._converse(reader, writer)
            except (OSError, EOFError) as error:  # a time-out is an OSError, as well
                self._complain(f"broke the connection: {error!r}")
            finally:
                writer.close()

    def _complain(self, what: str) -> None:
        if not self._failing:
            self._failing = True
            log.warning("%s %s; events wait for it", self.address, what)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send events until the peer hangs up, or there are no more and none will come."""
        while not reader.at_eof():
            batch = self._take()
            if not batch:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            for id_, event in batch:
                writer.write(_request(self.address, id_, event))
            async with asyncio.timeout(_ANSWER):
                await writer.drain()
                for _ in batch:
                    if not await self._read_answer(reader):
                        return
            self._failing = False

    async def _read_answer(self, reader: asyncio.StreamReader) -> bool:
        """Read one answer; tell whether more can follow on this connection."""
        head = await read_head(reader)
        if head is None:
            raise ConnectionResetError("it hung up without an answer")
        if " 200 " not in head.first:
            log.warning("%s refused an event: %s", self.address, head.first[:60])
        if head.length < 0 or head.length > MAX_HEAD:
            return False
        await reader.readexactly(head.length)
        return not head.last

    def _take(self) -> Sequence[tuple[str, bytes]]:
        batch = [self._events.popleft() for _ in range(min(_PIPELINE, len(self._events)))]
        self._waiting -= sum(len(event) + _EVENT for _, event in batch)
        if self._waiting <= _ROOMY:
            self._room.set()
        return batch


def _request(address: str, id_: str, event: bytes) -> bytes:
    lines = (
        f"POST /?{urlencode({'id': id_})} HTTP/1.1",
        f"Host: {address}",
        "Content-Type: application/json",
        f"Content-Length: {len(event)}",
    )
    return "\r\n".join((*lines, "", "")).encode("latin-1") + event
