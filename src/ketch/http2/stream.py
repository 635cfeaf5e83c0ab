"""One stream of a connection. The layer above derives from it and hears of frames by plain method calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .sender import Outgoing

if TYPE_CHECKING:
    from .compression import Headers
    from .limits import Limits
    from .sender import Sender
    from .settings import Settings


class Link(Protocol):
    """The connection, as its streams see it.

    Attributes:
        peer: the settings that the peer sent.
        sender: what goes out.
    """

    limits: Limits
    peer: Settings
    sender: Sender[Stream]

    def headers(self, stream: Stream, block: bytes) -> bytes:
        """Return the frames of a header block, to be sent at once."""

    def trailers(self, stream: Stream, block: bytes) -> bytes:
        """Return the frames of trailers, to be sent at once or after what is pending."""

    def piecemeal(self, stream: Stream, head: bytes, lead: bytes, message: bytes, tail: bytes) -> None:
        """Send what `Sender.whole` could not send at once."""

    def end(self, stream: Stream, block: bytes) -> None:
        """Send trailers, after what is pending."""

    def reset(self, stream: Stream, code: int) -> None:
        """Give a stream up and tell the peer. No error when it has ended."""

    def open_window(self, stream: Stream, taken: int) -> None:
        """Let the peer send more on a stream, of which the reader took so many bytes."""


class Stream(Outgoing):
    """One request and its response.

    Attributes:
        closed: both sides have ended, or either reset it; nothing more is heard or sent.
        sent_end, got_end: that side sends no more.
        receive_window: bytes that the peer may still send.
        window: the size of that window when nothing is on its way.
        opened: when it was opened last, on the connection's clock.
        expected: bytes of body still to come by the peer's content-length, -1 where it announced none.
    """

    __slots__ = (
        "_consumed",
        "closed",
        "connection",
        "expected",
        "got_end",
        "opened",
        "receive_window",
        "sent_end",
        "window",
    )

    def __init__(self, connection: Link, stream_id: int = 0) -> None:
        # What `Outgoing.__init__` does: one call less for each stream.
        self.id = stream_id
        self.send_window = connection.peer.initial_window_size
        self.pending = None
        self.connection = connection
        self.closed = False
        self.sent_end = False
        self.got_end = False
        self.receive_window = self.window = connection.limits.stream_window
        self.opened = -1.0
        self.expected = -1
        self._consumed = 0

    def consume(self, size: int) -> None:
        """Say that `size` received bytes need no more room: the peer may send as many again."""
        self._consumed += size
        if self._consumed * 2 >= self.window and not self.got_end and not self.closed:
            self.connection.open_window(self, self._consumed)
            self._consumed = 0

    def on_headers(self, headers: Headers, *, end: bool) -> None:
        """Take a header list: the first, or trailers, which always come with `end`."""
        raise NotImplementedError

    def on_data(self, payload: bytes, *, end: bool) -> None:
        """Take a piece of the body. Call `consume` for it once it takes no more room."""
        raise NotImplementedError

    def on_request(self, headers: Headers, payload: bytes) -> None:
        """Take all of a request at once: its headers, and a body that ends it."""
        self.on_headers(headers, end=False)
        if not self.closed:
            self.got_end = True
            self.on_data(payload, end=True)

    def on_whole(self, headers: Headers, payload: bytes, trailers: Headers) -> bool:  # noqa: ARG002 - the signature
        """Take all of a response at once; or return False and hear of it frame by frame."""
        return False

    def on_reset(self, code: int, reason: str, *, refused: bool) -> None:
        """Hear that the stream is no more: reset by the peer, broken by it, or its connection lost.

        `refused` says that the peer did not look at it, so that it may be tried again elsewhere.
        """
        raise NotImplementedError
