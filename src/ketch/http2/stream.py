"""One stream of a connection. The layer above derives from it and hears of frames by plain method calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .compression import Headers
    from .connection import Connection
    from .sender import Pending


class Stream:
    """One request and its response.

    Attributes:
        id: 0 until the stream is open.
        closed: both sides have ended, or either reset it; nothing more is heard or sent.
        sent_end, got_end: that side sends no more.
        send_window: bytes that the peer still takes on this stream; may be negative (RFC 9113 section 6.9.2).
        receive_window: bytes that the peer may still send.
        pending: what waits for a window, None when nothing does.
        expected: bytes of body still to come by the peer's content-length, -1 where it announced none.
    """

    __slots__ = (
        "_consumed",
        "closed",
        "connection",
        "expected",
        "got_end",
        "id",
        "pending",
        "receive_window",
        "send_window",
        "sent_end",
    )

    def __init__(self, connection: Connection, stream_id: int = 0) -> None:
        self.connection = connection
        self.id = stream_id
        self.closed = False
        self.sent_end = False
        self.got_end = False
        self.send_window = connection.peer.initial_window_size
        self.receive_window = connection.limits.stream_window
        self.pending: Pending | None = None
        self.expected = -1
        self._consumed = 0

    def consume(self, size: int) -> None:
        """Say that `size` received bytes need no more room: the peer may send as many again."""
        self._consumed += size
        if self._consumed * 2 >= self.connection.limits.stream_window and not self.got_end and not self.closed:
            self.connection.open_window(self, self._consumed)
            self._consumed = 0

    def on_headers(self, headers: Headers, *, end: bool) -> None:
        """Take a header list: the first, or trailers, which always come with `end`."""
        raise NotImplementedError

    def on_data(self, payload: bytes, *, end: bool) -> None:
        """Take a piece of the body. Call `consume` for it once it takes no more room."""
        raise NotImplementedError

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:
        """Hear that the stream is no more: reset by the peer, broken by it, or its connection lost.

        `refused` says that the peer did not look at it, so that it may be tried again elsewhere.
        """
        raise NotImplementedError

    def on_drained(self) -> None:
        """Hear that what waited for a window has been sent."""
