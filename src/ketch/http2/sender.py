"""What goes out: the peer's windows, frames of the size it takes, and a bound on what waits for the socket.

`out` collects bytes until the socket takes them all at once. A message that doesn't fit into the windows, or into
the room before the socket, stays with its stream as `Pending` and goes on when there is room; streams take turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from . import frames
from .compression import NO_TABLE
from .frames import DATA, END_HEADERS, END_STREAM, HEAD, HEADERS, MAX_31
from .settings import DEFAULT_FRAME, DEFAULT_WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of messages that are made ready for the socket before it has taken the ones before.
ROOM = 262_144
#: Pieces, five to seven to a message, that are worth a write of their own.
BATCH = 96
#: Bytes of frames other than messages that may wait for a peer that doesn't read.
CONTROL_ROOM = 1_048_576
_LAST = END_HEADERS | END_STREAM


class Pending:
    """A message that waits for room, what goes right before it and what follows it."""

    __slots__ = ("at", "data", "end", "lead", "trailers")

    def __init__(self, lead: bytes, data: bytes, *, end: bool, trailers: bytes) -> None:
        self.lead = lead
        self.data = memoryview(data)
        self.at = 0
        self.end = end
        self.trailers = trailers


class Outgoing:
    """The outgoing half of a stream.

    Attributes:
        id: 0 until the stream is open.
        send_window: bytes that the peer still takes on this stream; may be negative (RFC 9113 section 6.9.2).
        pending: what waits for a window, None when nothing does.
    """

    __slots__ = ("id", "pending", "send_window")

    def __init__(self, stream_id: int, send_window: int) -> None:
        self.id = stream_id
        self.send_window = send_window
        self.pending: Pending | None = None

    def on_drained(self) -> None:
        """Hear that what waited for a window has been sent."""


_Stream = TypeVar("_Stream", bound=Outgoing)


class Sender(Generic[_Stream]):
    """The outgoing half of a connection.

    `wake` is called when there is something to write, `hurry` when there is enough to write it now, so that the peer
    starts on it while we go on. `ended` is called when the last of a stream is on its way.

    Attributes:
        shrink_table: the next header block has to say that our encoder uses no table.
        granted: bytes of data that the peer has ever allowed us.
        waiting: bytes of messages that wait for windows or for the socket.
    """

    def __init__(self, wake: Callable[[], None], hurry: Callable[[], None], ended: Callable[[_Stream], None]) -> None:
        self.out: list[bytes | memoryview] = []
        self.window = self.granted = DEFAULT_WINDOW
        self.max_frame = DEFAULT_FRAME
        self.shrink_table = False
        self.waiting = 0
        self._wake = wake
        self._hurry = hurry
        self._ended = ended
        self._room = ROOM
        self._asleep = True
        self._paused = False
        self._control = 0
        self._blocked: dict[_Stream, None] = {}

    def write(self, data: bytes) -> None:
        """Queue frames that no window bounds."""
        self.out.append(data)
        self._control += len(data)
        if self._asleep:
            self._asleep = False
            self._wake()

    @property
    def sent(self) -> int:
        """Bytes of data that have been queued, ever."""
        return self.granted - self.window

    @property
    def overrun(self) -> bool:
        """The peer makes us answer, but doesn't read the answers."""
        return self._control > CONTROL_ROOM

    def message(
        self, stream: _Stream, head: bytes, data: bytes, *, end: bool, trailers: bytes = b"", lead: bytes = b""
    ) -> bool:
        """Queue header frames, one message, and what ends the stream after it.

        `end` sets END_STREAM on the last of the data; `trailers` are finished frames that end the stream; `lead` goes
        before the message, in the same frame.
        Returns False when part of the message has to wait; `on_drained` is called when it has gone.
        """
        size = len(lead) + len(data)
        if (
            size <= self.max_frame
            and size <= self.window
            and size <= stream.send_window
            and size <= self._room
            and stream.pending is None
        ):
            self.window -= size
            stream.send_window -= size
            self._room -= size
            if self._asleep:
                self._asleep = False
                self._wake()
            flags = END_STREAM if end else 0
            self.out += (head, HEAD.pack(size >> 16, size & 0xFFFF, DATA, flags, stream.id), lead, data, trailers)
            if end or trailers:
                self._ended(stream)
            if len(self.out) > BATCH:
                self._hurry()
            return True
        if head:
            self.write(head)
        stream.pending = Pending(lead, data, end=end, trailers=trailers)
        self.waiting += size
        self._blocked[stream] = None
        return self.pump(stream)

    def whole(self, stream: _Stream, head: bytes, lead: bytes, message: bytes, tail: bytes) -> bool:
        """Queue a header block, one message and the block of its trailers, if all of it goes out at once.

        `lead` goes before the message, in the same frame. Without trailers the message ends the stream. Returns False
        where something stands in the way; nothing is done.
        """
        size = len(lead) + len(message)
        if (
            size > self.max_frame
            or size > self.window
            or size > stream.send_window
            or size > self._room
            or len(head) > DEFAULT_FRAME
            or len(tail) > DEFAULT_FRAME
            or self.shrink_table
            or stream.pending is not None
        ):
            return False
        self.window -= size
        stream.send_window -= size
        self._room -= size
        if self._asleep:
            self._asleep = False
            self._wake()
        stream_id, out, pack = stream.id, self.out, HEAD.pack
        out.append(pack(0, len(head), HEADERS, END_HEADERS, stream_id))
        out.append(head)
        out.append(pack(size >> 16, size & 0xFFFF, DATA, 0 if tail else END_STREAM, stream_id))
        out.append(lead)
        out.append(message)
        if tail:
            out.append(pack(0, len(tail), HEADERS, _LAST, stream_id))
            out.append(tail)
        self._ended(stream)
        if len(out) > BATCH:
            self._hurry()
        return True

    def finish(self, stream: _Stream, trailers: bytes) -> None:
        """End the stream with finished frames, after what is pending."""
        pending = stream.pending
        if pending is None:
            self.write(trailers)
            self._ended(stream)
        else:
            pending.trailers = trailers

    def pump(self, stream: _Stream) -> bool:
        """Send as much of a stream's pending message as there is room for; True when all of it went."""
        pending = stream.pending
        if pending is None:
            return True
        while pending.at < len(pending.data) or pending.lead:
            left = len(pending.lead) + len(pending.data) - pending.at
            size = min(left, self.window, stream.send_window, self._room, self.max_frame)
            if size <= 0:
                return False
            self._chunk(stream, pending, size, end=pending.end and size == left)
        if not pending.data and pending.end:
            self._chunk(stream, pending, 0, end=True)
        self._done(stream, pending)
        return True

    def _chunk(self, stream: _Stream, pending: Pending, size: int, *, end: bool) -> None:
        self.window -= size
        stream.send_window -= size
        self._room -= size
        self.waiting -= size
        self.out.append(HEAD.pack(size >> 16, size & 0xFFFF, DATA, END_STREAM if end else 0, stream.id))
        if pending.lead:
            lead, pending.lead = pending.lead[:size], pending.lead[size:]
            self.out.append(lead)
            size -= len(lead)
        self.out.append(pending.data[pending.at : pending.at + size])
        pending.at += size
        if self._asleep:
            self._asleep = False
            self._wake()

    def _done(self, stream: _Stream, pending: Pending) -> None:
        stream.pending = None
        self._blocked.pop(stream, None)
        if pending.trailers:
            self.write(pending.trailers)
        if pending.trailers or pending.end:
            self._ended(stream)
        stream.on_drained()

    def pump_all(self) -> None:
        """Go on with all that waits, in turns: who got something goes to the end of the queue."""
        for stream in list(self._blocked):
            if self.window <= 0 or self._room <= 0:
                return
            before = stream.send_window
            if not self.pump(stream) and stream.send_window != before:
                self._blocked[stream] = self._blocked.pop(stream)

    def forget(self, stream: _Stream) -> None:
        """Drop what waits on a stream that is no more."""
        pending = stream.pending
        if pending is not None:
            self.waiting -= len(pending.lead) + len(pending.data) - pending.at
            stream.pending = None
            self._blocked.pop(stream, None)

    def take(self) -> bytes:
        """Return all that is to be written now."""
        data = b"".join(self.out)
        self.out.clear()
        self._asleep = True
        return data

    def taken(self, *, paused: bool) -> None:
        """Hear whether the socket can take more; what waited goes on when it can."""
        self._paused = paused
        if paused:
            self._room = 0
            return
        self._room = ROOM
        self._control = 0
        if self._blocked:
            self.pump_all()

    def grow(self, increment: int) -> bool:
        """Open the connection's window; False when it would exceed what the RFC allows."""
        self.window += increment
        self.granted += increment
        if self.window > MAX_31:
            return False
        if self._blocked:
            self.pump_all()
        return True

    def grow_stream(self, stream: _Stream, increment: int) -> bool:
        """Open a stream's window; False when it would exceed what the RFC allows."""
        stream.send_window += increment
        if stream.send_window > MAX_31:
            return False
        self.pump(stream)
        return True

    def headers(self, stream_id: int, block: bytes, *, end: bool) -> bytes:
        """Return a header block as frames of a size that the peer takes, to be sent at once."""
        if self.shrink_table:
            self.shrink_table = False
            block = NO_TABLE + block
        return frames.headers(stream_id, block, self.max_frame, end=end)
