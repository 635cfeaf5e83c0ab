"""Pipe: messages in one direction of a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from .crossing import ended

if TYPE_CHECKING:
    from ...errors import StatusError

#: Bytes that wait in one direction of a stream before its sender does.
_WINDOW: Final = 65_536
#: What a message takes besides its bytes, so that empty ones are bounded too.
_OVERHEAD: Final = 5


class Pipe:
    """Messages in one direction, bounded; closed with the status that the call ended with, or None."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._bodies: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._error: StatusError | None = None
        self._change: asyncio.Future[None] | None = None

    async def put(self, body: bytes) -> None:
        """Add a message, once there is room.

        Raises:
            StatusError: the call has ended.
        """
        size = len(body) + _OVERHEAD
        while not self._ended and self._size and self._size + size > _WINDOW:
            await self._wait()
        if self._ended:
            raise self._error or ended()
        self._bodies.append(body)
        self._size += size
        self._wake()

    async def get(self) -> bytes | None:
        """Return the next message, None when no more come.

        Raises:
            StatusError: what the call ended with.
        """
        while not self._bodies:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            await self._wait()
        body = self._bodies.popleft()
        self._size -= len(body) + _OVERHEAD
        self._wake()
        return body

    def close(self, error: StatusError | None) -> None:
        """Let no more messages in; those who wait hear of it."""
        if not self._ended or (error is not None and self._error is None):
            self._ended = True
            self._error = error
            self._wake()

    def clear(self) -> None:
        """Drop what wasn't received."""
        self._bodies.clear()
        self._size = 0

    async def _wait(self) -> None:
        # The one who puts waits for room, the one who gets for a message: never both at a time.
        if self._change is None:
            self._change = self._loop.create_future()
        await asyncio.shield(self._change)

    def _wake(self) -> None:
        change, self._change = self._change, None
        if change is not None:
            change.set_result(None)
