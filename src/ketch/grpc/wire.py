"""Wire: one HTTP/2 connection on one socket. Writes are joined, once per turn of the event loop."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from ..http2.connection import Connection
from ..http2.limits import CLIENT_FRAME
from .deadlines import Deadlines
from .inbox import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..errors import ProtocolError
    from ..http2.compression import Headers
    from ..http2.stream import Stream
    from .tuning import Tuning

#: Bytes in the socket's buffer above which it counts as full.
_HIGH_WATER: Final = 262_144
#: Seconds that a peer has to read our last words.
_FAREWELL: Final = 2.0
#: The ping that asks for a sign of life; answers to others are none of the wire's business.
KEEPALIVE: Final = b"ketchnow"

Spawn: TypeAlias = "Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]"

if sys.version_info >= (3, 12):

    def spawner(loop: asyncio.AbstractEventLoop) -> Spawn:
        """Return what starts tasks. They run at once up to where they first wait, which most handlers never do."""
        return partial(asyncio.Task, loop=loop, eager_start=True)

else:

    def spawner(loop: asyncio.AbstractEventLoop) -> Spawn:
        """Return what starts tasks."""
        return loop.create_task


class Wire(asyncio.Protocol):
    """The socket side of a connection; `ServerWire` and `ClientWire` say what its streams are.

    Attributes:
        connection: the HTTP/2 side.
        peer: the other end's address.
        lost: done when the socket is closed.
    """

    def __init__(self, tuning: Tuning, loop: asyncio.AbstractEventLoop, *, client: bool) -> None:
        self.tuning = tuning
        self.loop = loop
        self.peer = ""
        self.lost: asyncio.Future[None] = loop.create_future()
        self.pool = Pool(tuning.assembly)
        self._transport: asyncio.Transport | None = None
        self._reading = True  # until there is a socket nothing is flushed
        self._paused = False
        self._closing = False
        self._scheduled = False
        self._heard = False
        self._keepalive: asyncio.TimerHandle | None = None
        self._farewell: asyncio.TimerHandle | None = None
        limits = replace(tuning.limits, max_frame=CLIENT_FRAME) if client else tuning.limits
        self.connection = Connection(self, client=client, limits=limits)
        self.deadlines = Deadlines(loop, self.connection.streams)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hear that there is a socket."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's aren't, but have its methods
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self.peer = address_of(transport)
        if self.connection.client:
            self._reading = False
            self.flush()  # a server waits until the client has shown that it speaks HTTP/2
        if self.tuning.keepalive:
            self._keepalive = self.loop.call_later(self.tuning.keepalive, self._listen_for_life)

    def data_received(self, data: bytes) -> None:
        """Take bytes; what they lead to is written in one go."""
        self._heard = True
        self._reading = True
        self.connection.receive(data)
        self._reading = False
        if self.connection.sender.out:
            self.flush()

    def pause_writing(self) -> None:
        """Hear that the socket is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Hear that the socket takes more."""
        self._paused = False
        self.connection.sender.taken(paused=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that the socket is closed."""
        self._reading = True
        self._transport = None
        for timer in (self._keepalive, self._farewell):
            if timer is not None:
                timer.cancel()
        self.connection.lose(f"the connection to {self.peer} was lost" + (f": {exc}" if exc else ""))
        self.deadlines.stop()
        if not self.lost.done():
            self.lost.set_result(None)

    # what the connection tells

    def wake(self) -> None:
        """Write what is queued, at the end of this turn at the latest."""
        if not self._reading and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._flush_scheduled)

    def flush(self) -> None:
        """Write what is queued now."""
        sender = self.connection.sender
        if self._transport is None or self._closing or not sender.out:
            return
        self._transport.write(sender.take())
        sender.taken(paused=self._paused)

    def on_stream(self, stream_id: int, headers: Headers) -> Stream:
        """Make the object for a stream that the peer opens."""
        raise NotImplementedError

    def on_settings(self) -> None:
        """Hear that the peer speaks HTTP/2."""

    def on_pong(self, payload: bytes) -> None:
        """Hear that a ping was answered."""

    def on_goaway(self, code: int, reason: str) -> None:
        """Hear that the peer takes no new streams."""

    def on_ended_stream(self) -> None:
        """Hear that a stream has ended, when that matters."""

    def on_end(self, error: ProtocolError) -> None:
        """Hear that the connection is over."""
        raise NotImplementedError

    # for those who own the wire

    def close(self) -> None:
        """Write what is queued and close; a peer that doesn't read gets no more than a moment."""
        self.flush()
        transport = self._transport
        if transport is not None and self._farewell is None:
            self._closing = True
            transport.close()
            self._farewell = self.loop.call_later(_FAREWELL, transport.abort)

    def abort(self) -> None:
        """Close without another word."""
        if self._transport is not None:
            self._transport.abort()

    # inside

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        self.flush()

    def _listen_for_life(self) -> None:
        tuning = self.tuning
        if self._heard:
            self._heard = False
            self._keepalive = self.loop.call_later(tuning.keepalive, self._listen_for_life)
            self.connection.check_progress()
            return
        self.connection.ping(KEEPALIVE)
        self._keepalive = self.loop.call_later(tuning.keepalive_timeout, self._give_up)

    def _give_up(self) -> None:
        if self._heard:
            self._listen_for_life()
            return
        self.connection.lose(f"{self.peer} did not answer within {self.tuning.keepalive_timeout:g} s")
        self.abort()


def address_of(transport: asyncio.BaseTransport) -> str:
    """Return a socket's other end; that of a unix socket rarely has a name."""
    peername = transport.get_extra_info("peername")
    if isinstance(peername, tuple):
        host, port = peername[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix:" + (peername if isinstance(peername, str) else "")
