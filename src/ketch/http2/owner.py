"""Owner: who is told what happens on a connection, by plain method calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..errors import ProtocolError
    from .compression import Headers
    from .stream import Stream


class Owner(Protocol):
    """What a connection tells whoever owns it."""

    def wake(self) -> None:
        """There is something to write."""

    def flush(self) -> None:
        """There is enough to write it now."""

    def on_stream(self, stream_id: int, headers: Headers) -> Stream:
        """Make the object for a stream that the peer opens; its `on_headers` is called next, with the same headers."""

    def on_settings(self) -> None:
        """The peer's settings came: from the first ones on it is known to speak HTTP/2."""

    def on_pong(self, payload: bytes) -> None:
        """A ping of ours was answered."""

    def on_goaway(self, code: int, reason: str) -> None:
        """The peer takes no new streams on this connection."""

    def on_ended_stream(self) -> None:
        """A stream has ended; said while `watched` is set."""

    def on_end(self, error: ProtocolError) -> None:
        """The connection is over; write what is queued and close."""
