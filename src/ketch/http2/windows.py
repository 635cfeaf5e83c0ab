"""Windows: how much a peer may send before we took what came (RFC 9113 section 5.2), and WINDOW_UPDATE.

A window has to hold what is on its way in one round trip, the bandwidth-delay product, or the peer stands idle. It is
measured as gRPC's other implementations do: a PING goes out when data begins to come, and what comes before its answer
is what one round trip holds. Where that is most of a window, windows grow, up to a bound for a stream and one for all
of a connection. A reader that is slow opens its window seldom, so little comes in a round trip and it never gets more
than it started with.
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

#: The ping that measures; answers to others are not ours.
MEASURE: Final = b"ketchbdp"
#: Seconds between two measurements that found nothing to grow for: at first, and at most.
_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 10.0
#: By how much windows grow at a time: each time takes two round trips, one to tell and one to see.
_STEP: Final = 16
_WORD_SIZE: Final = 4


class Windows:
    """The windows of one connection and its streams.

    Attributes:
        target: what the window of a stream that is read fast grows to.
        left: bytes that the peer may still send on all streams together.
        low: when there is less left, it is time for `attend`; above all that can be left where a measurement is due.
    """

    def __init__(self, streams: Streams, limits: Limits, clock: Callable[[], float]) -> None:
        self.target = limits.stream_window
        self.left = limits.connection_window
        self.low = 3 * limits.connection_window // 4
        self._size = limits.connection_window
        self._granted = limits.connection_window  # all that the peer was ever allowed
        self._streams = streams
        self._sender = streams.sender
        self._limits = limits
        self._clock = clock
        self._measuring = False
        self._settling = False
        self._seen = -1
        self._pause = 0.0
        self._next = 0.0

    def attend(self) -> None:
        """Do what is due now that data came: measure, and open the connection's window.

        The latter whatever the streams' readers do: one that rests must not stop the others.

        Raises:
            ProtocolError: the peer has sent more than it was allowed.
        """
        if self.low > MAX_31:
            self.low = 3 * self._size // 4
            self._measuring = True
            self._sender.write(frames.frame(frames.PING, 0, 0, MEASURE))
        if self.left < self.low:
            self._refill()

    def _refill(self) -> None:
        if self.left < 0:
            raise ProtocolError("more data than the connection's window", ErrorCode.FLOW_CONTROL_ERROR)
        increment = self._size - self.left
        self.left += increment
        self._granted += increment
        self._sender.write(frames.window_update(0, increment))

    def open(self, stream: Stream, taken: int) -> None:
        """Let the peer send as much again as a stream's reader took, and more where a round trip holds more."""
        if not self._measuring and self._clock() >= self._next:
            self._arm()
        streams = self._streams
        more = min(self.target - stream.window, streams.spare)
        if more > 0:
            streams.spare -= more
            stream.window += more
            taken += more
        stream.receive_window += taken
        self._sender.write(frames.window_update(stream.id, taken))

    def _arm(self) -> None:
        """Let the next data begin a measurement."""
        if self.target < self._limits.max_stream_window and self.low <= MAX_31:
            came = self._granted - self.left
            # What came before the very first measurement belongs to the round trip in which it begins.
            self._seen = 0 if self._seen < 0 and came <= self.target else came
            self.low = MAX_31 + 1

    def on_pong(self) -> None:
        """Hear that the measuring ping was answered."""
        if not self._measuring:
            return
        self._measuring = False
        came = self._granted - self.left - self._seen
        if 3 * came >= 2 * self.target:
            # As much as fits: how much more a round trip holds can't be seen yet.
            self._grow(self.target * _STEP)
            self._pause = 0.0
            self._settling = True
        elif self._settling:
            self._settling = False  # the peer heard of the larger window only half a round trip ago
        else:
            self._pause = min(_LONGEST_PAUSE, max(_PAUSE, 2 * self._pause))
            self._next = self._clock() + self._pause

    def _grow(self, size: int) -> None:
        limits = self._limits
        self.target = max(self.target, min(size, limits.max_stream_window))
        self._size = max(self._size, min(2 * self.target, limits.max_connection_window))
        self.low = 3 * self._size // 4

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
