"""Streams: the open ones of a connection, and the ways in which one comes to its end (RFC 9113 section 5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ProtocolError
from . import frames
from .codes import ErrorCode
from .frames import MAX_31
from .limits import Allowance
from .past import Past
from .sender import Sender
from .stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from .compression import Headers
    from .limits import Limits
    from .owner import Owner


class Streams(dict[int, Stream]):
    """The open streams of one connection, by id.

    Attributes:
        client: which side this is.
        sender: what goes out.
        past: the ids that were used.
        room: how many streams we may have open at a time.
        going: no new stream may be opened: GOAWAY was received, or the ids are used up.
        watched: the owner wants to hear of each stream that ends; set by either side's GOAWAY too.
        spare: bytes by which the windows of all streams together may still grow.
        resets: what streams that come to nothing may cost us.
    """

    def __init__(self, owner: Owner, limits: Limits, clock: Callable[[], float], *, client: bool) -> None:
        super().__init__()
        self.client = client
        self.sender: Sender[Stream] = Sender(owner.wake, owner.flush, self._sent_end)
        self.past = Past(client=client)
        self.room = 0 if client else MAX_31
        self.going = False
        self.watched = False
        self.resets = Allowance("reset streams", 1000, 100, clock)
        self.spare = limits.max_connection_window
        self._owner = owner
        self._limits = limits

    # how one begins

    def attach(self, stream: Stream) -> None:
        """Give a new stream of ours its id."""
        past = self.past
        stream.id = past.next
        past.next += 2
        if past.next > MAX_31:  # after 2**30 calls, half a day at full speed
            self.stop()
            self.watched = True
        self[stream.id] = stream

    def accept(self, stream_id: int, headers: Headers, *, malformed: bool) -> Stream | None:
        """Return a new stream of the peer's with a higher id than all before, None where we don't take it.

        The owner never sees a request that is malformed.
        """
        past = self.past
        past.opened(stream_id)
        if stream_id > past.last_taken:
            return None  # GOAWAY told the peer that we don't look at it
        if len(self) >= self._limits.max_streams:
            self.reject(stream_id, ErrorCode.REFUSED_STREAM)
            return None
        if malformed:
            self.reject(stream_id, ErrorCode.PROTOCOL_ERROR)
            return None
        stream = self[stream_id] = self._owner.on_stream(stream_id, headers)
        return stream

    def stop(self) -> None:
        """Open no more streams."""
        self.going = True
        self.room = 0

    # how one ends

    def _sent_end(self, stream: Stream) -> None:
        stream.sent_end = True
        if stream.got_end:
            self._close(stream)

    def got_end(self, stream: Stream) -> None:
        """Hear that the peer has sent the last of a stream."""
        if stream.sent_end and not stream.closed:
            self._close(stream)

    def _close(self, stream: Stream) -> None:
        """Take out a stream that both sides have ended well."""
        if stream.pending is not None or self.watched or stream.window != self._limits.stream_window:
            self.forget(stream)
        else:  # what `forget` does for most
            stream.closed = True
            del self[stream.id]
        if self.resets.used:
            self.resets.earn()

    def reset(self, stream: Stream, code: int) -> None:
        """Give a stream up and tell the peer. No error when it has ended."""
        if not stream.closed:
            self.drop(stream)
            self.sender.write(frames.rst_stream(stream.id, code))

    def reset_all(self, code: int, reason: str) -> None:
        """Tell every stream that its connection is lost."""
        for stream in list(self.values()):
            self.forget(stream)
            stream.on_reset(code, reason, refused=False)

    def break_off(self, stream: Stream, reason: str, code: int = ErrorCode.PROTOCOL_ERROR) -> None:
        """Reset a stream whose rules the peer broke."""
        if stream.closed:
            return
        self.drop(stream)
        self.sender.write(frames.rst_stream(stream.id, code))
        stream.on_reset(code, reason, refused=False)
        self.resets.spend()  # last: it may end the connection, and then nobody else tells the stream

    def object(self, stream_id: int, reason: str, code: ErrorCode) -> None:
        """Reset an open stream; the RFC lets an error on any other one end the connection.

        Raises:
            ProtocolError: it isn't open.
        """
        stream = self.get(stream_id)
        if stream is None:
            raise ProtocolError(reason, code)
        self.break_off(stream, reason, code)

    def reject(self, stream_id: int, code: int) -> None:
        """Reset a stream that never got an object."""
        self.past.drop(stream_id)
        self.resets.spend()
        self.sender.write(frames.rst_stream(stream_id, code))

    def drop(self, stream: Stream) -> None:
        """Forget a stream that was reset; what comes late for it is ignored."""
        self.forget(stream)
        self.past.drop(stream.id)

    def forget(self, stream: Stream) -> None:
        """Take a stream that is over out of the open ones."""
        stream.closed = True
        self.pop(stream.id, None)
        self.spare += stream.window - self._limits.stream_window
        if stream.pending is not None:
            self.sender.forget(stream)
        if self.watched:
            self._owner.on_ended_stream()
