"""Inbox: from the DATA of one stream to messages, each after five bytes that give its length.

What came stays as raw bytes until a message is taken, so a peer that sends many empty messages costs no more than
their bytes. The stream's window is opened for messages that were taken, and for an incomplete one that somebody waits
for: those share a `Pool`, so that many half-sent messages at a time can't take more memory than it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Internal, ResourceExhausted
from .compression import IDENTITY, expand
from .framing import PREFIX
from .large import LARGE, Large

if TYPE_CHECKING:
    from ..http2.stream import Stream


class Pool:
    """Room for the incomplete messages of one connection; who finds none waits in line."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._waiting: dict[Inbox, None] = {}

    def claim(self, inbox: Inbox, size: int) -> bool:
        """Take room for a message, or a place in the line."""
        if size <= self._left and not self._waiting:
            self._left -= size
            return True
        self._waiting[inbox] = None
        return False

    def leave(self, inbox: Inbox) -> None:
        """Give a place in the line up; those behind it may go on."""
        del self._waiting[inbox]
        self.release(0)

    def release(self, size: int) -> None:
        """Give room back; those who waited go on."""
        self._left += size
        while self._waiting:
            first = next(iter(self._waiting))
            if first.wanted > self._left:
                return
            del self._waiting[first]
            self._left -= first.wanted
            first.grant()


class Inbox:
    """The messages that come in on one stream.

    Attributes:
        wanted: size of the message it waits in line for, 0 for none.
        encoding: how messages flagged as compressed are.
        compressed: whether the message that was taken last was.
    """

    __slots__ = (
        "_buffer",
        "_claimed",
        "_credited",
        "_large",
        "_limit",
        "_pool",
        "_stream",
        "compressed",
        "encoding",
        "wanted",
    )

    def __init__(self, stream: Stream, pool: Pool, limit: int) -> None:
        self.wanted = 0
        self.encoding = IDENTITY
        self.compressed = False
        self._stream = stream
        self._pool = pool
        self._limit = limit
        self._buffer = bytearray()
        self._large: Large | None = None
        self._credited = 0  # bytes at the front of the buffer that the window was opened for
        self._claimed = 0

    def __bool__(self) -> bool:
        """Whether bytes are left."""
        return bool(self._buffer) or self._large is not None

    def feed(self, payload: bytes) -> None:
        """Take a piece of the stream."""
        if self._large is not None and self._large.missing:
            payload = self._large.feed(payload)
        self._buffer += payload

    def check(self) -> None:
        """Ask for what is missing of the next message, without taking it.

        Raises:
            ResourceExhausted: it is too large.
        """
        self._is_complete()

    def _is_complete(self) -> bool:
        large, buffer = self._large, self._buffer
        if large is None:
            if len(buffer) < PREFIX:
                return False
            size = int.from_bytes(buffer[1:PREFIX])
            if size > self._limit:
                raise ResourceExhausted(f"a message of {size} bytes is larger than the limit of {self._limit}")
            if len(buffer) >= PREFIX + size:
                return True
            if size >= LARGE:
                large = self._large = Large(buffer[0], size, bytes(buffer[PREFIX:]))
                buffer.clear()
        else:
            size = large.size
            if not large.missing:
                return True
        self._ask(PREFIX + size)
        return False

    def take(self) -> bytes | None:
        """Return the next message, or None while it is incomplete.

        Raises:
            ResourceExhausted: it is too large.
            Internal: it can't be decompressed.
        """
        if not self._is_complete():
            return None
        large, buffer = self._large, self._buffer
        if large is not None:
            self._large = None
            flag, body = large.flag, large.join()
        else:
            end = PREFIX + int.from_bytes(buffer[1:PREFIX])
            flag = buffer[0]
            with memoryview(buffer) as view:
                body = bytes(view[PREFIX:end])
            del buffer[:end]
        self._release()
        self._stream.consume(PREFIX + len(body) - self._credited)
        self._credited = 0
        self.compressed = flag == 1
        return body if not flag else self._expand(flag, body)

    def settle(self) -> None:
        """Hear that nothing more comes: room for an incomplete message goes back."""
        self._release()

    def close(self) -> None:
        """Let go of everything."""
        self._buffer.clear()
        self._large = None
        self.settle()

    def grant(self) -> None:
        """Hear from the pool that there is room for the message that is wanted."""
        self._claimed, self.wanted = self.wanted, 0
        self._credit()

    def _expand(self, flag: int, body: bytes) -> bytes:
        if flag != 1:
            raise Internal("a message has unknown flags")
        return expand(body, self.encoding, self._limit)

    def _ask(self, size: int) -> None:
        if self.wanted or self._stream.got_end or self._stream.closed:
            return
        if not self._claimed:
            if not self._pool.claim(self, size):
                self.wanted = size
                return
            self._claimed = size
        self._credit()

    def _credit(self) -> None:
        large = self._large
        held = len(self._buffer) + (0 if large is None else PREFIX + large.size - large.missing)
        fresh = held - self._credited
        self._credited += fresh
        self._stream.consume(fresh)

    def _release(self) -> None:
        if self.wanted:
            self.wanted = 0
            self._pool.leave(self)
        if self._claimed:
            claimed, self._claimed = self._claimed, 0
            self._pool.release(claimed)
