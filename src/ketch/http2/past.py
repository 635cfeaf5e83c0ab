"""Past: what a connection remembers of streams that are no more (RFC 9113 section 5.1).

A frame on such a stream is an error, or to be ignored, depending on how the stream came to its end. The ids say most of
it; what they don't is kept in bounded numbers.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from ..errors import ProtocolError
from .codes import ErrorCode
from .frames import MAX_31

#: Streams that were reset of late; what the peer sent before it knew is ignored.
_REMEMBERED: Final = 1000
#: Stretches of ids that the peer skipped.
_GAPS: Final = 64


class Past:
    """The ids that were used on one connection.

    Attributes:
        next: the id of the next stream of ours.
        highest: the highest id that the peer has used.
        last_taken: the peer's streams above this are ignored, since we sent GOAWAY.
    """

    def __init__(self, *, client: bool) -> None:
        self.next = 1
        self.highest = 0
        self.last_taken = MAX_31
        self._client = client
        self._gaps: deque[tuple[int, int]] = deque(maxlen=_GAPS)
        self._dropped: dict[int, None] = {}

    @property
    def last_seen(self) -> int:
        """The highest id of the peer's that we may have looked at: what a GOAWAY says."""
        return min(self.highest, self.last_taken)

    def drop(self, stream_id: int) -> None:
        """Remember that a stream was reset."""
        self._dropped[stream_id] = None
        if len(self._dropped) > _REMEMBERED:
            del self._dropped[next(iter(self._dropped))]

    def opened(self, stream_id: int) -> None:
        """Take in the id of a stream that the peer opens, higher than all before."""
        if stream_id != self.highest + 2 and stream_id != 1:
            self._gaps.append((self.highest, stream_id))
        self.highest = stream_id

    def is_dropped(self, stream_id: int) -> bool:
        """Whether frames on a stream that isn't open are to be ignored."""
        return stream_id in self._dropped or stream_id > self.last_taken

    def require_used(self, stream_id: int, what: str) -> None:
        """Check that a stream was opened at all.

        Raises:
            ProtocolError: it is idle.
        """
        ours = bool(stream_id & 1) is self._client
        idle = stream_id >= self.next if ours else stream_id > self.highest
        if idle or not stream_id:
            raise ProtocolError(f"{what} on stream {stream_id}, which was never opened", ErrorCode.PROTOCOL_ERROR)

    def refuse_late(self, stream_id: int) -> None:
        """Refuse headers on a stream that the peer can't open any more.

        Raises:
            ProtocolError: always; PROTOCOL_ERROR where the peer skipped the id, STREAM_CLOSED where it was used.
        """
        if any(low < stream_id < high for low, high in self._gaps):
            raise ProtocolError(f"stream {stream_id} is opened out of order", ErrorCode.PROTOCOL_ERROR)
        raise ProtocolError(f"HEADERS on closed stream {stream_id}", ErrorCode.STREAM_CLOSED)
