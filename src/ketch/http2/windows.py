"""Windows: how much a peer may send before we took what came (RFC 9113 section 5.2), and WINDOW_UPDATE.

A window has to hold what arrives in one round trip, or the peer stands idle. We don't know the round trip, but see how
fast a stream's reader takes what comes: a window of which half is taken in less than half of `ROUND_TRIP` doubles, up
to a bound for the stream and one for all of a connection. So who reads slowly never gets more than it started with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import ProtocolError
from . import frames
from .codes import ErrorCode
from .frames import MAX_31

if TYPE_CHECKING:
    from collections.abc import Callable

    from .limits import Limits
    from .stream import Stream
    from .streams import Streams

#: Seconds: the longest round trip that windows grow for.
ROUND_TRIP: Final = 0.2
_WORD_SIZE: Final = 4


class Windows:
    """The windows of one connection and its streams.

    Attributes:
        initial: bytes that the peer may send on a stream that it has just opened.
        left: bytes that the peer may still send on all streams together.
        low: when there is less left, it is time to `refill`.
    """

    def __init__(self, streams: Streams, limits: Limits, clock: Callable[[], float]) -> None:
        self.initial = limits.stream_window
        self.left = limits.connection_window
        self.low = limits.connection_window // 2
        self._size = limits.connection_window
        self._refilled = clock()
        self._streams = streams
        self._sender = streams.sender
        self._limits = limits
        self._clock = clock

    def refill(self) -> None:
        """Open the connection's window, whatever the streams' readers do: one that rests must not stop the others.

        Raises:
            ProtocolError: the peer has sent more than it was allowed.
        """
        if self.left < 0:
            raise ProtocolError("more data than the connection's window", ErrorCode.FLOW_CONTROL_ERROR)
        now = self._clock()
        if now - self._refilled < ROUND_TRIP / 2:
            self._size = min(2 * self._size, max(self._size, self._limits.max_connection_window))
            self.low = self._size // 2
        self._refilled = now
        increment = self._size - self.left
        self.left += increment
        self._sender.write(frames.window_update(0, increment))

    def open(self, stream: Stream, taken: int) -> None:
        """Let the peer send as much again as a stream's reader took, and more where it reads fast."""
        now = self._clock()
        if now - stream.opened < ROUND_TRIP / 2:
            streams = self._streams
            more = max(0, min(stream.window, self._limits.max_stream_window - stream.window, streams.spare))
            streams.spare -= more
            stream.window += more
            taken += more
        stream.opened = now
        stream.receive_window += taken
        self._sender.write(frames.window_update(stream.id, taken))

    def on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:  # noqa: ARG002 - a frame's signature
        """Hear that the peer takes more (section 6.9)."""
        if len(payload) != _WORD_SIZE:
            raise ProtocolError("WINDOW_UPDATE of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        increment = frames.word(payload) & MAX_31
        streams = self._streams
        if not stream_id:
            if not increment:
                raise ProtocolError("WINDOW_UPDATE by nothing", ErrorCode.PROTOCOL_ERROR)
            if not self._sender.grow(increment):
                raise ProtocolError("the connection's window is too large", ErrorCode.FLOW_CONTROL_ERROR)
            return
        stream = streams.get(stream_id)
        if stream is None:
            streams.past.require_used(stream_id, "WINDOW_UPDATE")
        elif not increment:
            streams.break_off(stream, "WINDOW_UPDATE by nothing")
        elif not self._sender.grow_stream(stream, increment):
            streams.break_off(stream, "the stream's window is too large", ErrorCode.FLOW_CONTROL_ERROR)
