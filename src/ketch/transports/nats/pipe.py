"""Pipe: a byte stream between two programs, made of NATS messages; what speaks over it takes it for a socket.

Each message begins with four bytes that count them. NATS delivers in order, but at most once: where a message is
missing the pipe is broken, as it is when the connection to NATS is lost, or when nobody listens at the other end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ...errors import TransportError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...nats.wire import RawHeaders
    from .post import Post

_COUNT: Final = 4
_END: Final = b"\xff\xff\xff\xff"
#: Counts before it, then from 0 again.
_TURN: Final = 0xFFFF_FFFE
#: Bytes in a message, and what is left to NATS of its limit.
_MESSAGE: Final = 256 * 1024
_SPARE: Final = 1024
#: Seconds between two looks whether the connection takes more.
_LOOK: Final = 0.002


class Pipe(asyncio.Transport):
    """One end.

    Attributes:
        here: the subject of this end.
    """

    def __init__(self, post: Post, protocol: asyncio.Protocol, *, there: str = "") -> None:
        super().__init__()
        self.here = post.expect(self.take)
        self._post = post
        self._protocol = protocol
        self._there = there
        self._loop = asyncio.get_running_loop()
        self._sent = self._got = 0
        self._open = False
        self._over = False
        self._paused = False
        self.accepted: asyncio.Future[None] = self._loop.create_future()

    def begin(self) -> None:
        """Tell the protocol that it may speak."""
        self._open = True
        self._post.link.on_loss(self._lost)
        self._protocol.connection_made(self)

    def take(self, headers: RawHeaders | None, body: bytes, reply: bytes) -> None:
        """Take a message from the other end, or NATS's word that nobody is there."""
        if headers is not None and headers.status:
            self._break(TransportError(f"nobody is there: {headers.status}"))
        elif not self._open:
            self._there = reply.decode("utf-8", "replace")
            if not self.accepted.done():
                self.accepted.set_result(None)
        elif body[:_COUNT] == _END:
            self._break(None)
        elif body[:_COUNT] != self._got.to_bytes(_COUNT):
            self._send(_END)
            self._break(TransportError("NATS lost a message"))
        else:
            self._got = (self._got + 1) % _TURN
            self._protocol.data_received(body[_COUNT:])

    # asyncio.Transport

    def write(self, data: Any) -> None:
        """Send bytes, in as many messages as it takes."""
        if self._over:
            return
        size = min(_MESSAGE, self._post.link.max_payload - _SPARE)
        for at in range(0, len(data), size):
            self._send(self._sent.to_bytes(_COUNT) + bytes(data[at : at + size]))
            self._sent = (self._sent + 1) % _TURN
        if self._post.link.full and not self._paused:
            self._paused = True
            self._protocol.pause_writing()
            self._loop.call_later(_LOOK, self._resume)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Send several pieces."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Tell the other end, and end."""
        if not self._over:
            self._send(_END)
            self._break(None)

    def abort(self) -> None:
        """End at once; the other end is told all the same."""
        self.close()

    def is_closing(self) -> bool:
        """Tell whether it has ended."""
        return self._over

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the other end's subject as the peer's name."""
        return f"nats:{self._there}" if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take no notice: the connection's own buffer is what fills."""

    def pause_reading(self) -> None:
        """Take no notice: HTTP/2's windows bound what comes."""

    def resume_reading(self) -> None:
        """Take no notice, as above."""

    def can_write_eof(self) -> bool:
        """Tell that there is no half-close."""
        return False

    # inside

    def _send(self, body: bytes) -> None:
        # With somewhere to answer to, so that NATS says when nobody is there.
        self._post.send(self._there, body, reply=self.here)

    def _resume(self) -> None:
        if self._over:
            return
        if self._post.link.full:
            self._loop.call_later(_LOOK, self._resume)
            return
        self._paused = False
        self._protocol.resume_writing()

    def _lost(self) -> None:
        self._break(TransportError("the connection to NATS was lost"))

    def _break(self, error: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        self._post.forget(self.here)
        self._post.link.forget(self._lost)
        if not self.accepted.done():
            self.accepted.set_exception(error or TransportError("it was refused"))
            self.accepted.exception()  # whoever waited may have gone
        if self._open:
            self._loop.call_soon(self._protocol.connection_lost, error)
